"""The configuration file and its secrets: what is in the ConfigMap and what is not, that Roomcast takes it, and which
changes need new pods."""

import base64
import json
import os
import subprocess
import tempfile
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support import (
    EVERYTHING,
    FILES,
    HERE_AND_NOW,
    KEY,
    NAME,
    NAMESPACE,
    REDIS,
    SECRETS,
    URLS,
    config,
    container,
    every,
    find,
    merged,
    notes,
    pod,
    render,
    render_on,
    roomcast,
    running,
    until,
    write_as_mounted,
)




def template(values):
    """The pods: a change of anything in here replaces them."""
    return find(render(values), "Deployment")["spec"]["template"]


def secret_sources(values):
    volumes = {volume["name"]: volume for volume in pod(values)["volumes"]}
    return [source["secret"] for source in volumes["secrets"]["projected"]["sources"]]


def secret_data(values, name=NAME):
    data = find(render(values), "Secret", name)["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


class Rendered(unittest.TestCase):
    def test_values_become_the_file(self):
        values = merged(REDIS, {"config": {"public": {"max_connections": 1000000}, "namespace": [{"name": "/chat"}]}})
        rendered = config(values)
        self.assertEqual(rendered["public"], {"listen": "0.0.0.0:3000", "max_connections": 1000000})
        self.assertEqual(rendered["namespace"], [{"name": "/chat"}])
        self.assertEqual(rendered["log"], {"format": "json"})
        # Before the kernel takes all clients away, new ones are refused.
        self.assertEqual(rendered["admission"], {"max_memory": "80%"})
        self.assertTrue(container(values)["resources"]["limits"]["memory"])
        text = find(render(values), "ConfigMap", NAME)["data"]["roomcast.json"]
        # A large number in the form 1e+06 would be no integer.
        self.assertIn('"max_connections": 1000000', text)

    def test_roomcast_takes_every_file(self):
        cases = [({}, file) for file in FILES] + [
            (EVERYTHING, None),
            (merged(REDIS, {"broker": {"existingSecret": "", "url": URLS["redis"]}}), None),
            ({"apiKeys": {"generate": False, "values": [KEY, KEY + "2"]}}, None),
        ]
        for values, file in cases:
            with self.subTest(file=file), tempfile.TemporaryDirectory() as folder:
                path = write_as_mounted(folder, config(values, file=file))
                # The pods' environment has nothing of ROOMCAST__ either.
                env = {key: value for key, value in os.environ.items() if not key.startswith("ROOMCAST__")}
                check = [roomcast(), "check", "--config", path]
                result = subprocess.run(check, env=env, capture_output=True, text=True, timeout=60)
                self.assertEqual(result.returncode, 0, result.stderr)
                self.assertIn("configuration ok", result.stdout)
                self.assertNotIn("no keys", result.stdout)

    def test_the_check_can_fail(self):
        with tempfile.TemporaryDirectory() as folder:
            path = write_as_mounted(folder, merged(config(), {"api": {"keys": []}}))
            result = subprocess.run([roomcast(), "check", "--config", path], capture_output=True, text=True, timeout=60)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn("api.keys", result.stderr)


class Cluster:
    """As much of a Kubernetes API as `lookup` asks for."""

    def __init__(self, objects):
        secrets = {"name": "secrets", "kind": "Secret", "namespaced": True, "singularName": "secret", "verbs": ["get"]}
        answers = {
            "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
            "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [secrets]},
            **objects,
        }

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self):
                found = answers.get(self.path.split("?")[0])
                missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
                body = json.dumps(found or missing).encode()
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Secrets(unittest.TestCase):
    def test_secrets_that_are_there_already_are_mounted_as_files(self):
        values = merged(REDIS, {"apiKeys": {"existingSecretKeys": ["one", "two"]}, "broker": {"existingSecretKey": "url"}})
        self.assertEqual(
            secret_sources(values),
            [
                {"name": "keys"},
                {"name": "broker", "items": [{"key": "url", "path": "broker-url"}]},
            ],
        )
        rendered = config(values)
        self.assertEqual(rendered["adapter"]["url"], f"file:{SECRETS}/broker-url")
        self.assertEqual(rendered["api"]["keys"], [f"file:{SECRETS}/one", f"file:{SECRETS}/two"])
        self.assertIn(
            {"name": "secrets", "mountPath": SECRETS, "readOnly": True}, container(values)["volumeMounts"]
        )
        self.assertEqual(every(render(values), "Secret"), [])

    def test_values_go_into_a_secret_and_nowhere_else(self):
        values = merged(
            REDIS,
            {
                "broker": {"existingSecret": "", "url": "redis://:hunter2@redis:6379"},
                "apiKeys": {"existingSecret": "", "values": ["swordfish-swordfish"]},
                "secrets": {"values": {"WEBHOOK_SECRET": "open-sesame"}},
            },
        )
        expected = {"broker-url": "redis://:hunter2@redis:6379", "api-key-0": "swordfish-swordfish"}
        self.assertEqual(secret_data(values), expected)
        self.assertEqual(secret_data(values, f"{NAME}-env"), {"WEBHOOK_SECRET": "open-sesame"})
        others = json.dumps([item for item in render(values) if item["kind"] != "Secret"]) + notes(values)
        for secret in ("hunter2", "swordfish", "open-sesame"):
            self.assertNotIn(secret, others)

    def test_one_key_is_made_when_none_is_given(self):
        key = secret_data({})["api-key"]
        self.assertEqual(len(key), 40)
        self.assertEqual(config()["api"]["keys"], [f"file:{SECRETS}/api-key"])
        self.assertEqual(every(render(merged(REDIS, {"apiKeys": {"generate": True}})), "Secret"), [])

    def test_the_key_that_was_made_is_kept(self):
        kept = base64.b64encode(b"made-at-the-first-installation").decode()
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME}, "data": {"api-key": kept}}
        with Cluster({f"/api/v1/namespaces/{NAMESPACE}/secrets/{NAME}": secret}) as address:
            self.assertEqual(find(render_on(address), "Secret", NAME)["data"], {"api-key": kept})
        with Cluster({}) as address:
            self.assertNotEqual(find(render_on(address), "Secret", NAME)["data"], {"api-key": kept})

    def test_further_secrets_are_files_and_variables(self):
        values = {"secrets": {"values": {"A": "b"}, "existingSecrets": ["more"]}}
        names = [source["name"] for source in secret_sources(values)]
        self.assertEqual(names, [f"{NAME}-env", "more", NAME])
        references = [item["secretRef"]["name"] for item in container(values)["envFrom"]]
        # Keys of the API are not in the environment.
        self.assertEqual(references, [f"{NAME}-env", "more"])

    def test_files_can_be_read_by_who_runs(self):
        spec = pod(REDIS)
        volume = next(volume for volume in spec["volumes"] if volume["name"] == "secrets")
        self.assertEqual(volume["projected"]["defaultMode"], 0o440)
        self.assertEqual(spec["securityContext"]["fsGroup"], spec["securityContext"]["runAsGroup"])


AUTH = {
    "auth": {"jwt": {"secret": f"file:{SECRETS}/JWT_SECRET", "required": False}},
    "limits": {"events_per_second": 50},
    "backend": {"orders": {"webhook": "http://orders/hooks", "secrets": [f"file:{SECRETS}/ORDERS_SECRET"]}},
}


class Restarts(unittest.TestCase):
    """A change rolls the pods only where a running node could not take it up."""

    TAKEN = {
        "config": {
            "namespace": [{"name": "/"}, {"name": "/chat"}],
            "log": {"level": "debug"},
            "reload": {"interval": "1s"},
            "admission": {"max_memory": "1GiB"},
            "drain": {"rate": 50},
            "rebalance": {"threshold": 0.2},
            **AUTH,
        },
        "apiKeys": {"existingSecretKeys": ["one", "two"]},
    }

    def test_what_a_node_takes_up_rolls_nothing(self):
        self.assertNotEqual(config(merged(REDIS, self.TAKEN)), config(REDIS))
        self.assertEqual(template(merged(REDIS, self.TAKEN)), template(REDIS))
        named = {"config": {"api": {"key": [{"name": "orders", "secret": "env:KEY"}], "jwt": {"secret": "env:JWT"}}}}
        self.assertEqual(template(merged(REDIS, named)), template(REDIS))
        # A further key in the chart's Secret.
        one, two = ({"apiKeys": {"generate": False, "values": [KEY] * count}} for count in (1, 2))
        self.assertEqual(template(one), template(two))

    def test_everything_else_rolls_the_pods(self):
        own_url = {"existingSecret": "", "url": "redis://a"}
        for change in (
            {"config": {"engine": {"max_payload": 5}}},
            {"config": {"log": {"format": "text"}}},
            {"config": {"api": {"max_body": "2MiB"}}},
            # It changes when pods are killed.
            {"config": {"drain": {"period": "2m"}}},
            {"config": {"peer": {"max_requests": 5}}},
            {"config": {"trace": {"endpoint": "http://collector:4318"}}},
            {"tls": {"public": {"secretName": "tls"}}},
            {"broker": {"existingSecret": "another"}},
            {"broker": own_url},
        ):
            with self.subTest(change=change):
                self.assertNotEqual(template(merged(REDIS, change)), template(REDIS))
        # Also when only the chart's Secret changes.
        first, second = ({"broker": {**own_url, "url": url}} for url in ("redis://a", "redis://b"))
        self.assertNotEqual(template(merged(REDIS, first)), template(merged(REDIS, second)))

    def test_a_running_node_does_take_it_up(self):
        """The chart's list of what needs no restart is true."""
        before = merged(config(), HERE_AND_NOW)
        after = merged(before, self.TAKEN["config"], {"api": {"keys": ["0123456789abcdef", "another-key-of-the-api"]}})
        with tempfile.TemporaryDirectory() as folder:
            path = write_as_mounted(folder, before)
            with running(folder, path) as (_, log, _):
                write_as_mounted(folder, after)
                until(lambda: "the configuration has been taken" in log.read_text(), log)
            text = log.read_text()
            taken = ("api.keys", "namespace", "auth.jwt", "limits", "backend", "log.level", "reload.interval")
            for key in (*taken, "admission.max_memory", "drain.rate", "rebalance.threshold"):
                self.assertIn(key, text)
            self.assertNotIn("a restart is needed", text)
            self.assertNotIn("not taken", text)


class Notes(unittest.TestCase):
    def test_they_tell_how_to_try_it(self):
        text = notes(file="values-memory.yaml")
        for part in (f"port-forward deployment/{NAME}", f"get secret {NAME} ", "/v1/emit", "/console", "helm test chat"):
            self.assertIn(part, text)
        self.assertIn("1 node, memory adapter", text)
        text = notes(file="values-large.yaml")
        self.assertIn("50 to 80 nodes, nats adapter", text)
        self.assertIn("get secret roomcast ", text)

    def test_stickiness_is_preferred_and_not_required(self):
        ingress = {"ingress": {"enabled": True, "hosts": ["chat.example"]}}
        without = {
            "ingress.flavor is none": ingress,
            "ingress.cookie.enabled is false": merged(ingress, {"ingress": {"flavor": "haproxy", "cookie": {"enabled": False}}}),
            "httpRoute.sessionPersistence is off": {"httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}]}},
            "service.public.sessionAffinity is None": {"service": {"public": {"type": "LoadBalancer"}}},
        }
        alone = {"config": {"peer": {"enabled": False}}}
        for why, values in without.items():
            text = notes(merged(REDIS, values))
            self.assertIn(f"Note: {why}. Long-polling requests", text)
            self.assertNotIn("WARNING", text)
            # Without the detour polling would break.
            self.assertIn(f"WARNING: {why}, and config.peer.enabled is false", notes(merged(REDIS, values, alone)))
            # Neither with one node nor with WebSocket alone.
            only_websocket = {"config": {"engine": {"transports": ["websocket"]}}}
            for text in (notes(values), notes(merged(REDIS, values, only_websocket))):
                self.assertNotIn(why, text)
        sticky = (
            {"ingress": {**ingress["ingress"], "flavor": "nginx"}},
            {"httpRoute": {"enabled": True, "parentRefs": [{"name": "g"}], "sessionPersistence": {"enabled": True}}},
            {"service": {"public": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"}}},
        )
        for values in sticky:
            text = notes(merged(REDIS, values, alone))
            self.assertNotIn("Long-polling requests", text)
            # What is sent away would come back.
            rebalance = {"config": {"rebalance": {"threshold": 0.2}}}
            self.assertNotIn("config.rebalance", text)
            self.assertIn("WARNING: config.rebalance.threshold is set", notes(merged(REDIS, values, rebalance)))
        self.assertIn("http://chat.example/socket.io/", notes(merged(REDIS, ingress)))

    def test_they_speak_tls_where_the_pods_do(self):
        text = notes({"tls": {"api": {"secretName": "api"}}})
        self.assertIn("curl --insecure ", text)
        self.assertIn("https://127.0.0.1:3001/console", text)
        self.assertIn(f"https://{NAME}-api.{NAMESPACE}.svc:3001/v1/emit", text)


if __name__ == "__main__":
    unittest.main()
