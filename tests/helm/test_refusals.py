"""What cannot work is refused before anything is installed, in words that say what to do."""

import unittest

from support import CHART, REDIS, helm, merged, refusal, render

GATEWAY = {"enabled": True, "parentRefs": [{"name": "g"}]}

# Values over nothing, and what Helm has to say of them.
BY_TEMPLATE = [
    ({"replicaCount": 2}, 'replicaCount is 2, but config.adapter.kind is "memory"'),
    ({"autoscaling": {"enabled": True}}, 'autoscaling.maxReplicas is 10, but config.adapter.kind is "memory"'),
    ({"apiKeys": {"generate": False}}, "the API would be open to whoever reaches the pods"),
    (
        {"terminationGracePeriodSeconds": 29},
        "terminationGracePeriodSeconds is 29, shorter than drain.preStopSeconds + drain.periodSeconds = 30",
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
    ({"drain": {"periodSeconds": 0}}, "drain.periodSeconds: Must be greater than or equal to 1"),
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
