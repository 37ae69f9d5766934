"""What the tests of deploy/ share: where things are, and how the tools are called. Nothing here talks to a container
engine: there is none."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DEPLOY = ROOT / "deploy"
STACKS = sorted(path.parent.name for path in (DEPLOY / "compose").glob("*/compose.yaml"))
# Tools that came in wheels.
TOOLS = Path(sys.executable).parent


def run(*command, **options):
    """Runs a program to its end, and raises with what it said unless it ended well."""
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **options)
    assert result.returncode == 0, f"{command[0]} ended with {result.returncode}: {result.stdout}{result.stderr}"
    return result.stdout


def roomcast():
    """The binary under test."""
    path = os.environ.get("ROOMCAST_BIN")
    assert path, "ROOMCAST_BIN names no binary: run ./tests/run deploy"
    return path


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(condition, what):
    """Waits for something to become true."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.05)


def child_named(parent, name):
    """The process of a name among those that a process started, and those that they started."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, rest = stat.read_text().split(" (", 1)
            comm, fields = rest.rsplit(") ", 1)
            above = int(fields.split()[1])
            if comm == name and (above == parent or child_of(above, parent)):
                return int(pid)
    raise AssertionError(f"{parent} has started no {name}")


def child_of(pid, parent):
    while pid > 1:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[1])
        if pid == parent:
            return True
    return False


def dockerfile():
    """The instructions of the Dockerfile, as [stage, ...], each a list of lines."""
    stages = [[]]
    for line in (DEPLOY / "Dockerfile").read_text().splitlines(keepends=True):
        if line.startswith("FROM "):
            stages.append([])
        stages[-1].append(line)
    return stages


def build_argument(name):
    """The default of a build argument of the Dockerfile."""
    (line,) = [line for stage in dockerfile() for line in stage if line.startswith(f"ARG {name}=")]
    return line.split("=", 1)[1].strip().strip('"')


def workspace():
    """What cargo says of the workspace alone."""
    return json.loads(run("cargo", "metadata", "--locked", "--no-deps", "--format-version", "1", cwd=ROOT))


def prepared(place, stack):
    """A copy of the tree with the secrets of a stack: (the folder of the stack, what Compose makes of it)."""
    for part in ("deploy", "helm/roomcast"):
        shutil.copytree(ROOT / part, Path(place) / part, ignore=shutil.ignore_patterns("secrets"))
    compose = Path(place) / "deploy" / "compose"
    run(compose / "prepare", stack)
    said = run(TOOLS / "docker-compose", "--file", compose / stack / "compose.yaml", "config", "--format", "json")
    return compose / stack, json.loads(said)


def read_yaml(path):
    return yaml.safe_load(Path(path).read_text())


def folder(prefix):
    """A folder that goes with its test: a context manager."""
    return tempfile.TemporaryDirectory(prefix=f"roomcast-{prefix}-")
