{{/*
The configuration file and its secrets: what stands in the ConfigMap, which files the Secrets become, and which part of
it all needs new pods when it changes.
*/}}

{{- define "roomcast.secretsDir" -}}/run/secrets/roomcast{{- end }}

{{/* The kind of the adapter. */}}
{{- define "roomcast.kind" -}}
{{- default "memory" .Values.config.adapter.kind }}
{{- end }}

{{/* Whether pods pass requests on to each other. */}}
{{- define "roomcast.hasPeers" -}}
{{- if and (ne (include "roomcast.kind" .) "memory") (dig "peer" "enabled" true .Values.config) }}true{{ end }}
{{- end }}

{{/* Where pods listen for each other: a port that a NetworkPolicy can name, at the same addresses as for clients. */}}
{{- define "roomcast.peerListen" -}}
{{- default (regexReplaceAll "[0-9]+$" .Values.config.public.listen "3002") (dig "peer" "listen" "" .Values.config) }}
{{- end }}

{{/* Whether the chart has a Secret of its own for keys and URL. */}}
{{- define "roomcast.generatesKey" -}}
{{- with .Values.apiKeys }}
{{- if and .generate (not .values) (not .existingSecret) (not $.Values.config.api.keys) (not $.Values.config.api.key) (not $.Values.config.api.jwt) }}true{{ end }}
{{- end }}
{{- end }}
{{- define "roomcast.ownsSecret" -}}
{{- if or (include "roomcast.generatesKey" .) .Values.apiKeys.values .Values.broker.url }}true{{ end }}
{{- end }}

{{/* The files with API keys below the directory of secrets: each has the name of its key in the Secret. */}}
{{- define "roomcast.apiKeyFiles" -}}
{{- $files := list }}
{{- if include "roomcast.generatesKey" . }}
{{- $files = append $files "api-key" }}
{{- end }}
{{- range $index, $_ := .Values.apiKeys.values }}
{{- $files = append $files (printf "api-key-%d" $index) }}
{{- end }}
{{- if .Values.apiKeys.existingSecret }}
{{- $files = concat $files .Values.apiKeys.existingSecretKeys }}
{{- end }}
{{- toJson $files }}
{{- end }}

{{/* The configuration as Roomcast reads it. */}}
{{- define "roomcast.config" -}}
{{- $config := deepCopy .Values.config }}
{{- $dir := include "roomcast.secretsDir" . }}
{{- $keys := default list $config.api.keys }}
{{- range include "roomcast.apiKeyFiles" . | fromJsonArray }}
{{- $keys = append $keys (printf "file:%s/%s" $dir .) }}
{{- end }}
{{- if $keys }}
{{- $_ := set $config.api "keys" $keys }}
{{- end }}
{{- if or .Values.broker.url .Values.broker.existingSecret }}
{{- $_ := set $config.adapter "url" (printf "file:%s/broker-url" $dir) }}
{{- end }}
{{- range $listener := list "public" "api" }}
{{- with include "roomcast.tlsConfig" (dict "root" $ "listener" $listener) | fromJson }}
{{- $_ := set (get $config $listener) "tls" . }}
{{- end }}
{{- end }}
{{- if include "roomcast.hasPeers" . }}
{{- $_ := set $config "peer" (set (default dict $config.peer) "listen" (include "roomcast.peerListen" .)) }}
{{- end }}
{{- $_ := set $config "drain" (include "roomcast.drain" . | fromJson) }}
{{- toPrettyJson $config }}
{{- end }}

{{/*
A sum over what a node reads only when it starts. Left out is what it takes up while it runs, so that a change there
disconnects nobody: gateway/src/config/reload.rs has the list.
*/}}
{{- define "roomcast.checksum" -}}
{{- $config := include "roomcast.config" . | fromJson }}
{{- $config = omit $config "namespace" "auth" "limits" "admission" "drain" "rebalance" "backend" "reload" }}
{{- $_ := set $config "api" (omit $config.api "keys" "key" "jwt") }}
{{- if $config.log }}
{{- $_ := set $config "log" (omit $config.log "level") }}
{{- end }}
{{- list $config .Values.broker | toJson | sha256sum }}
{{- end }}

{{/*
The volume with all secrets, or nothing. Secrets are mounted whole, so that a further key in one does not change the pods;
only the broker's URL gets a name of its own, and comes last, so that no other file can be in its place.
*/}}
{{- define "roomcast.secretsVolume" -}}
{{- $whole := include "roomcast.furtherSecrets" . | fromJsonArray }}
{{- with .Values.apiKeys.existingSecret }}
{{- $whole = append $whole . }}
{{- end }}
{{- if include "roomcast.ownsSecret" . }}
{{- $whole = append $whole (include "roomcast.fullname" .) }}
{{- end }}
{{- if or $whole .Values.broker.existingSecret }}
- name: secrets
  projected:
    # Readable by fsGroup.
    defaultMode: 0440
    sources:
      {{- range uniq $whole }}
      - secret: {name: {{ . }}}
      {{- end }}
      {{- with .Values.broker.existingSecret }}
      - secret:
          name: {{ . }}
          items: [{key: {{ $.Values.broker.existingSecretKey | quote }}, path: broker-url}]
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
