{{/* What all figures of this release have in common in Prometheus; both monitors make `job` the name of the release. */}}
{{- define "roomcast.series" -}}
namespace="{{ .Release.Namespace }}",job="{{ .Release.Name }}"
{{- end }}

{{/* An endpoint of a monitor: {values, port}. */}}
{{- define "roomcast.endpoint" -}}
- port: api
  path: /metrics
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
