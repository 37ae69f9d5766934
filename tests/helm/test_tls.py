"""TLS that ends in the pods: what is mounted where, what the configuration says of it, and that a node serves it."""

import json
import subprocess
import tempfile
import unittest

from support import (
    HERE_AND_NOW,
    REDIS,
    TLS,
    config,
    container,
    find,
    merged,
    pod,
    render,
    roomcast,
    running,
    write_as_mounted,
)

PUBLIC, API = "/run/secrets/public-tls", "/run/secrets/api-tls"


def sources(values, listener):
    """What the volume of a listener is made of: (Secret, key, file)."""
    (volume,) = [volume for volume in pod(values)["volumes"] if volume["name"] == f"{listener}-tls"]
    # Readable by fsGroup.
    assert volume["projected"]["defaultMode"] == 0o440
    secrets = [source["secret"] for source in volume["projected"]["sources"]]
    return [(secret["name"], item["key"], item["path"]) for secret in secrets for item in secret["items"]]


class Files(unittest.TestCase):
    def test_certificates_are_mounted_and_named(self):
        values = merged(REDIS, {"tls": TLS})
        rendered = config(values)
        self.assertEqual(
            rendered["public"]["tls"], {"cert_file": f"{PUBLIC}/tls.crt", "key_file": f"{PUBLIC}/tls.key"}
        )
        self.assertEqual(sources(values, "public"), [("public", key, key) for key in ("tls.crt", "tls.key")])
        mounts = {mount["name"]: mount for mount in container(values)["volumeMounts"]}
        self.assertEqual((mounts["public-tls"]["mountPath"], mounts["public-tls"]["readOnly"]), (PUBLIC, True))
        self.assertEqual(mounts["api-tls"]["mountPath"], API)

    def test_callers_of_the_api_may_show_certificates_and_probes_need_none(self):
        values = merged(REDIS, {"tls": {"api": {**TLS["api"], "clientCa": {"secretName": "backends", "key": "roots.pem"}}}})
        expected = {
            "cert_file": f"{API}/tls.crt",
            "key_file": f"{API}/tls.key",
            "client_ca_file": f"{API}/clients-ca.crt",
            "client_certificates": "optional",
        }
        self.assertEqual(config(values)["api"]["tls"], expected)
        self.assertIn(("backends", "roots.pem", "clients-ca.crt"), sources(values, "api"))
        # Clients have no kubelet among them: there it is as the configuration says.
        public = {"tls": {"public": {"secretName": "p", "clientCa": {"secretName": "ca"}}}}
        self.assertNotIn("client_certificates", config(public)["public"]["tls"])

    def test_other_settings_go_through(self):
        values = {"tls": TLS, "config": {"public": {"tls": {"min_version": "1.3"}}}}
        rendered = config(values)["public"]["tls"]
        self.assertEqual((rendered["min_version"], rendered["cert_file"]), ("1.3", f"{PUBLIC}/tls.crt"))
        own = {"cert_file": "/own/a.crt", "key_file": "/own/a.key"}
        self.assertEqual(config({"config": {"api": {"tls": own}}})["api"]["tls"], own)

    def test_none_by_default(self):
        self.assertNotIn("tls", config()["public"])
        self.assertNotIn("tls", config()["api"])
        self.assertNotIn("-tls", json.dumps(pod()))


class Served(unittest.TestCase):
    def test_a_node_serves_it_and_the_test_pod_gets_its_answers(self):
        values = {"tls": TLS}
        with tempfile.TemporaryDirectory() as folder:
            path = write_as_mounted(folder, merged(config(values), HERE_AND_NOW))
            with running(folder, path) as (_, _, addresses):
                tests = find(render(values), "Pod")["spec"]["containers"]
                self.assertEqual([test["name"] for test in tests], ["ready", "handshake"])
                for test, address in zip(tests, reversed(addresses)):
                    args = test["args"]
                    url = f"https://{address}/{args[-1].split('/', 3)[3]}"
                    check = [roomcast(), *args[:-1], url]
                    result = subprocess.run(check, capture_output=True, text=True, timeout=60)
                    self.assertEqual(result.returncode, 0, f"{check}: {result.stderr}")
                    # Nobody knows who has signed these, so somebody who asks has to say that it does not matter.
                    check.remove("--insecure")
                    result = subprocess.run(check, capture_output=True, text=True, timeout=60)
                    self.assertNotEqual(result.returncode, 0, result.stdout)


if __name__ == "__main__":
    unittest.main()
