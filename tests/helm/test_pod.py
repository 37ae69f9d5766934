"""The pod: what it runs, as whom, how it is watched, where it is put, and how it ends."""

import json
import subprocess
import tempfile
import unittest
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from support import (
    HERE_AND_NOW,
    KUBERNETES,
    NAME,
    NAMESPACE,
    REDIS,
    RELEASE,
    TLS,
    config,
    container,
    every,
    find,
    merged,
    pod,
    render,
    roomcast,
    running,
)


def ports(values):
    return {port["name"]: port["containerPort"] for port in container(values)["ports"]}


class Container(unittest.TestCase):
    def test_it_serves_the_mounted_configuration(self):
        only = container(REDIS)
        self.assertEqual(only["args"], ["serve", "--config", "/etc/roomcast/roomcast.json"])
        self.assertNotIn("command", only)
        mount = next(mount for mount in only["volumeMounts"] if mount["name"] == "config")
        # By subPath a changed ConfigMap would never come.
        self.assertEqual(mount, {"name": "config", "mountPath": "/etc/roomcast", "readOnly": True})
        volume = next(volume for volume in pod(REDIS)["volumes"] if volume["name"] == "config")
        self.assertEqual(volume["configMap"]["name"], NAME)

    def test_ports_come_from_the_configuration(self):
        values = {"config": {"public": {"listen": "[::]:8080"}, "api": {"listen": "[::]:8081"}}}
        self.assertEqual(ports(values), {"public": 8080, "api": 8081})

    def test_image(self):
        self.assertEqual(container()["image"], "roomcast:0.1.0")
        image = {"repository": "example/roomcast", "tag": "1.2.3", "pullPolicy": "Always"}
        only = container({"image": image})
        self.assertEqual((only["image"], only["imagePullPolicy"]), ("example/roomcast:1.2.3", "Always"))
        digest = "sha256:" + "a" * 64
        self.assertEqual(container({"image": {**image, "digest": digest}})["image"], f"example/roomcast@{digest}")
        self.assertEqual(pod({"imagePullSecrets": [{"name": "pull"}]})["imagePullSecrets"], [{"name": "pull"}])

    def test_extras(self):
        values = {
            "extraEnv": [{"name": "ROOMCAST__PUBLIC__MAX_CONNECTIONS", "value": "5"}],
            "extraEnvFrom": [{"configMapRef": {"name": "more"}}],
            "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
            "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}],
            "podAnnotations": {"note": "yes"},
            "podLabels": {"tier": "edge"},
        }
        only = container(values)
        self.assertEqual(only["env"], values["extraEnv"])
        self.assertEqual(only["envFrom"], values["extraEnvFrom"])
        self.assertIn(values["extraVolumeMounts"][0], only["volumeMounts"])
        template = find(render(values), "Deployment")["spec"]["template"]
        self.assertIn(values["extraVolumes"][0], template["spec"]["volumes"])
        self.assertEqual(template["metadata"]["annotations"]["note"], "yes")
        self.assertEqual(template["metadata"]["labels"]["tier"], "edge")


class Security(unittest.TestCase):
    """Every pod of the chart would be admitted under the Pod Security Standard "restricted"."""

    def pods(self):
        objects = render(REDIS)
        yield "gateway", find(objects, "Deployment")["spec"]["template"]["spec"]
        yield "test", find(objects, "Pod")["spec"]

    def test_restricted(self):
        for name, spec in self.pods():
            with self.subTest(pod=name):
                context = spec["securityContext"]
                self.assertTrue(context["runAsNonRoot"])
                self.assertGreater(context["runAsUser"], 0)
                self.assertGreater(context["runAsGroup"], 0)
                self.assertEqual(context["seccompProfile"], {"type": "RuntimeDefault"})
                for host in ("hostNetwork", "hostPID", "hostIPC"):
                    self.assertNotIn(host, spec)
                for only in spec["containers"]:
                    context = only["securityContext"]
                    self.assertFalse(context["allowPrivilegeEscalation"])
                    self.assertTrue(context["readOnlyRootFilesystem"])
                    self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
                    self.assertNotIn("privileged", context)
                    self.assertNotIn("hostPort", str(only.get("ports", [])))

    def test_no_token_of_the_service_account(self):
        account = find(render(REDIS), "ServiceAccount")
        self.assertFalse(account["automountServiceAccountToken"])
        for name, spec in self.pods():
            self.assertFalse(spec["automountServiceAccountToken"], name)
        self.assertEqual(pod(REDIS)["serviceAccountName"], account["metadata"]["name"])

    def test_an_account_that_is_there_already(self):
        values = {"serviceAccount": {"create": False, "name": "mine"}}
        self.assertEqual(every(render(values), "ServiceAccount"), [])
        self.assertEqual(pod(values)["serviceAccountName"], "mine")


class Peers(unittest.TestCase):
    """Pods pass requests on to each other."""

    ADVERTISE = {"name": "ROOMCAST__PEER__ADVERTISE", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}

    def test_a_fixed_port_and_the_address_of_the_pod(self):
        for kind in ("redis", "nats"):
            values = merged(REDIS, {"config": {"adapter": {"kind": kind}}})
            self.assertEqual(ports(values)["peer"], 3002)
            self.assertEqual(config(values)["peer"], {"listen": "0.0.0.0:3002"})
            self.assertEqual(container(values)["env"], [self.ADVERTISE])
            # No Service leads there.
            targets = {port["targetPort"] for service in every(render(values), "Service") for port in service["spec"]["ports"]}
            self.assertEqual(targets, {"public", "api"})

    def test_with_ipv6_alone(self):
        listeners = {"public": {"listen": "[::]:3000"}, "api": {"listen": "[::]:3001"}}
        self.assertEqual(config(merged(REDIS, {"config": listeners}))["peer"], {"listen": "[::]:3002"})

    def test_settings_go_through(self):
        peer = {"listen": "0.0.0.0:4000", "advertise": "node.example:4000", "max_requests": 5}
        values = merged(REDIS, {"config": {"peer": peer}})
        self.assertEqual(config(values)["peer"], peer)
        self.assertEqual(ports(values)["peer"], 4000)
        self.assertNotIn("env", container(values))
        own = {"extraEnv": [{"name": "ROOMCAST__PEER__ADVERTISE", "value": "10.0.0.1"}]}
        self.assertEqual(container(merged(REDIS, own))["env"], own["extraEnv"])

    def test_none_where_there_is_nobody_or_it_is_off(self):
        for values in ({}, merged(REDIS, {"config": {"peer": {"enabled": False}}})):
            self.assertEqual(set(ports(values)), {"public", "api"})
            self.assertNotIn("env", container(values))
            self.assertNotIn("listen", config(values).get("peer", {}))


class Traces(unittest.TestCase):
    def test_they_carry_the_name_of_the_pod(self):
        values = {"config": {"trace": {"endpoint": "http://collector:4318", "headers": ["env:OTLP"]}}}
        name, attributes = container(values)["env"]
        self.assertEqual(name["valueFrom"], {"fieldRef": {"fieldPath": "metadata.name"}})
        expected = f"k8s.namespace.name={NAMESPACE},k8s.pod.name=$({name['name']})"
        self.assertEqual(attributes, {"name": "OTEL_RESOURCE_ATTRIBUTES", "value": expected})
        self.assertEqual(config(values)["trace"], values["config"]["trace"])
        platform = {"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://collector:4318"}
        self.assertEqual(container({"extraEnv": [platform]})["env"], [name, attributes, platform])
        own = {"extraEnv": [{"name": "OTEL_RESOURCE_ATTRIBUTES", "value": "a=b"}]}
        self.assertEqual(container(merged(values, own))["env"], own["extraEnv"])


class Probes(unittest.TestCase):
    def test_all_three_ask_the_api_port(self):
        paths = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
        for values, scheme in ((REDIS, "HTTP"), (merged(REDIS, {"tls": TLS}), "HTTPS")):
            only = container(values)
            for probe, path in paths.items():
                self.assertEqual(only[probe]["httpGet"], {"path": path, "port": "api", "scheme": scheme}, probe)
                self.assertIn("failureThreshold", only[probe])
        # While the broker is away a node is not ready, but must not be killed for it.
        self.assertNotEqual(only["livenessProbe"]["httpGet"]["path"], "/readyz")

    def test_times_can_be_set(self):
        only = container({"probes": {"readiness": {"periodSeconds": 2, "failureThreshold": 9}}})
        probe = only["readinessProbe"]
        self.assertEqual((probe["periodSeconds"], probe["failureThreshold"], probe["timeoutSeconds"]), (2, 9, 2))


class End(unittest.TestCase):
    def test_clients_leave_at_a_pace_that_they_can_follow(self):
        self.assertEqual(config(REDIS)["drain"], {"delay": "5s", "period": "60s", "grace": "10s"})
        # They could not come back before the next pod is there, so it is not kept waiting.
        self.assertEqual(config()["drain"], {"delay": "0s", "period": "5s", "grace": "10s"})
        given = {"period": "2m", "rate": 50, "delay": 0}
        self.assertEqual(config(merged(REDIS, {"config": {"drain": given}}))["drain"], {"grace": "10s", **given})
        # Roomcast waits for the balancers itself, on every Kubernetes.
        for kube in KUBERNETES:
            self.assertNotIn("lifecycle", container(REDIS, kube=kube))

    def test_the_grace_period_covers_the_drain(self):
        for drain, expected in (
            ({}, 5 + 60 + 2 * 10 + 10),
            ({"delay": "20s", "period": "1m 40s", "grace": "1s"}, 20 + 100 + 2 + 10),
            ({"delay": "1500ms", "period": "1h30m", "grace": 0}, 2 + 5400 + 10),
            # A number is milliseconds, in quotes too. Parts of a second count as one.
            ({"delay": 2001, "period": "29000", "grace": " 3 s "}, 3 + 29 + 6 + 10),
            ({"delay": "0s", "period": "1000000", "grace": 1000000}, 1000 + 2000 + 10),
        ):
            with self.subTest(drain=drain):
                values = merged(REDIS, {"config": {"drain": drain}})
                self.assertEqual(pod(values)["terminationGracePeriodSeconds"], expected)
        self.assertEqual(pod()["terminationGracePeriodSeconds"], 5 + 2 * 10 + 10)
        exact = merged(REDIS, {"terminationGracePeriodSeconds": 85})
        self.assertEqual(pod(exact)["terminationGracePeriodSeconds"], 85)

    def test_durations_mean_the_same_to_the_chart_and_to_roomcast(self):
        """A node that drains tells what it has read; the chart's sum has to be that of it."""
        for delay, period, seconds in (("1m 1s", " 3 h2m", (61, 10920)), (2000, "1000000", (2, 1000))):
            values = merged(REDIS, {"config": {"drain": {"delay": delay, "period": period, "grace": 0}}})
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "roomcast.json"
                path.write_text(json.dumps({**HERE_AND_NOW, "drain": config(values)["drain"]}))
                # It ends at once: nobody is connected.
                with running(folder, path) as (_, log, _):
                    pass
                self.assertIn("delay_ms={}000 period_ms={}000".format(*seconds), log.read_text())
            self.assertEqual(pod(values)["terminationGracePeriodSeconds"], sum(seconds) + 10)

    def test_one_pod_has_sent_its_clients_away_before_the_next_begins(self):
        for values, expected in (
            (REDIS, 65),
            (merged(REDIS, {"config": {"drain": {"delay": "1s", "period": "20m"}}}), 1201),
            (merged(REDIS, {"minReadySeconds": 7}), 7),
        ):
            spec = find(render(values), "Deployment")["spec"]
            self.assertEqual(spec["minReadySeconds"], expected)
            # Otherwise Kubernetes would refuse the Deployment.
            self.assertGreater(spec["progressDeadlineSeconds"], spec["minReadySeconds"] + 300)

    def test_pods_are_replaced_one_by_one_with_a_broker(self):
        spec = find(render(REDIS), "Deployment")["spec"]
        self.assertEqual(spec["strategy"]["rollingUpdate"], {"maxSurge": 1, "maxUnavailable": 0})

    def test_two_memory_nodes_never_run_beside_each_other(self):
        self.assertEqual(find(render(), "Deployment")["spec"]["strategy"], {"type": "Recreate"})

    def test_an_own_strategy(self):
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "10%"}}
        self.assertEqual(find(render({"strategy": strategy}), "Deployment")["spec"]["strategy"], strategy)


class Placement(unittest.TestCase):
    def labels(self):
        return find(render(REDIS), "Deployment")["spec"]["selector"]["matchLabels"]

    def test_spread_over_zones_and_machines(self):
        constraints = pod(REDIS)["topologySpreadConstraints"]
        keys = {item["topologyKey"]: item["whenUnsatisfiable"] for item in constraints}
        expected = {"topology.kubernetes.io/zone": "ScheduleAnyway", "kubernetes.io/hostname": "ScheduleAnyway"}
        self.assertEqual(keys, expected)
        for item in constraints:
            self.assertEqual(item["labelSelector"]["matchLabels"], self.labels())
            self.assertEqual(item["matchLabelKeys"], ["pod-template-hash"])
        hard = pod(merged(REDIS, {"topologySpread": {"zone": "DoNotSchedule", "host": ""}}))
        keys = {item["topologyKey"]: item["whenUnsatisfiable"] for item in hard["topologySpreadConstraints"]}
        self.assertEqual(keys, {"topology.kubernetes.io/zone": "DoNotSchedule"})
        none = pod(merged(REDIS, {"topologySpread": {"zone": "", "host": ""}}))
        self.assertNotIn("topologySpreadConstraints", none)

    def test_anti_affinity(self):
        soft = pod(REDIS)["affinity"]["podAntiAffinity"]
        (term,) = soft["preferredDuringSchedulingIgnoredDuringExecution"]
        self.assertEqual(term["podAffinityTerm"]["labelSelector"]["matchLabels"], self.labels())
        hard = pod(merged(REDIS, {"podAntiAffinity": "hard"}))["affinity"]["podAntiAffinity"]
        (term,) = hard["requiredDuringSchedulingIgnoredDuringExecution"]
        self.assertEqual(term["labelSelector"]["matchLabels"], self.labels())
        self.assertNotIn("affinity", pod(merged(REDIS, {"podAntiAffinity": "none"})))

    def test_what_an_operator_gives_goes_before(self):
        values = {
            "topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}],
            "affinity": {"nodeAffinity": {}},
            "nodeSelector": {"pool": "edge"},
            "tolerations": [{"key": "edge", "operator": "Exists"}],
            "priorityClassName": "high",
        }
        spec = pod(values)
        for key, value in values.items():
            self.assertEqual(spec[key], value)


class Labels(unittest.TestCase):
    def test_the_selector_is_in_the_pods_and_never_changes(self):
        spec = find(render(REDIS), "Deployment")["spec"]
        selector = spec["selector"]["matchLabels"]
        expected = {"name": "roomcast", "instance": RELEASE, "component": "gateway"}
        # An upgrade with another selector would be refused by Kubernetes.
        self.assertEqual(selector, {f"app.kubernetes.io/{key}": value for key, value in expected.items()})
        changed = find(render(merged(REDIS, {"commonLabels": {"a": "b"}, "image": {"tag": "2"}})), "Deployment")
        self.assertEqual(changed["spec"]["selector"]["matchLabels"], selector)
        for deployment in (spec, changed["spec"]):
            self.assertLessEqual(selector.items(), deployment["template"]["metadata"]["labels"].items())

    def test_every_object_has_the_common_labels(self):
        for item in render({"commonLabels": {"team": "realtime"}}):
            labels = item["metadata"]["labels"]
            self.assertEqual((labels["team"], labels["app.kubernetes.io/instance"]), ("realtime", RELEASE), item["kind"])

    def test_names(self):
        self.assertEqual(find(render({"fullnameOverride": "gate"}), "Deployment")["metadata"]["name"], "gate")
        self.assertEqual(find(render({"nameOverride": "gate"}), "Deployment")["metadata"]["name"], f"{RELEASE}-gate")
        for item in render({"fullnameOverride": "x" * 80, "metrics": {"dashboards": {"enabled": True}}}):
            self.assertLessEqual(len(item["metadata"]["name"]), 63)


class TestPod(unittest.TestCase):
    def test_it_asks_both_services(self):
        objects = render(REDIS)
        test = find(objects, "Pod")
        self.assertEqual(test["metadata"]["annotations"]["helm.sh/hook"], "test")
        self.assertEqual(test["spec"]["restartPolicy"], "Never")
        urls = {only["name"]: only["args"] for only in test["spec"]["containers"]}
        ready = f"http://{NAME}-api.{NAMESPACE}.svc:3001/readyz"
        handshake = f"http://{NAME}:80/socket.io/?EIO=4&transport=polling"
        self.assertEqual(urls["ready"], ["healthcheck", "--url", ready])
        self.assertEqual(urls["handshake"], ["healthcheck", "--url", handshake])
        services = {item["metadata"]["name"] for item in every(objects, "Service")}
        self.assertLessEqual({NAME, f"{NAME}-api"}, services)

    def test_what_it_asks_is_answered_by_a_node(self):
        containers = find(render(), "Pod")["spec"]["containers"]
        urls = {only["name"]: urlsplit(only["args"][-1]) for only in containers}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "roomcast.json"
            path.write_text(json.dumps(merged(config(), HERE_AND_NOW)))
            with running(folder, path) as (_, _, (public, api)):
                for name, address in (("ready", api), ("handshake", public)):
                    url = urlunsplit(urls[name]._replace(netloc=address))
                    check = [roomcast(), "healthcheck", "--url", url]
                    result = subprocess.run(check, capture_output=True, text=True, timeout=60)
                    self.assertEqual(result.returncode, 0, f"{url}: {result.stderr}")
                    self.assertIn('"ready":true' if name == "ready" else '"sid":', result.stdout)

    def test_no_handshake_where_this_pod_could_make_none(self):
        ca = {"secretName": "public", "clientCa": {"secretName": "ca"}}
        for values in (
            {"config": {"engine": {"transports": ["websocket"]}}},
            {"config": {"public": {"proxy_protocol": "required"}}},
            {"tls": {"public": ca}},
        ):
            names = [only["name"] for only in find(render(values), "Pod")["spec"]["containers"]]
            self.assertEqual(names, ["ready"])
        optional = {"tls": {"public": ca}, "config": {"public": {"tls": {"client_certificates": "optional"}}}}
        self.assertEqual(len(find(render(optional), "Pod")["spec"]["containers"]), 2)

    def test_it_can_be_left_out(self):
        self.assertEqual(every(render({"tests": {"enabled": False}}), "Pod"), [])


if __name__ == "__main__":
    unittest.main()
