{{/*
What makes the polling requests of one client go to one pod, for each kind of ingress controller. Traefik reads it from
the Service, the others from the Ingress. WebSocket needs none of it: a connection stays where it is.
*/}}

{{- define "roomcast.serviceStickiness" -}}
{{- if and .Values.ingress.enabled (eq .Values.ingress.flavor "traefik") }}
{{- with .Values.ingress.cookie }}
traefik.ingress.kubernetes.io/service.sticky.cookie: "true"
traefik.ingress.kubernetes.io/service.sticky.cookie.name: {{ .name | quote }}
traefik.ingress.kubernetes.io/service.sticky.cookie.httponly: "true"
traefik.ingress.kubernetes.io/service.sticky.cookie.secure: {{ .secure | quote }}
traefik.ingress.kubernetes.io/service.sticky.cookie.samesite: {{ lower .sameSite | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "roomcast.ingressAnnotations" -}}
{{- $idle := int .Values.ingress.idleTimeoutSeconds }}
{{- $cookie := .Values.ingress.cookie }}
{{- $drain := int .Values.drain.periodSeconds }}
{{- $flavor := .Values.ingress.flavor }}
{{- if eq $flavor "nginx" }}
nginx.ingress.kubernetes.io/affinity: cookie
# A client stays where its session is, also when pods are added.
nginx.ingress.kubernetes.io/affinity-mode: persistent
nginx.ingress.kubernetes.io/session-cookie-name: {{ $cookie.name | quote }}
nginx.ingress.kubernetes.io/session-cookie-path: /
nginx.ingress.kubernetes.io/session-cookie-secure: {{ $cookie.secure | quote }}
nginx.ingress.kubernetes.io/session-cookie-samesite: {{ $cookie.sameSite | quote }}
nginx.ingress.kubernetes.io/session-cookie-change-on-failure: "true"
nginx.ingress.kubernetes.io/proxy-read-timeout: {{ $idle | quote }}
nginx.ingress.kubernetes.io/proxy-send-timeout: {{ $idle | quote }}
nginx.ingress.kubernetes.io/proxy-buffering: "off"
# Roomcast has its own bound, engine.max_payload.
nginx.ingress.kubernetes.io/proxy-body-size: "0"
{{- else if eq $flavor "haproxy" }}
haproxy.org/cookie-persistence: {{ $cookie.name | quote }}
haproxy.org/load-balance: leastconn
haproxy.org/timeout-server: {{ printf "%ds" $idle | quote }}
haproxy.org/timeout-tunnel: {{ printf "%ds" $idle | quote }}
{{- else if eq $flavor "haproxy-ingress" }}
haproxy-ingress.github.io/affinity: cookie
haproxy-ingress.github.io/session-cookie-name: {{ $cookie.name | quote }}
haproxy-ingress.github.io/session-cookie-strategy: insert
haproxy-ingress.github.io/session-cookie-keywords: {{ printf "indirect nocache httponly%s attr SameSite=%s" (ternary " secure" "" $cookie.secure) $cookie.sameSite | quote }}
haproxy-ingress.github.io/balance-algorithm: leastconn
haproxy-ingress.github.io/timeout-server: {{ printf "%ds" $idle | quote }}
haproxy-ingress.github.io/timeout-tunnel: {{ printf "%ds" $idle | quote }}
{{- else if eq $flavor "alb" }}
alb.ingress.kubernetes.io/scheme: internet-facing
# Straight to the pods: through node ports the cookie would name a machine.
alb.ingress.kubernetes.io/target-type: ip
alb.ingress.kubernetes.io/target-group-attributes: {{ printf "stickiness.enabled=true,stickiness.type=lb_cookie,stickiness.lb_cookie.duration_seconds=86400,load_balancing.algorithm.type=least_outstanding_requests,deregistration_delay.timeout_seconds=%d" $drain | quote }}
alb.ingress.kubernetes.io/load-balancer-attributes: {{ printf "idle_timeout.timeout_seconds=%d" (min $idle 4000) | quote }}
alb.ingress.kubernetes.io/healthcheck-path: /readyz
alb.ingress.kubernetes.io/healthcheck-port: {{ include "roomcast.apiPort" . | quote }}
alb.ingress.kubernetes.io/healthcheck-interval-seconds: "10"
alb.ingress.kubernetes.io/success-codes: "200"
{{- end }}
{{- end }}
