"""How many nodes: HPA, KEDA, and the disruption budget."""

import unittest

from support import NAME, NAMESPACE, REDIS, RELEASE, config, every, find, merged, render


def scaled(**autoscaling):
    return render(merged(REDIS, {"autoscaling": {"enabled": True, **autoscaling}}))


class Replicas(unittest.TestCase):
    def test_a_number(self):
        objects = render(REDIS)
        self.assertEqual(find(objects, "Deployment")["spec"]["replicas"], 3)
        self.assertEqual(every(objects, "HorizontalPodAutoscaler") + every(objects, "ScaledObject"), [])

    def test_none_while_something_else_decides(self):
        # Each upgrade would set the number back, and disconnect the clients of the pods that go.
        for provider in ("hpa", "keda"):
            self.assertNotIn("replicas", find(scaled(provider=provider), "Deployment")["spec"])


class Hpa(unittest.TestCase):
    def spec(self, **autoscaling):
        return find(scaled(**autoscaling), "HorizontalPodAutoscaler")["spec"]

    def test_on_cpu(self):
        spec = self.spec(minReplicas=3, maxReplicas=9, targetCPUPercent=60)
        self.assertEqual((spec["minReplicas"], spec["maxReplicas"]), (3, 9))
        self.assertEqual(spec["scaleTargetRef"], {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME})
        cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}
        self.assertEqual(spec["metrics"], [{"type": "Resource", "resource": cpu}])

    def test_on_connections_of_a_pod(self):
        pods = {
            "metric": {"name": "roomcast_connections"},
            "target": {"type": "AverageValue", "averageValue": "20000"},
        }
        spec = self.spec(targetConnectionsPerPod=20000, targetCPUPercent=0)
        self.assertEqual(spec["metrics"], [{"type": "Pods", "pods": pods}])
        both = self.spec(targetConnectionsPerPod=20000)["metrics"]
        self.assertEqual([metric["type"] for metric in both], ["Pods", "Resource"])

    def test_pods_come_quickly_and_go_slowly(self):
        behavior = self.spec()["behavior"]
        self.assertEqual(behavior["scaleUp"]["stabilizationWindowSeconds"], 0)
        self.assertGreaterEqual(behavior["scaleDown"]["stabilizationWindowSeconds"], 300)
        self.assertEqual(behavior["scaleDown"]["policies"], [{"type": "Pods", "value": 1, "periodSeconds": 120}])


class Keda(unittest.TestCase):
    def spec(self, **autoscaling):
        keda = {"prometheusAddress": "http://prometheus:9090", "authenticationRef": "prometheus"}
        objects = scaled(provider="keda", keda=keda, **autoscaling)
        # Both would fight.
        self.assertEqual(every(objects, "HorizontalPodAutoscaler"), [])
        return find(objects, "ScaledObject")["spec"]

    def test_on_connections_and_cpu(self):
        spec = self.spec(targetConnectionsPerPod=5000, minReplicas=3, maxReplicas=9)
        self.assertEqual((spec["scaleTargetRef"], spec["minReplicaCount"], spec["maxReplicaCount"]), ({"name": NAME}, 3, 9))
        connections, cpu = spec["triggers"]
        metadata = connections["metadata"]
        self.assertEqual((metadata["serverAddress"], metadata["threshold"]), ("http://prometheus:9090", "5000"))
        series = f'namespace="{NAMESPACE}",job="{RELEASE}"'
        self.assertEqual(metadata["query"], f"sum(roomcast_connections{{{series}}})")
        self.assertEqual(connections["authenticationRef"], {"name": "prometheus"})
        self.assertEqual((cpu["type"], cpu["metricType"], cpu["metadata"]), ("cpu", "Utilization", {"value": "70"}))

    def test_on_cpu_alone(self):
        self.assertEqual([trigger["type"] for trigger in self.spec()["triggers"]], ["cpu"])

    def test_pods_go_slowly_here_too(self):
        behavior = self.spec()["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        self.assertGreaterEqual(behavior["scaleDown"]["stabilizationWindowSeconds"], 300)


class DisruptionBudget(unittest.TestCase):
    def test_one_at_a_time(self):
        objects = render(REDIS)
        spec = find(objects, "PodDisruptionBudget")["spec"]
        self.assertEqual(spec["maxUnavailable"], 1)
        # Otherwise a broker's outage would keep machines from being drained.
        self.assertEqual(spec["unhealthyPodEvictionPolicy"], "AlwaysAllow")
        selector = find(objects, "Deployment")["spec"]["selector"]
        self.assertEqual(spec["selector"], selector)

    def test_a_share(self):
        values = merged(REDIS, {"podDisruptionBudget": {"maxUnavailable": "10%"}})
        self.assertEqual(find(render(values), "PodDisruptionBudget")["spec"]["maxUnavailable"], "10%")

    def test_none_for_a_single_node(self):
        self.assertEqual(every(render(), "PodDisruptionBudget"), [])
        self.assertEqual(every(scaled(minReplicas=1), "PodDisruptionBudget"), [])
        self.assertEqual(len(every(scaled(minReplicas=2), "PodDisruptionBudget")), 1)
        off = merged(REDIS, {"podDisruptionBudget": {"enabled": False}})
        self.assertEqual(every(render(off), "PodDisruptionBudget"), [])


class Large(unittest.TestCase):
    """The values for fifty nodes hang together."""

    def test_fifty_nodes(self):
        objects = render(file="values-large.yaml")
        spec = find(objects, "HorizontalPodAutoscaler")["spec"]
        self.assertGreaterEqual(spec["minReplicas"], 50)
        deployment = find(objects, "Deployment")["spec"]
        rolling = deployment["strategy"]["rollingUpdate"]
        self.assertEqual(rolling["maxUnavailable"], 0)
        # A few per cent of the clients at a time, with time in between.
        self.assertLessEqual(rolling["maxSurge"] / spec["minReplicas"], 0.05)
        # And at no more than a few hundred a second.
        self.assertGreaterEqual(deployment["minReadySeconds"], 120)
        period = int(config(file="values-large.yaml")["drain"]["period"].removesuffix("m")) * 60
        clients = int(spec["metrics"][0]["pods"]["target"]["averageValue"])
        self.assertLessEqual(rolling["maxSurge"] * clients / period, 500)
        kinds = {item["kind"] for item in objects}
        expected = {"NetworkPolicy", "PodDisruptionBudget", "PodMonitor", "PrometheusRule"}
        self.assertLessEqual(expected, kinds)


if __name__ == "__main__":
    unittest.main()
