"""Runs a stack for Docker Compose without an engine, and uses it: `stack.py FOLDER CONFIG`, where the second is what
`docker-compose config --format json` said. test_stacks.py starts it in namespaces of its own for mounts, network and
processes, so that ports, paths and names are those of the stack, and nothing is left behind.

A service is the program of this machine instead of the one in the image. It has a root with the files that the stack mounts
into it, another user than root, no capabilities, and an address of its own under the service's name. Grafana is left out: there
is no package of it."""

import json
import os
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

# What the images that bring no command in the stack's file run.
DEFAULTS = {
    "roomcast": ["/programs/roomcast", "serve"],
    "haproxy": ["haproxy", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"],
    "prom/prometheus": ["prometheus"],
}
# Programs that another user may not reach where they are: {name: the variable that names them}.
PROGRAMS = {"roomcast": "ROOMCAST_BIN", "envoy": "ENVOY_BIN"}
# Nobody's: a user without rights.
USER = "65534"


def sh(*command):
    subprocess.run(list(map(str, command)), check=True)


class Stack:
    def __init__(self, place, config):
        self.place = Path(place)
        self.config = config
        self.services = {name: service for name, service in config["services"].items() if name != "grafana"}
        self.addresses = {name: f"127.0.0.{number}" for number, name in enumerate(self.services, 10)}
        self.processes = {}
        sh("ip", "link", "set", "lo", "up")
        # As in a container: ports below 1024 are anybody's.
        Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")

    def start(self):
        """Each service when those that it depends on are healthy."""
        waiting = dict(self.services)
        while waiting:
            ready = [name for name, service in waiting.items() if not set(service.get("depends_on", {})) & set(waiting)]
            for name in ready:
                service = waiting.pop(name)
                for other, how in service.get("depends_on", {}).items():
                    assert how["condition"] == "service_healthy"
                    self.until(lambda other=other: self.healthy(other), f"healthy {other}")
                self.processes[name] = self.launch(name, service)

    def launch(self, name, service):
        image = service["image"].rsplit(":", 1)[0]
        command = service.get("command") or []
        command = [part.replace("$$", "$") for part in command]
        if image in DEFAULTS:
            command = [*DEFAULTS[image], *command]
        log = open(self.place / f"{name}.log", "w")
        return subprocess.Popen(self.inside(name, command), stdout=log, stderr=log)

    def environment(self, name):
        """The service's own, but nodes listen at their address alone: all of them are in one network here."""
        environment = dict(self.services[name].get("environment") or {})
        if name.startswith("roomcast"):
            environment["ROOMCAST__PUBLIC__LISTEN"] = f"{self.addresses[name]}:3000"
            environment["ROOMCAST__API__LISTEN"] = f"{self.addresses[name]}:3001"
        return environment

    def inside(self, name, command):
        """The command line that runs a command as the service's container would."""
        root = self.place / "roots" / name
        if not root.exists():
            self.make_root(name, root)
        environment = [f"{key}={value}" for key, value in self.environment(name).items()]
        path = "PATH=/programs:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        rights = ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups", "--bounding-set=-all", "--no-new-privs"]
        return ["chroot", str(root), *rights, "env", "-i", "-C", "/etc/roomcast", path, *environment, *command]

    def make_root(self, name, root):
        root.mkdir(parents=True)
        sh("mount", "-t", "tmpfs", "root", root)
        for entry in Path("/").iterdir():
            place = root / entry.name
            if entry.is_symlink():
                place.symlink_to(os.readlink(entry))
            elif entry.name in ("bin", "dev", "lib", "lib64", "proc", "sbin", "sys", "usr", "var"):
                place.mkdir()
                sh("mount", "--rbind", entry, place)
        sh("cp", "-a", "/etc", root / "etc")
        sh("mount", "-t", "tmpfs", "etc", root / "usr" / "local" / "etc")
        names = "".join(f"{address} {service}\n" for service, address in self.addresses.items())
        (root / "etc" / "hosts").write_text(f"127.0.0.1 localhost\n{names}")
        (root / "etc" / "resolv.conf").unlink(missing_ok=True)
        (root / "etc" / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        (root / "etc" / "roomcast").mkdir(exist_ok=True)
        (root / "tmp").mkdir(mode=0o1777)
        for program, variable in PROGRAMS.items():
            self.bind(os.environ[variable], root / "programs" / program)
        service = self.services[name]
        for volume in service.get("volumes", []):
            target = root / volume["target"].lstrip("/")
            if volume["type"] == "bind":
                self.bind(volume["source"], target)
            else:
                target.mkdir(parents=True, exist_ok=True)
                target.chmod(0o777)
        for secret in service.get("secrets", []):
            target = secret.get("target") or secret["source"]
            target = target if target.startswith("/") else f"/run/secrets/{target}"
            self.bind(self.config["secrets"][secret["source"]]["file"], root / target.lstrip("/"))

    def bind(self, source, target):
        source = Path(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.mkdir(exist_ok=True) if source.is_dir() else target.touch()
        sh("mount", "--bind", source, target)

    def healthy(self, name):
        """The health check of the stack, or, for nodes, that of the image."""
        process = self.processes[name]
        assert process.poll() is None, f"{name} ended: {(self.place / f'{name}.log').read_text()}"
        check = self.services[name].get("healthcheck", {}).get("test", ["CMD", "roomcast", "healthcheck"])
        kind, *command = check
        if kind == "CMD-SHELL":
            command = ["sh", "-c", command[0].replace("$$", "$")]
        return subprocess.run(self.inside(name, command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0

    def until(self, condition, what):
        deadline = time.monotonic() + 60
        while not condition():
            logs = "".join(f"{path.name}: {path.read_text()[-2000:]}\n" for path in self.place.glob("*.log"))
            assert time.monotonic() < deadline, f"no {what}\n{logs}"
            time.sleep(0.05)

    def use(self):
        """What the stack is for: clients come in, a backend reaches them at any node, and Prometheus sees all of it."""
        nodes = [name for name in self.services if name.startswith("roomcast")]
        behind_tls = "roomcast" not in self.services
        base = "https://localhost" if behind_tls else f"http://{self.addresses['roomcast']}:3000"
        context = ssl.create_default_context(cafile=self.config["secrets"]["certificate"]["file"]) if behind_tls else None
        clients = {}

        def every_node_has_a_client():
            # Balancers find out at different times that a node is ready.
            client = Client(base, context)
            if client.try_to_connect() and clients.setdefault(client.node, client) is not client:
                client.close()
            return len(clients) == len(nodes)

        self.until(every_node_has_a_client, f"client at each of {nodes}")
        clients = clients.values()
        for client in clients:
            client.join("lobby")

        key = Path(self.config["secrets"]["api-key"]["file"]).read_text()
        for name in nodes:
            api = f"http://{self.addresses[name]}:3001"
            event = {"event": "news", "args": [name], "to": {"rooms": ["lobby"]}}
            assert ask(f"{api}/v1/emit", body=event)[0] == 401
            status, _, answer = ask(f"{api}/v1/emit", body=event, headers={"authorization": f"Bearer {key}"})
            assert status == 202, answer
        for client in clients:
            client.receive({f'42["news","{name}"]' for name in nodes})
            client.close()

        prometheus = f"http://{self.addresses['prometheus']}:9090"
        # It has no health that anybody waits for.
        self.until(lambda: answers(f"{prometheus}/-/ready"), "Prometheus")
        up = urllib.request.quote('count(up{namespace="compose",job="roomcast"} == 1)')
        seen = lambda: json.loads(ask(f"{prometheus}/api/v1/query?query={up}")[2])["data"]["result"]
        self.until(lambda: [result["value"][1] for result in seen()] == [str(len(nodes))], "metrics of every node")
        groups = json.loads(ask(f"{prometheus}/api/v1/rules")[2])["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert len(rules) > 20 and all(rule["health"] in ("ok", "unknown") for rule in rules), rules

    def stop(self):
        """The nodes end by themselves when they are told to; what else runs ends with the namespace."""
        nodes = {name: process for name, process in self.processes.items() if name.startswith("roomcast")}
        for process in nodes.values():
            process.terminate()
        for name, process in nodes.items():
            status = process.wait(timeout=60)
            assert status == 0, f"{name} ended with {status}"


class Client:
    """Long-polling by hand, with the balancer's cookie."""

    def __init__(self, base, context):
        self.url = f"{base}/socket.io/?EIO=4&transport=polling"
        self.context, self.headers, self.received = context, {}, set()

    def ask(self, body=None):
        return ask(self.url, body=body, headers=self.headers, context=self.context)

    def try_to_connect(self):
        try:
            status, headers, answer = self.ask()
        except OSError:
            return False
        if status != 200:
            return False
        sid = json.loads(answer[1:])["sid"]
        self.url += f"&sid={sid}"
        if "set-cookie" in headers:
            self.headers = {"cookie": headers["set-cookie"].split(";")[0]}
        assert self.ask("40")[0] == 200
        self.poll_until(lambda: any(packet.startswith("40") for packet in self.received))
        # Ids begin with the node's tag.
        self.node = sid[:4]
        return True

    def join(self, room):
        assert self.ask(f'420["room:join","{room}"]')[0] == 200
        self.poll_until(lambda: '430[{"ok":true}]' in self.received)

    def receive(self, packets):
        self.poll_until(lambda: packets <= self.received)

    def close(self):
        assert self.ask("1")[0] == 200

    def poll_until(self, condition):
        while not condition():
            status, _, answer = self.ask()
            assert status == 200, answer
            self.received |= set(answer.split("\x1e"))
            if "2" in self.received:
                self.received.discard("2")
                assert self.ask("3")[0] == 200


def ask(url, body=None, headers=(), context=None):
    """One request: (status, headers, text)."""
    data = body if body is None or isinstance(body, str) else json.dumps(body)
    request = urllib.request.Request(url, data=data and data.encode(), headers=dict(headers))
    if not isinstance(body, str):
        request.add_header("content-type", "application/json")
    try:
        answer = urllib.request.urlopen(request, timeout=60, context=context)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, {key.lower(): value for key, value in answer.headers.items()}, answer.read().decode()


def answers(url):
    try:
        return ask(url)[0] == 200
    except OSError:
        return False


if __name__ == "__main__":
    stack = Stack(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
    stack.start()
    stack.use()
    stack.stop()
