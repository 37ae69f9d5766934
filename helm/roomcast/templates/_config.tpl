{{/*
The configuration file and its secrets: what stands in the ConfigMap, which files the Secrets become, and which part of
it all needs new pods when it changes.
*/}}

{{- define "roomcast.secretsDir" -}}/run/secrets/roomcast{{- end }}

{{/* Whether the chart has a Secret of its own for keys and URL. */}}
{{- define "roomcast.generatesKey" -}}
{{- with .Values.apiKeys }}
{{- if and .generate (not .values) (not .existingSecret) (not $.Values.config.api.keys) (not $.Values.config.api.key) }}true{{ end }}
{{- end }}
{{- end }}
{{- define "roomcast.ownsSecret" -}}
{{- if or (include "roomcast.generatesKey" .) .Values.apiKeys.values .Values.broker.url }}true{{ end }}
{{- end }}

{{/* Files with API keys below the directory of secrets, as {files: [{secret, key, path}]}. */}}
{{- define "roomcast.apiKeyFiles" -}}
{{- $files := list }}
{{- $own := include "roomcast.fullname" . }}
{{- if include "roomcast.generatesKey" . }}
{{- $files = append $files (dict "secret" $own "key" "api-key" "path" "api-key") }}
{{- end }}
{{- range $index, $value := .Values.apiKeys.values }}
{{- $name := printf "api-key-%d" $index }}
{{- $files = append $files (dict "secret" $own "key" $name "path" $name) }}
{{- end }}
{{- if .Values.apiKeys.existingSecret }}
{{- range $index, $key := .Values.apiKeys.existingSecretKeys }}
{{- $files = append $files (dict "secret" $.Values.apiKeys.existingSecret "key" $key "path" (printf "existing-api-key-%d" $index)) }}
{{- end }}
{{- end }}
{{- dict "files" $files | toJson }}
{{- end }}

{{/* The configuration as Roomcast reads it. */}}
{{- define "roomcast.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $dir := include "roomcast.secretsDir" . }}
{{- $keys := default list $config.api.keys }}
{{- range (include "roomcast.apiKeyFiles" . | fromJson).files }}
{{- $keys = append $keys (printf "file:%s/%s" $dir .path) }}
{{- end }}
{{- if $keys }}
{{- $_ := set $config.api "keys" $keys }}
{{- end }}
{{- if or .Values.broker.url .Values.broker.existingSecret }}
{{- $_ := set $config.adapter "url" (printf "file:%s/broker-url" $dir) }}
{{- end }}
{{- toPrettyJson $config }}
{{- end }}

{{/*
A sum over what a node reads only when it starts. Left out is what it takes up while it runs, so that a change there
disconnects nobody: gateway/src/config/reload.rs has the list.
*/}}
{{- define "roomcast.checksum" -}}
{{- $config := include "roomcast.config" . | fromJson }}
{{- $config = omit $config "namespace" "auth" "limits" "reload" }}
{{- $_ := set $config "api" (omit $config.api "keys") }}
{{- if $config.log }}
{{- $_ := set $config "log" (omit $config.log "level") }}
{{- end }}
{{- list $config .Values.broker | toJson | sha256sum }}
{{- end }}

{{/* The volume with all secrets, or nothing. */}}
{{- define "roomcast.secretsVolume" -}}
{{- $keys := (include "roomcast.apiKeyFiles" . | fromJson).files }}
{{- $broker := "" }}
{{- $brokerKey := "broker-url" }}
{{- if .Values.broker.existingSecret }}
{{- $broker = .Values.broker.existingSecret }}
{{- $brokerKey = .Values.broker.existingSecretKey }}
{{- else if .Values.broker.url }}
{{- $broker = include "roomcast.fullname" . }}
{{- end }}
{{- if or $keys $broker .Values.secrets.values .Values.secrets.existingSecrets }}
- name: secrets
  projected:
    # Readable by fsGroup.
    defaultMode: 0440
    sources:
      {{- range $keys }}
      - secret:
          name: {{ .secret }}
          items: [{key: {{ .key | quote }}, path: {{ .path | quote }}}]
      {{- end }}
      {{- if $broker }}
      - secret:
          name: {{ $broker }}
          items: [{key: {{ $brokerKey | quote }}, path: broker-url}]
      {{- end }}
      {{- range include "roomcast.furtherSecrets" . | fromJsonArray }}
      - secret:
          name: {{ . }}
      {{- end }}
{{- end }}
{{- end }}

{{/* The Secrets all of whose keys are mounted and in the environment. */}}
{{- define "roomcast.furtherSecrets" -}}
{{- $names := .Values.secrets.existingSecrets }}
{{- if .Values.secrets.values }}
{{- $names = prepend $names (printf "%s-env" (include "roomcast.fullname" .)) }}
{{- end }}
{{- toJson $names }}
{{- end }}
