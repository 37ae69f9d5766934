"""What cannot work is refused before anything is installed, in words that say what to do."""

import unittest

from support import CHART, REDIS, TLS, helm, merged, refusal, render

GATEWAY = {"enabled": True, "parentRefs": [{"name": "g"}]}

# Values over nothing, and what Helm has to say of them.
BY_TEMPLATE = [
    ({"replicaCount": 2}, 'replicaCount is 2, but config.adapter.kind is "memory"'),
    ({"autoscaling": {"enabled": True}}, 'autoscaling.maxReplicas is 10, but config.adapter.kind is "memory"'),
    ({"apiKeys": {"generate": False}}, "the API would be open to whoever reaches the pods"),
    (
        {"terminationGracePeriodSeconds": 24},
        "terminationGracePeriodSeconds is 24, shorter than config.drain.delay + period + twice grace = 25",
    ),
    (
        {"extraEnv": [{"name": "ROOMCAST__DRAIN__PERIOD", "value": "5m"}]},
        "extraEnv has ROOMCAST__DRAIN__PERIOD, which terminationGracePeriodSeconds would not follow: set config.drain",
    ),
    ({"config": {"adapter": {"kind": "nats"}}}, 'config.adapter.kind is "nats" and there is no broker'),
    ({"broker": {"url": "redis://h"}}, 'there is a broker, but config.adapter.kind is "memory"'),
    ({"config": {"api": {"listen": "127.0.0.1:3001"}}}, "config.api.listen is 127.0.0.1:3001: nothing outside the pod"),
    ({"config": {"public": {"listen": "[::1]:3000"}}}, "config.public.listen is [::1]:3000"),
    ({"config": {"public": {"listen": "0.0.0.0:3001"}}}, "have the same port"),
    (
        {"config": {"backend": {"orders": {"webhook": "http://u:pw@orders"}}}},
        "config.backend.orders.webhook has a password, and would stand in a ConfigMap",
    ),
    (
        {"config": {"ingest": {"nats": {"url": "nats://u:pw@nats"}}}},
        "config.ingest.nats.url has a password, and would stand in a ConfigMap",
    ),
    (
        {"config": {"trace": {"endpoint": "http://u:pw@collector"}}},
        "config.trace.endpoint has a password, and would stand in a ConfigMap",
    ),
    (
        {"tls": {"public": {"secretName": "a"}}, "config": {"public": {"tls": {"cert_file": "b", "key_file": "c"}}}},
        "tls.public.secretName and config.public.tls.cert_file are both set",
    ),
    (
        {"tls": {"api": {"clientCa": {"secretName": "ca"}}}},
        "tls.api.clientCa is set, and without tls.api.secretName nobody shows a certificate",
    ),
    (
        {"tls": {"api": TLS["api"]}, "config": {"api": {"tls": {"client_ca_file": "b"}}}},
        "tls.api.clientCa and config.api.tls.client_ca_file are both set",
    ),
    (
        {"tls": {"api": TLS["api"]}, "config": {"api": {"tls": {"client_certificates": "required"}}}},
        "config.api.tls.client_certificates is required: kubelets have no certificate to show",
    ),
    (
        {"tls": {"public": TLS["public"]}, "httpRoute": GATEWAY},
        "the Gateway has to know the name in their certificate: set httpRoute.backendTls.hostname",
    ),
    *(
        (
            {"ingress": {"enabled": True, "flavor": flavor}, "config": {"public": {"proxy_protocol": "required"}}},
            f'config.public.proxy_protocol is required, and what ingress.flavor "{flavor}" stands for does not send it',
        )
        for flavor in ("nginx", "traefik", "alb")
    ),
    ({"httpRoute": {"enabled": True}}, "set httpRoute.parentRefs"),
    (
        {"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}},
        "every figure would be there twice",
    ),
    (
        {"ingress": {"enabled": True, "cookie": {"sameSite": "None", "secure": False}}},
        "only with ingress.cookie.secure",
    ),
    ({"podDisruptionBudget": {"maxUnavailable": 0}}, "no machine could ever be drained"),
]

# The same over a cluster with Redis.
BY_TEMPLATE_ON_REDIS = [
    ({"broker": {"url": "redis://h"}}, "broker.url and broker.existingSecret are both set"),
    ({"config": {"adapter": {"url": "redis://h"}}}, "config.adapter.url and broker are both set"),
    (
        {"broker": {"existingSecret": ""}, "config": {"adapter": {"url": "redis://:pw@h"}}},
        "config.adapter.url has a password, and would stand in a ConfigMap",
    ),
    ({"broker": {"existingSecret": "", "url": "nats://h"}}, 'broker.url is no URL for config.adapter.kind "redis"'),
    (
        {"terminationGracePeriodSeconds": 84},
        "terminationGracePeriodSeconds is 84, shorter than config.drain.delay + period + twice grace = 85",
    ),
    ({"config": {"peer": {"listen": "127.0.0.1:3002"}}}, "config.peer.listen is 127.0.0.1:3002: nothing outside the pod"),
    ({"config": {"public": {"listen": "0.0.0.0:3002"}}}, "config.peer.listen and config.public.listen have the same port"),
    ({"apiKeys": {"existingSecretKeys": []}}, "apiKeys.existingSecretKeys is empty"),
    ({"autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}}, "more than autoscaling.maxReplicas, 3"),
    ({"autoscaling": {"enabled": True, "targetCPUPercent": 0}}, "autoscaling has nothing to go by"),
    ({"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}}, "a share of resources.requests.cpu"),
    (
        {"autoscaling": {"enabled": True, "provider": "keda", "targetConnectionsPerPod": 5}},
        "set autoscaling.keda.prometheusAddress",
    ),
    (
        {"autoscaling": {"enabled": True, "targetConnectionsPerPod": 500}, "config": {"public": {"max_connections": 500}}},
        "a node takes 500 (config.public.max_connections)",
    ),
]

BY_SCHEMA = [
    ({"replicas": 3}, "Additional property replicas is not allowed"),
    ({"config": {"pubic": {}}}, "Additional property pubic is not allowed"),
    ({"config": {"engine": {"ping_intervall": "5s"}}}, "Additional property ping_intervall is not allowed"),
    (
        {"config": {"adapter": {"kind": "kafka"}}},
        'config.adapter.kind must be one of the following: "memory", "redis", "nats"',
    ),
    ({"config": {"engine": {"ping_interval": "often"}}}, "config.engine.ping_interval: Does not match pattern"),
    ({"config": {"public": {"max_connections": "many"}}}, "config.public.max_connections: Invalid type"),
    ({"config": {"public": {"listen": ":3000"}}}, "config.public.listen: Does not match pattern"),
    ({"replicaCount": "three"}, "replicaCount: Invalid type. Expected: integer, given: string"),
    ({"replicaCount": -1}, "replicaCount: Must be greater than or equal to 0"),
    ({"apiKeys": {"values": ["short"]}}, "apiKeys.values.0: String length must be greater than or equal to 16"),
    # They would stand in a ConfigMap.
    (
        {"config": {"auth": {"jwt": {"secret": "a-secret-in-the-open"}}}},
        "config.auth.jwt.secret: Does not match pattern '^(env|file):.+'",
    ),
    (
        {"config": {"api": {"key": [{"name": "orders", "secret": "a-key-in-the-open"}]}}},
        "config.api.key.0.secret: Does not match pattern '^(env|file):.+'",
    ),
    (
        {"config": {"backend": {"orders": {"secrets": ["whsec_in-the-open"]}}}},
        "config.backend.orders.secrets.0: Does not match pattern '^(env|file):.+'",
    ),
    ({"config": {"api": {"keys": ["a-key-in-the-open"]}}}, "config.api.keys.0: Does not match pattern '^(env|file):.+'"),
    (
        {"config": {"adapter": {"nats": {"nkey_seed": "SU-a-seed-in-the-open"}}}},
        "config.adapter.nats.nkey_seed: Does not match pattern '^(env|file):.+'",
    ),
    ({"ingress": {"flavor": "nginxx"}}, 'ingress.flavor must be one of the following: "none", "nginx"'),
    # The API is for the cluster: there is no type to choose.
    ({"service": {"api": {"type": "LoadBalancer"}}}, "Additional property type is not allowed"),
    ({"drain": {"periodSeconds": 60}}, "Additional property drain is not allowed"),
    # The chart adds durations up, and knows these units.
    ({"config": {"drain": {"period": "2 days"}}}, "config.drain.period: Does not match pattern"),
    ({"config": {"drain": {"grace": "1.5s"}}}, "config.drain.grace: Does not match pattern"),
    ({"config": {"peer": {"listen": "0.0.0.0:0"}}}, "config.peer.listen: Does not match pattern"),
    ({"config": {"admission": {"max_memory": "120%"}}}, "config.admission.max_memory: Does not match pattern"),
    ({"config": {"public": {"trusted_proxies": ["lb.example"]}}}, "config.public.trusted_proxies.0: Does not match pattern"),
    ({"config": {"public": {"proxy_protocol": "on"}}}, 'config.public.proxy_protocol must be one of the following: "off", "required"'),
    (
        {"config": {"trace": {"headers": ["authorization=Bearer in-the-open"]}}},
        "config.trace.headers.0: Does not match pattern '^(env|file):.+'",
    ),
    ({"tls": {"public": {"certFile": "x"}}}, "Additional property certFile is not allowed"),
    ({"secrets": {"values": {"A-B": "x"}}}, "secrets.values: Property name of \"A-B\" does not match"),
    ({"metrics": {"podMonitor": {"interval": "often"}}}, "metrics.podMonitor.interval: Does not match pattern"),
    ({"podAntiAffinity": "maybe"}, "podAntiAffinity must be one of the following"),
    ({"image": {"digest": "latest"}}, "image.digest: Does not match pattern"),
    ({"nodeSelector": {"ssd": True}}, "nodeSelector.ssd: Invalid type. Expected: string, given: boolean"),
]


class Refusals(unittest.TestCase):
    def all_refused(self, base, cases):
        for values, expected in cases:
            with self.subTest(values=values):
                said = refusal(merged(base, values))
                self.assertIn(expected, said)
                # Helm's own words for what broke inside of a template help nobody.
                for stranger in ("nil pointer", "error calling include", "wrong type", "YAML parse error"):
                    self.assertNotIn(stranger, said)

    def test_by_template(self):
        self.all_refused({}, BY_TEMPLATE)
        self.all_refused(REDIS, BY_TEMPLATE_ON_REDIS)

    def test_by_schema(self):
        self.all_refused({}, BY_SCHEMA)

    def test_all_problems_are_told_at_once(self):
        said = refusal({"replicaCount": 2, "apiKeys": {"generate": False}, "terminationGracePeriodSeconds": 1})
        self.assertEqual(said.count("\n  - "), 3, said)

    def test_what_is_unusual_and_works_is_taken(self):
        from_environment = {"extraEnv": [{"name": "ROOMCAST__ADAPTER__URL", "value": "redis://h"}]}
        for values in (
            merged(REDIS, {"broker": {"existingSecret": ""}}, from_environment),
            merged(REDIS, {"broker": {"existingSecret": ""}, "config": {"adapter": {"url": "env:BROKER"}}}),
            {"apiKeys": {"generate": False}, "config": {"api": {"keys": ["env:KEY"]}}},
            {"apiKeys": {"generate": False}, "config": {"api": {"key": [{"name": "orders", "secret": "env:KEY"}]}}},
            {"config": {"backend": {"orders": {"webhook": "http://orders/hooks", "secrets": ["env:ORDERS_SECRET"]}}}},
            {"apiKeys": {"generate": False}, "config": {"api": {"jwt": {"secret": "env:KEY"}}}},
            {"httpRoute": GATEWAY},
            {"apiKeys": {"generate": False}, "tls": {"api": TLS["api"]}},
            {"tls": {"public": TLS["public"]}, "httpRoute": {**GATEWAY, "backendTls": {"enabled": False}}},
            {"config": {"public": {"proxy_protocol": "required"}}, "service": {"public": {"type": "LoadBalancer"}}},
            {"replicaCount": 0},
            {"global": {"anything": 1}},
        ):
            with self.subTest(values=values):
                render(values)

    def test_lint_reads_the_schema_too(self):
        result = helm("lint", "--strict", CHART, "--set", "replicas=3")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("Additional property replicas", result.stdout + result.stderr)


if __name__ == "__main__":
    unittest.main()
