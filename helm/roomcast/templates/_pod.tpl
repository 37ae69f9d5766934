{{/* The parts of the pod that are long: probes and where it may run. */}}

{{- define "roomcast.probes" -}}
{{- $scheme := include "roomcast.apiScheme" . | upper }}
startupProbe:
  httpGet: {path: /livez, port: api, scheme: {{ $scheme }}}
  {{- toYaml .Values.probes.startup | nindent 2 }}
livenessProbe:
  httpGet: {path: /livez, port: api, scheme: {{ $scheme }}}
  {{- toYaml .Values.probes.liveness | nindent 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: api, scheme: {{ $scheme }}}
  {{- toYaml .Values.probes.readiness | nindent 2 }}
{{- end }}

{{/*
The environment: what only the pod itself knows. The other pods reach it at its address, traces carry its name. What an
operator gives goes over it.
*/}}
{{- define "roomcast.environment" -}}
{{- $given := include "roomcast.extraEnvNames" . | fromJsonArray }}
{{- if and (include "roomcast.hasPeers" .) (not (dig "peer" "advertise" "" .Values.config)) (not (has "ROOMCAST__PEER__ADVERTISE" $given)) }}
- name: ROOMCAST__PEER__ADVERTISE
  valueFrom:
    fieldRef: {fieldPath: status.podIP}
{{- end }}
{{- $traced := or (dig "trace" "endpoint" "" .Values.config) (dig "trace" "traces_endpoint" "" .Values.config) (has "OTEL_EXPORTER_OTLP_ENDPOINT" $given) (has "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" $given) }}
{{- if and $traced (not (has "OTEL_RESOURCE_ATTRIBUTES" $given)) }}
- name: POD_NAME
  valueFrom:
    fieldRef: {fieldPath: metadata.name}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.namespace.name={{ .Release.Namespace }},k8s.pod.name=$(POD_NAME)
{{- end }}
{{- with .Values.extraEnv }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{- define "roomcast.placement" -}}
{{- $selector := include "roomcast.selectorLabels" . }}
{{- with .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- else }}
{{- $keys := dict "zone" "topology.kubernetes.io/zone" "host" "kubernetes.io/hostname" }}
{{- if or .Values.topologySpread.zone .Values.topologySpread.host }}
topologySpreadConstraints:
  {{- range $name := list "zone" "host" }}
  {{- with get $.Values.topologySpread $name }}
  - maxSkew: 1
    topologyKey: {{ get $keys $name }}
    whenUnsatisfiable: {{ . }}
    labelSelector:
      matchLabels:
        {{- $selector | nindent 8 }}
    # Pods of the release before do not count.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
  {{- end }}
{{- end }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- else }}
{{- if eq .Values.podAntiAffinity "soft" }}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- $selector | nindent 14 }}
{{- else if eq .Values.podAntiAffinity "hard" }}
affinity:
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- $selector | nindent 12 }}
{{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}
