{{/*
What each kind of ingress controller is told: that the polling requests of one client go to one pod, which saves a detour;
how long to wait; and how to speak with the pods. Traefik reads it from the Service, the others from the Ingress. What
stickiness is worth is in docs/operations/load-balancing.md.
*/}}

{{- define "roomcast.serviceAnnotations" -}}
{{- if and .Values.ingress.enabled (eq .Values.ingress.flavor "traefik") }}
{{- with .Values.ingress.cookie }}
{{- if .enabled }}
traefik.ingress.kubernetes.io/service.sticky.cookie: "true"
traefik.ingress.kubernetes.io/service.sticky.cookie.name: {{ .name | quote }}
traefik.ingress.kubernetes.io/service.sticky.cookie.httponly: "true"
traefik.ingress.kubernetes.io/service.sticky.cookie.secure: {{ .secure | quote }}
traefik.ingress.kubernetes.io/service.sticky.cookie.samesite: {{ lower .sameSite | quote }}
{{- end }}
{{- end }}
{{- if eq (include "roomcast.publicScheme" .) "https" }}
traefik.ingress.kubernetes.io/service.serversscheme: https
{{- end }}
{{- end }}
{{- end }}

{{- define "roomcast.ingressAnnotations" -}}
{{- $flavor := .Values.ingress.flavor }}
{{- if eq $flavor "nginx" }}
{{- include "roomcast.ingressNginx" . }}
{{- else if eq $flavor "haproxy" }}
{{- include "roomcast.ingressHaproxy" . }}
{{- else if eq $flavor "haproxy-ingress" }}
{{- include "roomcast.ingressHaproxyIngress" . }}
{{- else if eq $flavor "alb" }}
{{- include "roomcast.ingressAlb" . }}
{{- end }}
{{- end }}

{{- define "roomcast.ingressNginx" -}}
{{- $idle := int .Values.ingress.idleTimeoutSeconds }}
{{- with .Values.ingress.cookie }}
{{- if .enabled }}
nginx.ingress.kubernetes.io/affinity: cookie
# A client stays where its session is, also when pods are added.
nginx.ingress.kubernetes.io/affinity-mode: persistent
nginx.ingress.kubernetes.io/session-cookie-name: {{ .name | quote }}
nginx.ingress.kubernetes.io/session-cookie-path: /
nginx.ingress.kubernetes.io/session-cookie-secure: {{ .secure | quote }}
nginx.ingress.kubernetes.io/session-cookie-samesite: {{ .sameSite | quote }}
nginx.ingress.kubernetes.io/session-cookie-change-on-failure: "true"
{{- end }}
{{- end }}
nginx.ingress.kubernetes.io/proxy-read-timeout: {{ $idle | quote }}
nginx.ingress.kubernetes.io/proxy-send-timeout: {{ $idle | quote }}
nginx.ingress.kubernetes.io/proxy-buffering: "off"
# Roomcast has its own bound, engine.max_payload.
nginx.ingress.kubernetes.io/proxy-body-size: "0"
nginx.ingress.kubernetes.io/backend-protocol: {{ include "roomcast.publicScheme" . | upper }}
{{- end }}

{{- define "roomcast.ingressHaproxy" -}}
{{- $idle := printf "%ds" (int .Values.ingress.idleTimeoutSeconds) }}
haproxy.org/load-balance: leastconn
{{- if .Values.ingress.cookie.enabled }}
haproxy.org/cookie-persistence: {{ .Values.ingress.cookie.name | quote }}
{{- end }}
haproxy.org/timeout-server: {{ $idle | quote }}
haproxy.org/timeout-tunnel: {{ $idle | quote }}
{{- if eq (include "roomcast.publicScheme" .) "https" }}
haproxy.org/server-ssl: "true"
{{- end }}
{{- if include "roomcast.wantsProxyProtocol" . }}
haproxy.org/send-proxy-protocol: proxy-v2
{{- end }}
{{- end }}

{{- define "roomcast.ingressHaproxyIngress" -}}
{{- $idle := printf "%ds" (int .Values.ingress.idleTimeoutSeconds) }}
haproxy-ingress.github.io/balance-algorithm: leastconn
{{- with .Values.ingress.cookie }}
{{- if .enabled }}
haproxy-ingress.github.io/affinity: cookie
haproxy-ingress.github.io/session-cookie-name: {{ .name | quote }}
haproxy-ingress.github.io/session-cookie-strategy: insert
haproxy-ingress.github.io/session-cookie-keywords: {{ printf "indirect nocache httponly%s attr SameSite=%s" (ternary " secure" "" .secure) .sameSite | quote }}
{{- end }}
{{- end }}
haproxy-ingress.github.io/timeout-server: {{ $idle | quote }}
haproxy-ingress.github.io/timeout-tunnel: {{ $idle | quote }}
haproxy-ingress.github.io/backend-protocol: {{ ternary "h1-ssl" "h1" (eq (include "roomcast.publicScheme" .) "https") }}
{{- if include "roomcast.wantsProxyProtocol" . }}
haproxy-ingress.github.io/proxy-protocol: v2
{{- end }}
{{- end }}

{{- define "roomcast.ingressAlb" -}}
{{- $idle := min (int .Values.ingress.idleTimeoutSeconds) 4000 }}
{{- $attributes := list "load_balancing.algorithm.type=least_outstanding_requests" }}
{{- if .Values.ingress.cookie.enabled }}
{{- $attributes = concat (list "stickiness.enabled=true" "stickiness.type=lb_cookie" "stickiness.lb_cookie.duration_seconds=86400") $attributes }}
{{- end }}
{{- /* Connections of a pod that leaves are Roomcast's to close: by then it has. */}}
{{- $attributes = append $attributes (printf "deregistration_delay.timeout_seconds=%d" (min 3600 (include "roomcast.drainSeconds" . | int))) }}
alb.ingress.kubernetes.io/scheme: internet-facing
# Straight to the pods: through node ports the cookie would name a machine.
alb.ingress.kubernetes.io/target-type: ip
alb.ingress.kubernetes.io/target-group-attributes: {{ join "," $attributes | quote }}
alb.ingress.kubernetes.io/load-balancer-attributes: {{ printf "idle_timeout.timeout_seconds=%d" $idle | quote }}
alb.ingress.kubernetes.io/backend-protocol: {{ include "roomcast.publicScheme" . | upper }}
alb.ingress.kubernetes.io/healthcheck-protocol: {{ include "roomcast.apiScheme" . | upper }}
alb.ingress.kubernetes.io/healthcheck-path: /readyz
alb.ingress.kubernetes.io/healthcheck-port: {{ include "roomcast.apiPort" . | quote }}
alb.ingress.kubernetes.io/healthcheck-interval-seconds: "10"
alb.ingress.kubernetes.io/success-codes: "200"
{{- end }}

{{/* Whether each connection to the pods has to begin with a header of the PROXY protocol. */}}
{{- define "roomcast.wantsProxyProtocol" -}}
{{- if eq (dig "proxy_protocol" "off" .Values.config.public) "required" }}true{{ end }}
{{- end }}

{{/* The ways in that let the polling requests of one client go to several pods, as a list in JSON. */}}
{{- define "roomcast.waysWithoutStickiness" -}}
{{- $ways := list }}
{{- with .Values.ingress }}
{{- if and .enabled (or (eq .flavor "none") (not .cookie.enabled)) }}
{{- $ways = append $ways (ternary "ingress.flavor is none" "ingress.cookie.enabled is false" (eq .flavor "none")) }}
{{- end }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.sessionPersistence.enabled) }}
{{- $ways = append $ways "httpRoute.sessionPersistence is off" }}
{{- end }}
{{- with .Values.service.public }}
{{- if and (ne .type "ClusterIP") (eq .sessionAffinity "None") }}
{{- $ways = append $ways "service.public.sessionAffinity is None" }}
{{- end }}
{{- end }}
{{- toJson $ways }}
{{- end }}

{{/* Whether something brings a client that reconnects back to the pod that it comes from. */}}
{{- define "roomcast.isSticky" -}}
{{- $ingress := and .Values.ingress.enabled .Values.ingress.cookie.enabled (ne .Values.ingress.flavor "none") }}
{{- $route := and .Values.httpRoute.enabled .Values.httpRoute.sessionPersistence.enabled }}
{{- if or $ingress $route (eq .Values.service.public.sessionAffinity "ClientIP") }}true{{ end }}
{{- end }}
