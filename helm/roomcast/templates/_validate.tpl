{{/*
What a schema cannot say: values that are fine by themselves and cannot work together. All problems are told at once.
*/}}

{{- define "roomcast.validate" -}}
{{- $problems := list }}
{{- $values := .Values }}
{{- $config := .Values.config }}
{{- $kind := include "roomcast.kind" . }}
{{- $max := int (include "roomcast.maxReplicas" .) }}

{{- /* Nodes and the broker. */}}
{{- if and (eq $kind "memory") (gt $max 1) }}
{{- $which := ternary "autoscaling.maxReplicas" "replicaCount" $values.autoscaling.enabled }}
{{- $problems = append $problems (printf "%s is %d, but config.adapter.kind is \"memory\": each node would be alone with its clients, and an emit would reach only those of one node. Use redis or nats, or one replica." $which $max) }}
{{- end }}
{{- if and $values.broker.url $values.broker.existingSecret }}
{{- $problems = append $problems "broker.url and broker.existingSecret are both set: give one of them." }}
{{- end }}
{{- $hasBroker := or $values.broker.url $values.broker.existingSecret }}
{{- if and $hasBroker $config.adapter.url }}
{{- $problems = append $problems "config.adapter.url and broker are both set: give one of them." }}
{{- end }}
{{- if and (eq $kind "memory") $hasBroker }}
{{- $problems = append $problems "there is a broker, but config.adapter.kind is \"memory\": set it to redis or nats." }}
{{- end }}
{{- $environment := include "roomcast.extraEnvNames" . | fromJsonArray }}
{{- if and (ne $kind "memory") (not $hasBroker) (not $config.adapter.url) (not (has "ROOMCAST__ADAPTER__URL" $environment)) (not $values.extraEnvFrom) }}
{{- $problems = append $problems (printf "config.adapter.kind is %q and there is no broker: set broker.existingSecret or broker.url." $kind) }}
{{- end }}
{{- $schemes := dict "redis" "^rediss?(-cluster|-sentinel)?://" "nats" "^(nats|tls)://" }}
{{- if and $values.broker.url (hasKey $schemes $kind) }}
{{- if not (regexMatch (get $schemes $kind) $values.broker.url) }}
{{- $problems = append $problems (printf "broker.url is no URL for config.adapter.kind %q." $kind) }}
{{- end }}
{{- end }}

{{- /* Secrets in the open. */}}
{{- if contains "@" (default "" $config.adapter.url) }}
{{- $problems = append $problems "config.adapter.url has a password, and would stand in a ConfigMap: use broker.existingSecret or broker.url." }}
{{- end }}

{{- range $name, $backend := $config.backend }}
{{- if contains "@" (default "" $backend.webhook) }}
{{- $problems = append $problems (printf "config.backend.%s.webhook has a password, and would stand in a ConfigMap: use \"env:NAME\" or \"file:PATH\" with secrets." $name) }}
{{- end }}
{{- end }}

{{- range $name := list "redis" "nats" }}
{{- if contains "@" (dig "ingest" $name "url" "" $config) }}
{{- $problems = append $problems (printf "config.ingest.%s.url has a password, and would stand in a ConfigMap: use \"env:NAME\" or \"file:PATH\" with secrets." $name) }}
{{- end }}
{{- end }}

{{- if contains "@" (dig "trace" "endpoint" "" $config) }}
{{- $problems = append $problems "config.trace.endpoint has a password, and would stand in a ConfigMap: use config.trace.headers with secrets." }}
{{- end }}

{{- /* Listeners. */}}
{{- $listeners := dict "public" $config.public.listen "api" $config.api.listen }}
{{- if include "roomcast.hasPeers" . }}
{{- $_ := set $listeners "peer" (include "roomcast.peerListen" .) }}
{{- end }}
{{- $ports := dict }}
{{- range $name, $listen := $listeners }}
{{- if regexMatch "^(127\\.|\\[::1\\])" $listen }}
{{- $problems = append $problems (printf "config.%s.listen is %s: nothing outside the pod can reach loopback, not even the probes. Use 0.0.0.0 or [::]." $name $listen) }}
{{- end }}
{{- $port := include "roomcast.port" $listen }}
{{- with get $ports $port }}
{{- $problems = append $problems (printf "config.%s.listen and config.%s.listen have the same port." . $name) }}
{{- end }}
{{- $_ := set $ports $port $name }}
{{- end }}
{{- $apiTls := include "roomcast.tlsConfig" (dict "root" . "listener" "api") | fromJson }}
{{- if and (not (include "roomcast.apiKeyFiles" . | fromJsonArray)) (not $config.api.keys) (not $config.api.key) (not $config.api.jwt) (not $apiTls.client_ca_file) }}
{{- $problems = append $problems "the API would be open to whoever reaches the pods: set apiKeys.existingSecret, apiKeys.values, apiKeys.generate, config.api.key, config.api.jwt or tls.api.clientCa." }}
{{- end }}
{{- if and $values.apiKeys.existingSecret (not $values.apiKeys.existingSecretKeys) }}
{{- $problems = append $problems "apiKeys.existingSecret is set and apiKeys.existingSecretKeys is empty: name the keys in it." }}
{{- end }}

{{- /* TLS in the pods. */}}
{{- range $name := list "public" "api" }}
{{- $tls := get $values.tls $name }}
{{- $own := dig $name "tls" dict $config }}
{{- if and $tls.secretName (or $own.cert_file $own.key_file) }}
{{- $problems = append $problems (printf "tls.%s.secretName and config.%s.tls.cert_file are both set: give one of them." $name $name) }}
{{- end }}
{{- if and $tls.clientCa.secretName $own.client_ca_file }}
{{- $problems = append $problems (printf "tls.%s.clientCa and config.%s.tls.client_ca_file are both set: give one of them." $name $name) }}
{{- end }}
{{- if and $tls.clientCa.secretName (not $tls.secretName) }}
{{- $problems = append $problems (printf "tls.%s.clientCa is set, and without tls.%s.secretName nobody shows a certificate." $name $name) }}
{{- end }}
{{- end }}
{{- if and $apiTls.client_ca_file (eq $apiTls.client_certificates "required") }}
{{- $problems = append $problems "config.api.tls.client_certificates is required: kubelets have no certificate to show, so the probes would fail. With optional, calls still need a certificate or a key." }}
{{- end }}

{{- /* The end of a pod. */}}
{{- $drain := include "roomcast.drainSeconds" . | int }}
{{- if lt (include "roomcast.gracePeriod" . | int) $drain }}
{{- $problems = append $problems (printf "terminationGracePeriodSeconds is %s, shorter than config.drain.delay + period + twice grace = %d: pods would be killed while they drain. 0 means long enough." (include "roomcast.gracePeriod" .) $drain) }}
{{- end }}
{{- range $environment }}
{{- if hasPrefix "ROOMCAST__DRAIN__" . }}
{{- $problems = append $problems (printf "extraEnv has %s, which terminationGracePeriodSeconds would not follow: set config.drain." .) }}
{{- end }}
{{- end }}

{{- /* Scaling. */}}
{{- with $values.autoscaling }}
{{- if .enabled }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
{{- $problems = append $problems (printf "autoscaling.minReplicas is %d, more than autoscaling.maxReplicas, %d." (int .minReplicas) (int .maxReplicas)) }}
{{- end }}
{{- if and (not .targetCPUPercent) (not .targetConnectionsPerPod) }}
{{- $problems = append $problems "autoscaling has nothing to go by: set autoscaling.targetCPUPercent or autoscaling.targetConnectionsPerPod." }}
{{- end }}
{{- if and (eq .provider "keda") .targetConnectionsPerPod (not .keda.prometheusAddress) }}
{{- $problems = append $problems "autoscaling.provider is keda and goes by connections: set autoscaling.keda.prometheusAddress." }}
{{- end }}
{{- if and .targetCPUPercent (not (dig "requests" "cpu" "" $values.resources)) }}
{{- $problems = append $problems "autoscaling.targetCPUPercent is a share of resources.requests.cpu, which is not set." }}
{{- end }}
{{- $limit := int (default 100000 $config.public.max_connections) }}
{{- if ge (int .targetConnectionsPerPod) $limit }}
{{- $problems = append $problems (printf "autoscaling.targetConnectionsPerPod is %d, but a node takes %d (config.public.max_connections): it would refuse clients before another is started." (int .targetConnectionsPerPod) $limit) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $values.podDisruptionBudget.enabled (eq (toString $values.podDisruptionBudget.maxUnavailable) "0") }}
{{- $problems = append $problems "podDisruptionBudget.maxUnavailable is 0: no machine could ever be drained." }}
{{- end }}

{{- /* Ways in. */}}
{{- if and $values.httpRoute.enabled (not $values.httpRoute.parentRefs) }}
{{- $problems = append $problems "httpRoute is enabled and belongs to no Gateway: set httpRoute.parentRefs." }}
{{- end }}
{{- if and $values.httpRoute.enabled $values.httpRoute.backendTls.enabled (eq (include "roomcast.publicScheme" .) "https") (not $values.httpRoute.backendTls.hostname) (not $values.httpRoute.hostnames) }}
{{- $problems = append $problems "the pods speak TLS, and the Gateway has to know the name in their certificate: set httpRoute.backendTls.hostname or httpRoute.hostnames." }}
{{- end }}
{{- if and $values.ingress.enabled (include "roomcast.wantsProxyProtocol" .) (has $values.ingress.flavor (list "nginx" "traefik" "alb")) }}
{{- $problems = append $problems (printf "config.public.proxy_protocol is required, and what ingress.flavor %q stands for does not send it: every connection would be closed. It adds X-Forwarded-For: set config.public.trusted_proxies." $values.ingress.flavor) }}
{{- end }}
{{- with $values.ingress.cookie }}
{{- if and $values.ingress.enabled .enabled (eq .sameSite "None") (not .secure) }}
{{- $problems = append $problems "ingress.cookie.sameSite is None, which browsers take only with ingress.cookie.secure." }}
{{- end }}
{{- end }}

{{- /* Monitoring. */}}
{{- if and $values.metrics.serviceMonitor.enabled $values.metrics.podMonitor.enabled }}
{{- $problems = append $problems "metrics.serviceMonitor and metrics.podMonitor are both enabled: every figure would be there twice." }}
{{- end }}

{{- if $problems }}
{{- printf "\n\nThese values cannot work:\n  - %s\n" (join "\n  - " $problems) | fail }}
{{- end }}
{{- end }}
