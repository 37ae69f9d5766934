"""Every values file on every version of Kubernetes: lint, rendering, and strict schemas of whatever comes out."""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import unittest
from pathlib import Path

import yaml

from support import CHART, EVERYTHING, FILES, KUBERNETES, ROOT, find, helm, judge, merged, render


class Lint(unittest.TestCase):
    def test_lint_finds_nothing(self):
        for file, kube in [(None, KUBERNETES[0]), *((file, KUBERNETES[-1]) for file in FILES)]:
            with self.subTest(file=file, kube=kube):
                values = ["--values", CHART / file] if file else []
                result = helm("lint", "--strict", "--kube-version", kube, CHART, *values)
                self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_all_ready_made_files_are_here(self):
        expected = {"memory", "redis", "redis-cluster", "nats", "large"}
        self.assertEqual({file[len("values-") : -len(".yaml")] for file in FILES if file}, expected)

    def test_the_package_is_as_good_as_the_folder(self):
        with tempfile.TemporaryDirectory() as folder:
            result = helm("package", CHART, "--destination", folder)
            self.assertEqual(result.returncode, 0, result.stderr)
            (package,) = Path(folder).glob("roomcast-*.tgz")
            args = ["--values", CHART / "values-large.yaml", "--kube-version", "1.33"]
            packed, unpacked = (helm("template", "r", chart, *args) for chart in (package, CHART))
            self.assertEqual(packed.returncode, 0, packed.stderr)
            self.assertEqual(packed.stdout, unpacked.stdout)


class Matrix(unittest.TestCase):
    def judged(self, **arguments):
        objects = render(**arguments)
        self.assertGreaterEqual(len(objects), 5)
        for item in objects:
            judge(item, arguments["kube"])
        return objects

    def test_every_file_on_every_kubernetes(self):
        for file in FILES:
            for kube in KUBERNETES:
                with self.subTest(file=file, kube=kube):
                    self.judged(file=file, kube=kube)

    def test_everything_at_once_on_every_kubernetes(self):
        kinds = set()
        instead = {
            "autoscaling": {"provider": "keda", "keda": {"prometheusAddress": "http://p:9090"}},
            "httpRoute": {"backendTls": {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]}},
            "metrics": {"serviceMonitor": {"enabled": False}, "podMonitor": {"enabled": True}},
        }
        cases = [({}, kube) for kube in KUBERNETES] + [(instead, kube) for kube in (KUBERNETES[0], KUBERNETES[-1])]
        for more, kube in cases:
            with self.subTest(kube=kube, more=more):
                kinds |= {item["kind"] for item in self.judged(values=merged(EVERYTHING, more), kube=kube)}
        # What the matrix never renders it cannot judge.
        sources = "".join(path.read_text() for path in (CHART / "templates").rglob("*.yaml"))
        self.assertEqual(kinds, set(re.findall(r"^kind: (\w+)$", sources, re.M)))

    def test_every_flavor_of_ingress(self):
        flavors = json.loads((CHART / "values.schema.json").read_text())
        flavors = flavors["properties"]["ingress"]["properties"]["flavor"]["enum"]
        self.assertGreaterEqual(len(flavors), 5)
        for flavor in flavors:
            with self.subTest(flavor=flavor):
                self.judged(values=merged(EVERYTHING, {"ingress": {"flavor": flavor}}), kube="1.33")

    def test_an_older_kubernetes_is_refused(self):
        result = helm("template", "r", CHART, "--kube-version", "1.28.0")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("requires kubeVersion: >=1.29.0-0", result.stderr)


class Judges(unittest.TestCase):
    """The judges of the matrix let nothing through."""

    def refused(self, item, pattern, kube="1.33"):
        with self.assertRaisesRegex(AssertionError, pattern):
            judge(item, kube)

    def test_unknown_kinds(self):
        meta = {"metadata": {"name": "x"}}
        self.refused({"apiVersion": "v1", "kind": "Pot", **meta}, "Couldn't find schema")
        self.refused({"apiVersion": "example.com/v1", "kind": "Deployment", **meta}, "has no schema in crds/")
        # Removed in 1.25.
        self.refused({"apiVersion": "policy/v1beta1", "kind": "PodDisruptionBudget", **meta}, "Couldn't find schema")

    def test_unknown_fields_of_kubernetes(self):
        deployment = find(render(), "Deployment")
        judge(deployment, "1.33")
        deployment["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
        self.refused(deployment, "readynessProbe")

    def test_unknown_fields_of_custom_resources(self):
        objects = render(EVERYTHING)
        objects += render(merged(EVERYTHING, {"autoscaling": {"provider": "keda", "targetConnectionsPerPod": 0}}))
        objects += render(
            merged(EVERYTHING, {"metrics": {"serviceMonitor": {"enabled": False}, "podMonitor": {"enabled": True}}})
        )
        own = ("ServiceMonitor", "PodMonitor", "PrometheusRule", "ScaledObject", "HTTPRoute", "BackendTLSPolicy")
        for kind in own:
            item = next(item for item in objects if item["kind"] == kind)
            judge(item, "1.33")
            item["spec"]["no-such-field"] = True
            self.refused(item, "no-such-field")


class Values(unittest.TestCase):
    def test_the_schema_is_current(self):
        result = subprocess.run([sys.executable, ROOT / "helm" / "schema", "--check"], capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_values_and_schema_name_the_same(self):
        schema = json.loads((CHART / "values.schema.json").read_text())
        values = yaml.safe_load((CHART / "values.yaml").read_text())

        def keys(schema_part, value, path):
            if "$ref" in schema_part:
                schema_part = schema["definitions"][schema_part["$ref"].rsplit("/", 1)[1]]
            for name, inner in schema_part.get("properties", {}).items():
                at = f"{path}.{name}".strip(".")
                # `config` has its own reference, probes their usual fields, the rest is optional in Kubernetes too.
                if at in ("config", "global", "resources", "httpRoute.timeouts") or path.startswith("probes."):
                    continue
                self.assertIn(name, value or {}, f"{at} is in the schema and not in values.yaml")
                if isinstance(value[name], dict):
                    keys(inner, value[name], at)

        keys(schema, values, "")

    def test_versions_agree(self):
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
        self.assertEqual(chart["appVersion"], workspace["version"])
        self.assertEqual(chart["version"], workspace["version"])


if __name__ == "__main__":
    unittest.main()
