{{/* Names and labels. */}}

{{- define "roomcast.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 43 characters, so that "-dashboard-overview" still fits. */}}
{{- define "roomcast.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 43 | trimSuffix "-" }}
{{- else }}
{{- $name := include "roomcast.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 43 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 43 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* What selects the pods. Never changes: a Deployment's selector cannot. */}}
{{- define "roomcast.selectorLabels" -}}
app.kubernetes.io/name: {{ include "roomcast.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "roomcast.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "roomcast.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The name of the API in the cluster, and in its certificate. */}}
{{- define "roomcast.apiHost" -}}
{{- printf "%s-api.%s.svc" (include "roomcast.fullname" .) .Release.Namespace }}
{{- end }}

{{- define "roomcast.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "roomcast.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "roomcast.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The port of a listener such as "0.0.0.0:3000" or "[::]:3000". */}}
{{- define "roomcast.port" -}}
{{- regexFind "[0-9]+$" . }}
{{- end }}
{{- define "roomcast.publicPort" -}}{{ include "roomcast.port" .Values.config.public.listen }}{{- end }}
{{- define "roomcast.apiPort" -}}{{ include "roomcast.port" .Values.config.api.listen }}{{- end }}
{{- define "roomcast.peerPort" -}}{{ include "roomcast.port" (include "roomcast.peerListen" .) }}{{- end }}

{{/* Where Socket.IO is, as a prefix. */}}
{{- define "roomcast.path" -}}
{{- default "/socket.io/" .Values.config.public.path }}
{{- end }}

{{/* The fewest and the most nodes. */}}
{{- define "roomcast.minReplicas" -}}
{{- if .Values.autoscaling.enabled }}{{ int .Values.autoscaling.minReplicas }}{{ else }}{{ int .Values.replicaCount }}{{ end }}
{{- end }}
{{- define "roomcast.maxReplicas" -}}
{{- if .Values.autoscaling.enabled }}{{ int .Values.autoscaling.maxReplicas }}{{ else }}{{ int .Values.replicaCount }}{{ end }}
{{- end }}

{{/* The names of environment variables that an operator gives, as a list in JSON. */}}
{{- define "roomcast.extraEnvNames" -}}
{{- $names := list }}
{{- range .Values.extraEnv }}
{{- $names = append $names .name }}
{{- end }}
{{- toJson $names }}
{{- end }}
