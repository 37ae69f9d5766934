{{/* What all figures of this release have in common in Prometheus; both monitors make `job` the name of the release. */}}
{{- define "roomcast.series" -}}
namespace="{{ .Release.Namespace }}",job="{{ .Release.Name }}"
{{- end }}

{{/* The endpoint of a monitor: {root, monitor}, the latter being its values. */}}
{{- define "roomcast.endpoint" -}}
{{- with .monitor }}
- port: api
  path: /metrics
  {{- if eq (include "roomcast.apiScheme" $.root) "https" }}
  scheme: https
  {{- with .tlsConfig | default (include "roomcast.scrapeTls" $.root | fromYaml) }}
  tlsConfig:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  interval: {{ .interval }}
  scrapeTimeout: {{ .scrapeTimeout }}
  {{- with .relabelings }}
  relabelings:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .metricRelabelings }}
  metricRelabelings:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Whom Prometheus believes: the authority that stands beside the certificate, as cert-manager writes it. */}}
{{- define "roomcast.scrapeTls" -}}
{{- with .Values.tls.api.secretName }}
ca:
  secret: {name: {{ . }}, key: ca.crt}
serverName: {{ include "roomcast.apiHost" $ }}
{{- end }}
{{- end }}
