"""Renders the chart, and judges what came out. Nothing here talks to a cluster: there is none."""

import base64
import contextlib
import copy
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml
from kubernetes_validate import utils

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "roomcast"
DOCS = ROOT / "docs" / "operations"
HERE = Path(__file__).resolve().parent
HELM = Path(sys.executable).parent / "helm"

# The versions of Kubernetes that the chart is for.
KUBERNETES = [f"1.{minor}" for minor in range(29, 36)]
# The ready-made values files; None is no file.
FILES = [None, *sorted(path.name for path in CHART.glob("values-*.yaml"))]

RELEASE, NAMESPACE = "chat", "realtime"
NAME = f"{RELEASE}-roomcast"

# What most tests begin from: a cluster over Redis, with everything in Secrets that are there already.
REDIS = {
    "replicaCount": 3,
    "config": {"adapter": {"kind": "redis"}},
    "broker": {"existingSecret": "broker"},
    "apiKeys": {"generate": False, "existingSecret": "keys"},
}

# Where the pods find secrets, and what is in those that tests make up.
SECRETS = "/run/secrets/roomcast"
KEY = "0123456789abcdef0123456789abcdef"
URLS = {"redis": "redis-cluster://:hunter2@127.0.0.1:6379", "nats": "nats://u:hunter2@127.0.0.1:4222"}

# Over a rendered configuration: a node of it that runs here, beside others.
HERE_AND_NOW = {
    "public": {"listen": "127.0.0.1:0"},
    "api": {"listen": "127.0.0.1:0", "keys": ["0123456789abcdef"]},
    "reload": {"interval": "100ms"},
    "log": {"format": "text"},
}

# TLS in the pods, with certificates of callers of the API.
TLS = {"public": {"secretName": "public"}, "api": {"secretName": "api", "clientCa": {"secretName": "backends"}}}

# Every object that the chart can make, all at once.
EVERYTHING = {
    **REDIS,
    "commonLabels": {"team": "realtime"},
    "secrets": {"values": {"WEBHOOK_SECRET": "s3cret"}, "existingSecrets": ["more"]},
    "tls": TLS,
    "service": {"public": {"type": "LoadBalancer", "annotations": {"a": "b"}}, "api": {"headless": True}},
    "ingress": {"enabled": True, "flavor": "nginx", "hosts": ["chat.example"], "tls": [{"secretName": "tls"}]},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["chat.example"]},
    "autoscaling": {"enabled": True, "targetConnectionsPerPod": 1000},
    "networkPolicy": {"enabled": True, "egress": {"enabled": True}},
    "metrics": {
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True},
    },
}


@functools.lru_cache(maxsize=None)
def _home():
    return tempfile.TemporaryDirectory(prefix="roomcast-helm-")


def helm(*args, stdin=None):
    """Runs Helm with a home of its own and no cluster."""
    home = _home().name
    folders = {name: f"{home}/{name}" for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")}
    env = {**os.environ, **folders, "KUBECONFIG": "/dev/null"}
    return subprocess.run(
        [str(HELM), *map(str, args)], input=stdin, env=env, capture_output=True, text=True, timeout=120
    )


def _template(values, file, kube, chart=CHART):
    args = ["template", RELEASE, chart, "--namespace", NAMESPACE, "--kube-version", kube]
    if file:
        args += ["--values", CHART / file]
    return helm(*args, "--values", "-", stdin=json.dumps(values or {}))


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML in which a key that stands twice is an error, as it is for Kubernetes."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key twice among {keys}"
        return super().construct_mapping(node, deep)


@functools.lru_cache(maxsize=None)
def _rendered(values, file, kube):
    result = _template(json.loads(values), file, kube)
    if result.returncode:
        raise AssertionError(f"the chart was refused: {result.stderr}")
    objects = [item for item in yaml.load_all(result.stdout, _Loader) if item is not None]
    # Objects that are one by mistake would hide each other.
    keys = [(item["kind"], item["metadata"]["name"]) for item in objects]
    assert len(keys) == len(set(keys)), f"an object twice: {keys}"
    return objects


def render(values=None, file=None, kube="1.33"):
    """The objects of the chart."""
    return copy.deepcopy(_rendered(json.dumps(values or {}, sort_keys=True), file, kube))


def render_on(address):
    """The objects as an upgrade makes them, where the chart can look into the cluster."""
    args = ["--namespace", NAMESPACE, "--dry-run=server", "--kube-apiserver", address, "--kube-token", "none"]
    result = helm("template", RELEASE, CHART, *args)
    assert result.returncode == 0, result.stderr
    return list(yaml.load_all(result.stdout, _Loader))


def refusal(values, file=None):
    """What Helm says when it refuses values."""
    result = _template(values, file, "1.33")
    assert result.returncode, "the values were not refused"
    return result.stderr


@functools.lru_cache(maxsize=None)
def _chart_with_notes():
    """The chart with NOTES.txt as an object: `helm template` leaves notes out, and `helm install` needs a cluster."""
    copy_of_chart = Path(_home().name) / "chart"
    shutil.copytree(CHART, copy_of_chart)
    templates = copy_of_chart / "templates"
    text = (templates / "NOTES.txt").read_text()
    (templates / "_notes.tpl").write_text('{{- define "notes" -}}\n' + text + "{{- end }}\n")
    about = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\ndata:\n  notes: {{ include \"notes\" . | toJson }}\n"
    (templates / "notes.yaml").write_text(about)
    return copy_of_chart


def notes(values=None, file=None, kube="1.33"):
    """What `helm install` prints."""
    result = _template(values, file, kube, chart=_chart_with_notes())
    assert result.returncode == 0, result.stderr
    return find(list(yaml.load_all(result.stdout, _Loader)), "ConfigMap", "notes")["data"]["notes"]


def merged(base, *others):
    """Values over values, as Helm merges them."""
    base = copy.deepcopy(base)
    for other in others:
        for key, value in other.items():
            both = isinstance(base.get(key), dict) and isinstance(value, dict)
            base[key] = merged(base[key], value) if both else value
    return base


def find(objects, kind, name=None):
    """The one object of a kind, and of a name where there are several."""
    found = every(objects, kind)
    if name is not None:
        found = [item for item in found if item["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} of {kind} {name or ''}"
    return found[0]


def every(objects, kind):
    return [item for item in objects if item["kind"] == kind]


def pod(values=None, **more):
    """The pod template's spec."""
    return find(render(values, **more), "Deployment")["spec"]["template"]["spec"]


def container(values=None, **more):
    (only,) = pod(values, **more)["containers"]
    return only


def config(values=None, **more):
    """The configuration that the pods get."""
    return json.loads(find(render(values, **more), "ConfigMap", NAME)["data"]["roomcast.json"])


# The schemas of a Kubernetes version are megabytes, and read anew for each object otherwise.
utils.schema_contents = functools.lru_cache(maxsize=512)(utils.schema_contents)


@functools.lru_cache(maxsize=None)
def _custom_kinds():
    kinds = {}
    for path in sorted((HERE / "crds").glob("*.json")):
        schema = json.loads(path.read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        properties = schema["properties"]
        kinds[properties["apiVersion"]["const"], properties["kind"]["const"]] = schema
    return kinds


def judge(item, kube):
    """Raises unless an object is of a known kind and has only what that kind has. Nothing unknown passes."""
    custom = _custom_kinds().get((item["apiVersion"], item["kind"]))
    try:
        if custom is not None:
            jsonschema.Draft202012Validator(custom).validate(item)
        else:
            assert "." not in item["apiVersion"].split("/")[0] or item["apiVersion"].split("/")[0].endswith(
                ".k8s.io"
            ), f"{item['apiVersion']} {item['kind']} is not of Kubernetes, and has no schema in crds/"
            kubernetes_validate.validate(item, kube, strict=True)
    except kubernetes_validate.SchemaNotFoundError as error:
        raise AssertionError(error.message) from error
    except jsonschema.ValidationError as error:
        where = "/".join(map(str, error.absolute_path))
        raise AssertionError(f"{item['kind']} {item['metadata'].get('name')}: {where}: {error.message}") from error


def write_as_mounted(folder, rendered):
    """Writes a configuration and its secrets as a pod would have them; gives the file."""
    folder = Path(folder)
    text = json.dumps(rendered)
    kind = rendered["adapter"]["kind"]
    for name in re.findall(f"file:{SECRETS}/([\\w-]+)", text):
        # No two keys may be the same.
        known = {"broker-url": URLS.get(kind), "ORDERS_SECRET": "whsec_" + base64.b64encode(KEY.encode()).decode()}
        (folder / name).write_text(known.get(name, KEY + name))
    for name in set(re.findall(r"/run/secrets/(\w+-tls)/", text)):
        _certificate(folder / name)
    path = folder / "roomcast.json"
    path.write_text(text.replace(SECRETS, str(folder)).replace("/run/secrets/", f"{folder}/"))
    return path


def _certificate(folder):
    """What is mounted for TLS: a certificate that signs itself, and as whose it takes those of others."""
    folder.mkdir(exist_ok=True)
    names = ["-subj", "/CN=chat.example", "-addext", "subjectAltName=DNS:chat.example"]
    files = ["-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run([*new, *names, *files], check=True, capture_output=True, timeout=60)
    shutil.copy(folder / "tls.crt", folder / "clients-ca.crt")


@contextlib.contextmanager
def running(folder, path):
    """A node with a configuration that listens on free ports: (its process, its log, the addresses of both listeners)."""
    log = Path(folder) / "log"
    with log.open("w") as output:
        node = subprocess.Popen([roomcast(), "serve", "--config", path], stderr=output)
    try:
        found = re.compile(r"ready: .*public=(\S+) api=(\S+)")
        until(lambda: found.search(log.read_text()), log)
        yield node, log, found.search(log.read_text()).groups()
    finally:
        node.terminate()
        try:
            node.wait(timeout=20)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()


def until(condition, log):
    """Waits for something to become true; the log says why it did not."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def roomcast():
    """The binary under test."""
    path = os.environ.get("ROOMCAST_BIN")
    assert path, "ROOMCAST_BIN names no binary: run ./tests/run helm"
    return path
