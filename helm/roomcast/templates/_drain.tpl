{{/*
How a pod ends. `config.drain` says it, in one place; the grace period, the pace of a rollout and the patience of balancers
follow from it. Roomcast itself goes on taking clients for `delay` while it is not ready, so there is no preStop hook.
*/}}

{{/*
What is in force of config.drain: what is given there, over the chart's own. On the memory adapter the next pod starts when
this one has ended, so clients that are sent away have nowhere to go until then, and nothing is gained by taking long.
*/}}
{{- define "roomcast.drain" -}}
{{- $drain := dict "delay" "5s" "period" "60s" "grace" "10s" }}
{{- if eq (include "roomcast.kind" .) "memory" }}
{{- $drain = dict "delay" "0s" "period" "5s" "grace" "10s" }}
{{- end }}
{{- range $key, $value := .Values.config.drain }}
{{- $_ := set $drain $key $value }}
{{- end }}
{{- toJson $drain }}
{{- end }}

{{/*
The seconds of a duration, rounded up: "90s", "1m 30s", "300ms", or a number of milliseconds. The schema lets no other units
through.
*/}}
{{- define "roomcast.seconds" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 }}
{{- $milliseconds := 0 }}
{{- if kindIs "string" . }}
{{- range regexFindAll "[0-9]+\\s*[a-z]*" . -1 }}
{{- $factor := get $units (default "ms" (regexFind "[a-z]+" .)) }}
{{- $milliseconds = add $milliseconds (mul (regexFind "[0-9]+" . | int64) $factor) }}
{{- end }}
{{- else }}
{{- $milliseconds = int64 . }}
{{- end }}
{{- div (add $milliseconds 999) 1000 }}
{{- end }}

{{/* For how long clients are sent away: until then a pod that ends has some. */}}
{{- define "roomcast.leavingSeconds" -}}
{{- $drain := include "roomcast.drain" . | fromJson }}
{{- add (include "roomcast.seconds" $drain.delay) (include "roomcast.seconds" $drain.period) }}
{{- end }}

{{/* The longest drain: acks that are late and what backends are still told may take `grace` each. */}}
{{- define "roomcast.drainSeconds" -}}
{{- $drain := include "roomcast.drain" . | fromJson }}
{{- add (include "roomcast.leavingSeconds" .) (mul 2 (include "roomcast.seconds" $drain.grace)) }}
{{- end }}

{{/* When a pod is killed. The margin is for goodbyes to the other nodes and to collectors, and for a busy machine. */}}
{{- define "roomcast.gracePeriod" -}}
{{- default (add (include "roomcast.drainSeconds" .) 10) .Values.terminationGracePeriodSeconds }}
{{- end }}

{{/* How long a new pod has to be ready before the next one goes: meanwhile the last one sends its clients away. */}}
{{- define "roomcast.minReadySeconds" -}}
{{- default (include "roomcast.leavingSeconds" .) .Values.minReadySeconds }}
{{- end }}
