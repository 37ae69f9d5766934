{{/* The parts of the pod that are long: probes and where it may run. */}}

{{- define "roomcast.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: api}
  {{- toYaml .Values.probes.startup | nindent 2 }}
livenessProbe:
  httpGet: {path: /livez, port: api}
  {{- toYaml .Values.probes.liveness | nindent 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: api}
  {{- toYaml .Values.probes.readiness | nindent 2 }}
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
