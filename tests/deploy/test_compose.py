"""The stacks for Docker Compose: read by Compose itself, and compared with what they are made of. test_stacks.py runs them."""

import json
import re
import runpy
import shutil
import stat
import subprocess
import unittest
from pathlib import Path

from support import DEPLOY, ROOT, STACKS, build_argument, folder, prepared, read_yaml, roomcast, run

CHART = ROOT / "helm" / "roomcast"
COMMON = DEPLOY / "compose"


def nodes(config):
    return {name: service for name, service in config["services"].items() if name.startswith("roomcast")}


def binds(service):
    """Where files of the host are in a service: {target: source}."""
    mounts = {volume["target"]: volume["source"] for volume in service.get("volumes", []) if volume["type"] == "bind"}
    return {target: Path(source) for target, source in mounts.items()}


class Stacks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.place = folder("compose")
        cls.addClassCleanup(cls.place.cleanup)
        cls.stacks = {stack: prepared(Path(cls.place.name) / stack, stack) for stack in STACKS}

    def services(self):
        for stack, (_, config) in self.stacks.items():
            for name, service in config["services"].items():
                yield f"{stack}/{name}", service

    def test_there_are_the_stacks_of_the_readme(self):
        self.assertEqual(STACKS, ["nats-envoy", "redis-haproxy", "single"])
        readme = (DEPLOY / "README.md").read_text()
        for stack in STACKS:
            self.assertIn(f"compose/{stack}", readme)
        self.assertEqual([len(nodes(self.stacks[stack][1])) for stack in STACKS], [3, 2, 1])

    def test_images_are_pinned(self):
        for name, service in self.services():
            self.assertRegex(service["image"], r"^[a-z/]+:v?\d+\.\d+\.\d+[a-z0-9.-]*$", name)
            if "roomcast" in name.split("/")[1]:
                self.assertEqual(service["image"], f"roomcast:{build_argument('VERSION')}")

    def test_no_service_can_do_more_than_it_has_to(self):
        for name, service in self.services():
            self.assertEqual(service["cap_drop"], ["ALL"], name)
            self.assertEqual(service["security_opt"], ["no-new-privileges:true"], name)
            self.assertEqual(service["restart"], "unless-stopped", name)
            self.assertNotIn("privileged", service)

    def test_only_clients_come_in_from_other_machines(self):
        for name, service in self.services():
            for port in service.get("ports", []):
                if port.get("host_ip") != "127.0.0.1":
                    self.assertIn(port["published"], ["80", "443", "3000"], name)

    def test_only_nodes_reach_the_broker(self):
        for stack in ("redis-haproxy", "nats-envoy"):
            config = self.stacks[stack][1]
            self.assertTrue(config["networks"]["broker"]["internal"])
            there = {name for name, service in config["services"].items() if "broker" in service["networks"]}
            self.assertEqual(there - {"redis", "nats"}, set(nodes(config)))

    def test_nodes_believe_the_balancer_and_nobody_else(self):
        for stack in ("redis-haproxy", "nats-envoy"):
            config = self.stacks[stack][1]
            (subnet,) = config["networks"]["default"]["ipam"]["config"]
            for node in nodes(config).values():
                self.assertEqual(node["environment"]["ROOMCAST__PUBLIC__TRUSTED_PROXIES"], subnet["subnet"])

    def test_secrets_are_files_and_stand_nowhere_else(self):
        for stack, (place, config) in self.stacks.items():
            secrets = {path.name: path.read_text() for path in (place / "secrets").iterdir()}
            files = {Path(secret["file"]).name for secret in config["secrets"].values()}
            self.assertLessEqual(files, set(secrets))
            for name, text in secrets.items():
                self.assertNotIn(text, json.dumps(config), f"{stack}: {name}")
                self.assertEqual(stat.S_IMODE((place / "secrets" / name).stat().st_mode), 0o444, name)
            self.assertEqual(stat.S_IMODE((place / "secrets").stat().st_mode), 0o700)
        self.assertEqual(run("git", "ls-files", "deploy/compose/*/secrets", cwd=ROOT), "")

    def test_secrets_are_made_once(self):
        place, _ = self.stacks["nats-envoy"]
        before = {path.name: path.read_bytes() for path in (place / "secrets").iterdir()}
        run(place.parent / "prepare", "nats-envoy")
        self.assertEqual({path.name: path.read_bytes() for path in (place / "secrets").iterdir()}, before)

    def test_what_is_mounted_is_there(self):
        for name, service in self.services():
            for source in binds(service).values():
                self.assertTrue(source.exists(), f"{name}: {source}")

    def test_nodes_take_their_settings(self):
        for stack, (place, config) in self.stacks.items():
            for name, node in nodes(config).items():
                text = json.dumps(node["environment"]).replace("/run/secrets", str(place / "secrets"))
                said = run(roomcast(), "check", env=json.loads(text), cwd=self.place.name)
                self.assertIn("http://0.0.0.0:3001 (1 key", said, f"{stack}/{name}")
                self.assertEqual({secret["source"] for secret in node["secrets"]} >= {"api-key"}, True)

    def test_balancers_have_the_tested_files(self):
        for stack, service, file in (
            ("redis-haproxy", "haproxy", "haproxy/sticky.cfg"),
            ("nats-envoy", "envoy", "envoy/sticky.yaml"),
        ):
            config = self.stacks[stack][1]
            balancer = config["services"][service]
            (source,) = binds(balancer).values()
            text = (DEPLOY / "load-balancers" / file).read_text()
            self.assertEqual(source.read_text(), text)
            # It finds the nodes by their names, and its certificate where the secret is.
            self.assertEqual(set(re.findall(r"roomcast-\d+", text)), set(nodes(config)))
            self.assertEqual(set(balancer["depends_on"]), set(nodes(config)))
            for secret in balancer["secrets"]:
                self.assertIn(secret["target"], text)

    def test_nats_takes_its_configuration(self):
        place, config = self.stacks["nats-envoy"]
        shutil.copy(place / "secrets" / "nats-auth.conf", place / "auth.conf")
        said = subprocess.run(["nats-server", "-t", "-c", place / "nats.conf"], capture_output=True, text=True)
        self.assertEqual(said.returncode, 0, said.stderr)


class Monitoring(unittest.TestCase):
    def test_the_alerts_are_those_of_the_chart(self):
        rendered = runpy.run_path(str(COMMON / "prometheus" / "render"))["rendered"]()
        self.assertEqual((COMMON / "prometheus" / "alerts.yaml").read_text(), rendered, "run deploy/compose/prometheus/render")
        self.assertNotRegex(rendered, "SERIES|MAX_CONNECTIONS")
        run("promtool", "check", "rules", COMMON / "prometheus" / "alerts.yaml")

    def test_prometheus_reads_every_node(self):
        for stack in STACKS:
            with folder("prometheus") as place:
                for file in (COMMON / stack / "prometheus.yaml", COMMON / "prometheus" / "alerts.yaml"):
                    shutil.copy(file, place)
                run("promtool", "check", "config", Path(place) / "prometheus.yaml")
            (job,) = read_yaml(COMMON / stack / "prometheus.yaml")["scrape_configs"]
            targets = {target for group in job["static_configs"] for target in group["targets"]}
            services = read_yaml(COMMON / stack / "compose.yaml")["services"]
            self.assertEqual(targets, {f"{name}:3001" for name in services if name.startswith("roomcast")})
            for group in job["static_configs"]:
                self.assertEqual(f"{group['labels']['pod']}:3001", group["targets"][0])

    def test_grafana_gets_the_dashboards_of_the_chart(self):
        grafana = read_yaml(COMMON / "common.yaml")["services"]["grafana"]
        mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
        mounts = {target: (COMMON / source).resolve() for source, target in mounts.items()}
        provisioning = mounts["/etc/grafana/provisioning"]
        (provider,) = read_yaml(provisioning / "dashboards" / "roomcast.yaml")["providers"]
        self.assertEqual(mounts[provider["options"]["path"]], CHART / "dashboards")
        home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
        self.assertTrue((mounts[str(home.parent)] / home.name).exists())
        (source,) = read_yaml(provisioning / "datasources" / "prometheus.yaml")["datasources"]
        self.assertEqual((source["type"], source["url"]), ("prometheus", "http://prometheus:9090"))
