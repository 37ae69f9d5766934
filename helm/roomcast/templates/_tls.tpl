{{/*
TLS that ends in the pods. Each helper is about one listener, "public" or "api": {root, listener}. Certificates come from
Secrets by `tls`, or from files that `config` names itself.
*/}}

{{/* Where the files of a listener are mounted. */}}
{{- define "roomcast.tlsDir" -}}/run/secrets/{{ .listener }}-tls{{- end }}

{{/* http or https. */}}
{{- define "roomcast.scheme" -}}
{{- $own := dig .listener "tls" "cert_file" "" .root.Values.config }}
{{- ternary "https" "http" (or (get .root.Values.tls .listener).secretName $own | empty | not) }}
{{- end }}
{{- define "roomcast.publicScheme" -}}{{ include "roomcast.scheme" (dict "root" . "listener" "public") }}{{- end }}
{{- define "roomcast.apiScheme" -}}{{ include "roomcast.scheme" (dict "root" . "listener" "api") }}{{- end }}

{{/* What config.<listener>.tls becomes. */}}
{{- define "roomcast.tlsConfig" -}}
{{- $tls := get .root.Values.tls .listener }}
{{- $settings := deepCopy (dig .listener "tls" dict .root.Values.config) }}
{{- $dir := include "roomcast.tlsDir" . }}
{{- if $tls.secretName }}
{{- $_ := set $settings "cert_file" (printf "%s/tls.crt" $dir) }}
{{- $_ := set $settings "key_file" (printf "%s/tls.key" $dir) }}
{{- end }}
{{- if $tls.clientCa.secretName }}
{{- $_ := set $settings "client_ca_file" (printf "%s/clients-ca.crt" $dir) }}
{{- end }}
{{- /* Kubelets have no certificate to show, and probes ask this listener. */}}
{{- if and (eq .listener "api") $settings.client_ca_file (not $settings.client_certificates) }}
{{- $_ := set $settings "client_certificates" "optional" }}
{{- end }}
{{- toJson $settings }}
{{- end }}

{{/* The volume with the files, or nothing. A renewed certificate arrives in it, and nodes read it again. */}}
{{- define "roomcast.tlsVolume" -}}
{{- $tls := get .root.Values.tls .listener }}
{{- if $tls.secretName }}
- name: {{ .listener }}-tls
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ $tls.secretName }}
          items: [{key: tls.crt, path: tls.crt}, {key: tls.key, path: tls.key}]
      {{- with $tls.clientCa.secretName }}
      - secret:
          name: {{ . }}
          items: [{key: {{ $tls.clientCa.key | quote }}, path: clients-ca.crt}]
      {{- end }}
{{- end }}
{{- end }}
{{- define "roomcast.tlsMount" -}}
{{- if (get .root.Values.tls .listener).secretName }}
- {name: {{ .listener }}-tls, mountPath: {{ include "roomcast.tlsDir" . }}, readOnly: true}
{{- end }}
{{- end }}
