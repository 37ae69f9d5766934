"""The unit: read by systemd itself, and what it forbids is nothing that Roomcast does."""

import os
import re
import signal
import subprocess
import unittest
import urllib.request
from pathlib import Path

from support import DEPLOY, child_named, folder, free_port, read_yaml, roomcast, run, until

UNIT = DEPLOY / "systemd" / "roomcast.service"
# systemd's own measure, from 0 to 10: the less, the less the service can do.
EXPOSURE = 1.5


class Unit(unittest.TestCase):
    def settings(self, name):
        return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.M)

    def test_systemd_understands_all_of_it(self):
        with folder("unit") as place:
            # It looks for the program.
            unit = Path(place) / "roomcast.service"
            unit.write_text(UNIT.read_text().replace("/usr/local/bin/roomcast", roomcast()))
            said = subprocess.run(
                ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", unit], capture_output=True, text=True
            )
        self.assertEqual((said.returncode, said.stdout + said.stderr), (0, ""))

    def test_it_can_do_little(self):
        threshold = f"--threshold={int(EXPOSURE * 10)}"
        run("systemd-analyze", "security", "--offline=true", "--no-pager", threshold, UNIT)

    def test_the_example_configuration_is_one(self):
        example = DEPLOY / "systemd"
        environment = dict(
            line.split("=", 1) for line in (example / "environment").read_text().splitlines() if line and line[0] != "#"
        )
        said = run(roomcast(), "check", "--config", example / "roomcast.toml", env=environment)
        self.assertIn("configuration ok", said)

    def test_no_system_call_of_a_node_is_filtered(self):
        allowed = self.allowed_calls()
        with folder("calls") as place:
            trace = Path(place) / "trace"
            public, api = free_port(), free_port()
            env = {"ROOMCAST__PUBLIC__LISTEN": f"127.0.0.1:{public}", "ROOMCAST__API__LISTEN": f"127.0.0.1:{api}"}
            command = ["strace", "-f", "-qq", "-o", trace, "-e", "signal=none", roomcast()]
            node = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
            try:
                until(lambda: answers(f"http://127.0.0.1:{api}/readyz"), "ready node")
                for path in ("socket.io/?EIO=4&transport=polling", "socket.io/socket.io.js"):
                    self.assertTrue(answers(f"http://127.0.0.1:{public}/{path}"))
                self.assertTrue(answers(f"http://127.0.0.1:{api}/metrics"))
            finally:
                os.kill(child_named(node.pid, "roomcast"), signal.SIGTERM)
                node.wait(timeout=60)
            used = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.M))
        # The first one is the tracer's, and not the service's: systemd makes it before its filter.
        self.assertLessEqual(used - {"execve"}, allowed)
        self.assertIn("epoll_wait", used)

    def allowed_calls(self):
        """What SystemCallFilter= comes to, by systemd's own sets."""
        allowed = set()
        for setting in self.settings("SystemCallFilter"):
            calls = {call for name in setting.removeprefix("~").split() for call in calls_of(name)}
            allowed = allowed - calls if setting.startswith("~") else allowed | calls
        return allowed

    def test_it_is_killed_later_than_anybody_else_would(self):
        compose = read_yaml(DEPLOY / "compose" / "common.yaml")["services"]["roomcast"]["stop_grace_period"]
        (stop,) = self.settings("TimeoutStopSec")
        self.assertGreaterEqual(int(stop.removesuffix("s")), int(compose.removesuffix("s")))


def calls_of(name):
    """The calls of a set of systemd, with those of the sets in it."""
    if not name.startswith("@"):
        return {name}
    calls = set()
    for line in run("systemd-analyze", "syscall-filter", "--no-pager", name).splitlines()[1:]:
        line = line.strip()
        if line and not line.startswith("#"):
            calls |= calls_of(line)
    return calls


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False
