"""What Prometheus and Grafana get: monitors, alerts with a test and a runbook each, dashboards. Every expression is read
by promtool, and every metric and label in it is one that Roomcast has."""

import functools
import json
import re
import subprocess
import tempfile
import unittest
import urllib.request
from pathlib import Path

import yaml

from support import (
    CHART,
    DOCS,
    HERE,
    HERE_AND_NOW,
    NAME,
    NAMESPACE,
    REDIS,
    RELEASE,
    TLS,
    config,
    every,
    find,
    merged,
    render,
    running,
)

# What Prometheus itself puts on every series of the monitors. A label `namespace` of Roomcast's own is renamed by it.
TARGET_LABELS = {"namespace", "job", "pod", "exported_namespace"}
# Series that Prometheus makes of each target.
OF_PROMETHEUS = {"up"}
DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))


def promtool(*args):
    return subprocess.run(["promtool", *map(str, args)], capture_output=True, text=True, timeout=120)


def rules(values=None):
    """The groups of the PrometheusRule."""
    enabled = {"metrics": {"prometheusRule": {"enabled": True}}}
    return find(render(merged(REDIS, enabled, values or {})), "PrometheusRule")["spec"]["groups"]


def alerts(values=None):
    return {rule["alert"]: rule for group in rules(values) for rule in group["rules"]}


def panels():
    """Every panel that asks for something: (dashboard, title, expressions)."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            targets = [target["expr"] for target in panel.get("targets", [])]
            if targets:
                yield path.stem, panel["title"], targets


def as_promql(expression):
    """An expression of a dashboard, with what Grafana puts in."""
    for variable, text in (("$namespace", "n"), ("$job", "j"), ("$pod", ".*"), ("$__rate_interval", "1m")):
        expression = expression.replace(variable, text)
    return expression


def expressions():
    """All of the chart: (where, expression)."""
    for name, rule in alerts().items():
        yield name, rule["expr"]
    for dashboard, title, targets in panels():
        for target in targets:
            yield f"{dashboard}: {title}", as_promql(target)


class Monitors(unittest.TestCase):
    def test_the_service_monitor_finds_the_api_once(self):
        values = merged(REDIS, {"metrics": {"serviceMonitor": {"enabled": True}}, "service": {"api": {"headless": True}}})
        objects = render(values)
        spec = find(objects, "ServiceMonitor")["spec"]
        selected = [
            service
            for service in every(objects, "Service")
            if spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        ]
        self.assertEqual([service["metadata"]["name"] for service in selected], [f"{NAME}-api"])
        (endpoint,) = spec["endpoints"]
        self.assertEqual((endpoint["port"], endpoint["path"]), (selected[0]["spec"]["ports"][0]["name"], "/metrics"))
        self.assertEqual(selected[0]["metadata"]["labels"][spec["jobLabel"]], RELEASE)

    def test_the_pod_monitor_finds_the_pods(self):
        objects = render(merged(REDIS, {"metrics": {"podMonitor": {"enabled": True}}}))
        spec = find(objects, "PodMonitor")["spec"]
        template = find(objects, "Deployment")["spec"]["template"]
        labels = template["metadata"]["labels"]
        self.assertLessEqual(spec["selector"]["matchLabels"].items(), labels.items())
        # Not the pod of `helm test`.
        test = find(objects, "Pod")["metadata"]["labels"]
        self.assertFalse(spec["selector"]["matchLabels"].items() <= test.items())
        (endpoint,) = spec["podMetricsEndpoints"]
        ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
        self.assertIn(endpoint["port"], ports)
        self.assertEqual(labels[spec["jobLabel"]], RELEASE)

    def test_settings(self):
        settings = {
            "enabled": True,
            "interval": "45s",
            "scrapeTimeout": "20s",
            "labels": {"release": "prometheus"},
            "relabelings": [{"action": "labeldrop", "regex": "endpoint"}],
            "metricRelabelings": [{"action": "drop", "regex": "roomcast_x", "sourceLabels": ["__name__"]}],
        }
        for kind, key, endpoints in (
            ("ServiceMonitor", "serviceMonitor", "endpoints"),
            ("PodMonitor", "podMonitor", "podMetricsEndpoints"),
        ):
            item = find(render(merged(REDIS, {"metrics": {key: settings}})), kind)
            self.assertEqual(item["metadata"]["labels"]["release"], "prometheus")
            (endpoint,) = item["spec"][endpoints]
            for name in ("interval", "scrapeTimeout", "relabelings", "metricRelabelings"):
                self.assertEqual(endpoint[name], settings[name])

    def test_they_speak_tls_where_the_api_does(self):
        for kind, key, endpoints in (
            ("ServiceMonitor", "serviceMonitor", "endpoints"),
            ("PodMonitor", "podMonitor", "podMetricsEndpoints"),
        ):

            def endpoint(*more):
                values = merged(REDIS, {"metrics": {key: {"enabled": True}}}, *more)
                return find(render(values), kind)["spec"][endpoints][0]

            self.assertEqual(set(endpoint()) & {"scheme", "tlsConfig"}, set())
            self.assertNotIn("scheme", endpoint({"tls": {"public": TLS["public"]}}))
            encrypted = endpoint({"tls": TLS})
            self.assertEqual(encrypted["scheme"], "https")
            # By the authority that cert-manager writes beside the certificate, under the name of the Service.
            ca = {"secret": {"name": "api", "key": "ca.crt"}}
            expected = {"ca": ca, "serverName": f"{NAME}-api.{NAMESPACE}.svc"}
            self.assertEqual(encrypted["tlsConfig"], expected)
            own = {"insecureSkipVerify": True}
            own_way = endpoint({"tls": TLS, "metrics": {key: {"tlsConfig": own}}})
            self.assertEqual(own_way["tlsConfig"], own)

    def test_off_by_default(self):
        kinds = {item["kind"] for item in render(REDIS)}
        self.assertFalse(kinds & {"ServiceMonitor", "PodMonitor", "PrometheusRule"})


class Alerts(unittest.TestCase):
    def test_each_has_a_severity_a_text_and_a_runbook(self):
        base = "https://docs.example/runbooks/"
        found = alerts({"metrics": {"prometheusRule": {"runbookUrl": base}}})
        self.assertGreaterEqual(len(found), 20)
        for name, rule in found.items():
            self.assertRegex(name, r"^Roomcast[A-Z]\w+$")
            self.assertIn(rule["labels"]["severity"], ("critical", "warning", "info"), name)
            self.assertEqual(set(rule["annotations"]), {"summary", "description", "runbook_url"}, name)
            self.assertEqual(rule["annotations"]["runbook_url"], f"{base}{name}.md")

    def test_each_runbook_has_an_alert_and_is_listed(self):
        pages = {path.stem for path in (DOCS / "runbooks").glob("*.md")}
        self.assertEqual(pages, set(alerts()))
        listed = re.findall(r"\(runbooks/(\w+)\.md\)", (DOCS / "kubernetes.md").read_text())
        self.assertEqual(sorted(listed), sorted(pages))
        for page in pages:
            text = (DOCS / "runbooks" / f"{page}.md").read_text()
            self.assertTrue(text.startswith(f"# {page}\n"), page)
            for heading in ("## What it means", "## What to do"):
                self.assertIn(heading, text, page)

    def test_links_of_the_runbooks_lead_somewhere(self):
        for path in [*(DOCS / "runbooks").glob("*.md"), DOCS / "kubernetes.md"]:
            for link, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", path.read_text()):
                target = (path.parent / link) if link else path
                self.assertTrue(target.exists(), f"{path.name}: {link}")
                if anchor:
                    headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
                    slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
                    self.assertIn(anchor, slugs, f"{path.name}: {link}")

    def test_they_mean_this_release_alone(self):
        series = f'namespace="{NAMESPACE}",job="{RELEASE}"'
        for name, rule in alerts().items():
            self.assertNotIn("SERIES", rule["expr"], name)
            selectors = re.findall(r"\b(?:roomcast_\w+|up|process_\w+)\b(\{[^}]*\})?", rule["expr"])
            self.assertTrue(selectors, name)
            for selector in selectors:
                self.assertIn(series, selector, name)

    def test_the_limit_of_connections_is_that_of_the_configuration(self):
        name = "RoomcastConnectionsNearLimit"
        self.assertIn("> 0.85 * 100000", alerts()[name]["expr"])
        few = alerts({"config": {"public": {"max_connections": 2000000}}})[name]
        self.assertIn("> 0.85 * 2000000", few["expr"])
        self.assertIn("of 2000000", few["annotations"]["summary"])

    def test_settings(self):
        settings = {"labels": {"release": "p"}, "alertLabels": {"team": "rt"}, "disabled": ["RoomcastOriginsRefused"]}
        found = alerts({"metrics": {"prometheusRule": settings}})
        self.assertEqual(set(alerts()) - set(found), {"RoomcastOriginsRefused"})
        self.assertTrue(all(rule["labels"]["team"] == "rt" for rule in found.values()))
        item = find(
            render(merged(REDIS, {"metrics": {"prometheusRule": {"enabled": True, **settings}}})), "PrometheusRule"
        )
        self.assertEqual(item["metadata"]["labels"]["release"], "p")

    def test_promtool_reads_them(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rules.yaml"
            file.write_text(yaml.safe_dump({"groups": rules()}))
            result = promtool("check", "rules", file)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_each_fires_when_it_should_and_not_otherwise(self):
        cases = yaml.safe_load((HERE / "alerts.yaml").read_text())
        self.assertEqual(set(cases), set(alerts()))
        common = f'namespace="{NAMESPACE}",job="{RELEASE}"'
        tests = []
        for name, case in cases.items():
            for kind in ("fires", "quiet"):
                self.assertTrue(case[kind], f"{name} has no case for {kind}")
                for number, one in enumerate(case[kind]):
                    expected = one.get("firing", [])
                    self.assertEqual(bool(expected), kind == "fires", name)
                    labels = [{"alertname": name, "alertstate": "firing", **more} for more in expected]
                    matchers = [",".join(f'{key}="{value}"' for key, value in each.items()) for each in labels]
                    all_of_it = f'count(ALERTS{{alertname="{name}",alertstate="firing"}})'
                    checks = [(all_of_it, len(expected))] + [(f"count(ALERTS{{{each}}})", 1) for each in matchers]
                    tests.append(
                        {
                            "name": f"{name} {kind} {number}",
                            "interval": "1m",
                            "input_series": [
                                {"series": series.replace("{", f"{{{common},"), "values": str(values)}
                                for series, values in one["series"].items()
                            ],
                            "promql_expr_test": [
                                {
                                    "expr": expression,
                                    "eval_time": one["at"],
                                    "exp_samples": [{"labels": "{}", "value": count}] if count else [],
                                }
                                for expression, count in checks
                            ],
                        }
                    )
        with tempfile.TemporaryDirectory() as folder:
            groups = rules({"config": {"public": {"max_connections": 1000}}})
            (Path(folder) / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
            file = Path(folder) / "tests.yaml"
            file.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests}))
            result = promtool("test", "rules", file)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


class Dashboards(unittest.TestCase):
    def test_each_is_a_config_map_that_grafana_finds(self):
        settings = {"enabled": True, "labels": {"own": "yes"}, "annotations": {"grafana_folder": "Roomcast"}}
        objects = render(merged(REDIS, {"metrics": {"dashboards": settings}}))
        for path in DASHBOARDS:
            item = find(objects, "ConfigMap", f"{NAME}-dashboard-{path.stem}")
            labels = item["metadata"]["labels"]
            self.assertEqual((labels["grafana_dashboard"], labels["own"]), ("1", "yes"))
            self.assertEqual(item["metadata"]["annotations"], {"grafana_folder": "Roomcast"})
            ((file, text),) = item["data"].items()
            self.assertEqual(file, f"roomcast-{path.name}")
            self.assertEqual(json.loads(text), json.loads(path.read_text()))
        self.assertEqual(len(every(render(REDIS), "ConfigMap")), 1)

    def test_they_are_well_formed(self):
        boards = [json.loads(path.read_text()) for path in DASHBOARDS]
        self.assertEqual(len({board["uid"] for board in boards}), len(boards))
        for board in boards:
            ids = [panel["id"] for panel in board["panels"]]
            self.assertEqual(len(ids), len(set(ids)))
            variables = {variable["name"] for variable in board["templating"]["list"]}
            taken = set()
            for panel in board["panels"]:
                at = panel["gridPos"]
                self.assertLessEqual(at["x"] + at["w"], 24)
                cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
                self.assertFalse(cells & taken, f"{board['title']}: {panel['title']} lies on another panel")
                taken |= cells
                if panel["type"] == "row":
                    continue
                self.assertEqual(panel["datasource"]["uid"], "${datasource}")
                self.assertTrue(panel["targets"], panel["title"])
                for target in panel["targets"]:
                    used = set(re.findall(r"\$(\w+)", target["expr"])) - {"__rate_interval"}
                    self.assertLessEqual(used, variables, panel["title"])
                    self.assertLessEqual({"namespace", "job"}, used, panel["title"])

    def test_promtool_reads_every_expression(self):
        recorded = [
            {"record": f"panel:{index}", "expr": as_promql(target)}
            for index, target in enumerate(target for _, _, targets in panels() for target in targets)
        ]
        self.assertGreater(len(recorded), 60)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rules.yaml"
            file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": recorded}]}))
            result = promtool("check", "rules", file)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


@functools.lru_cache(maxsize=None)
def exported():
    """What a node exports: each metric's labels, and their values. Histograms by their name and by those of their series."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "roomcast.json"
        path.write_text(json.dumps(merged(config(), HERE_AND_NOW)))
        with running(folder, path) as (_, _, (_, api)):
            with urllib.request.urlopen(f"http://{api}/metrics", timeout=10) as answer:
                page = answer.read().decode()
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    metrics = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? ", page, re.M):
        known = metrics.setdefault(name, {})
        for label, value in re.findall(r'(\w+)="([^"]*)"', labels):
            known.setdefault(label, set()).add(value)
    return metrics


@functools.lru_cache(maxsize=None)
def documented():
    """The names in docs/operations/metrics.md, which a test of the gateway compares with the code, and what stands beside
    each in its row."""
    rows = {}
    for line in (DOCS / "metrics.md").read_text().splitlines():
        if line.startswith("| `"):
            first, rest = line[1:].split("|", 1)
            for name in re.findall(r"`(\w+)`", first):
                rows[name] = set(re.findall(r"`(\w+)`", rest))
    return rows


class Metrics(unittest.TestCase):
    """Alerts and dashboards ask for what is there."""

    def test_every_metric_exists(self):
        for where, expression in expressions():
            for name in re.findall(r"\b(?:roomcast_|process_)\w+", expression):
                family = re.sub(r"_(bucket|sum|count)$", "", name)
                self.assertIn(family, documented(), where)

    def test_every_label_exists(self):
        for where, expression in expressions():
            selectors = re.findall(r"\b(roomcast_\w+|process_\w+|up)\{([^}]*)\}", expression)
            labels = set(TARGET_LABELS)
            for name, matchers in selectors:
                labels |= self.labels(name)
                for label, operator, value in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', matchers):
                    self.assertIn(label, self.labels(name) | TARGET_LABELS, f"{where}: {name}")
                    known = exported().get(name, {}).get(label)
                    if known and operator in ("=", "!=") and label not in TARGET_LABELS:
                        self.assertIn(value, known, f"{where}: {name}")
            for grouped in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
                for label in grouped.split(", "):
                    self.assertIn(label, labels, where)

    def labels(self, name):
        if name in OF_PROMETHEUS:
            return set()
        if name in exported():
            return set(exported()[name])
        # A series that appears with its first event: what its row names.
        return documented()[re.sub(r"_(bucket|sum|count)$", "", name)] | {"le"}

    def test_the_page_has_what_the_dashboards_need_to_choose(self):
        # label_values(roomcast_build_info, ...)
        self.assertIn("roomcast_build_info", exported())
        self.assertIn("namespace", exported()["roomcast_sockets"])


if __name__ == "__main__":
    unittest.main()
