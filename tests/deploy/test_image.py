"""The image: the Dockerfile by hadolint, and its last stage built and run for real, with the binary under test in it. The
stage before it needs an image that cannot be had here, and does what `cargo build` does."""

import contextlib
import json
import os
import re
import signal
import subprocess
import unittest
import urllib.request
from pathlib import Path

from support import (
    DEPLOY,
    ROOT,
    TOOLS,
    build_argument,
    child_named,
    dockerfile,
    folder,
    free_port,
    read_yaml,
    roomcast,
    run,
    until,
    workspace,
)

# What the build reads: all that git has of these.
SOURCES = ["Cargo.toml", "Cargo.lock", "LICENSE*", "adapter", "gateway", "protocol"]
# Members of the workspace are read, too, even if nothing is built of them.
SOURCES += ["tests/Cargo.toml", "tests/src", "tests/instructions", "tests/scale"]


class Buildah:
    """Images and containers in a folder of their own, without namespaces and without a network of their own."""

    def __init__(self, place):
        self.place = Path(place)
        self.command = ["buildah", "--root", self.place / "store", "--runroot", self.place / "run", "--storage-driver", "vfs"]

    def __call__(self, *args, **options):
        return run(*self.command, *args, **options)

    def build(self, context, instructions, *args):
        file = self.place / "Dockerfile"
        file.write_text(instructions)
        self("bud", "--isolation", "chroot", "--format", "docker", "-f", file, "-t", "roomcast", *args, context)

    def in_container(self, *args, env=()):
        """The command line of what runs in a container of the image."""
        settings = [part for setting in env for part in ("--env", setting)]
        return [*map(str, self.command), "run", "--isolation", "chroot", *settings, "roomcast-working-container", "--", *args]


class Dockerfile(unittest.TestCase):
    def test_hadolint_finds_nothing(self):
        self.assertEqual(run(TOOLS / "hadolint", DEPLOY / "Dockerfile"), "")

    def test_the_base_and_the_tools_are_pinned(self):
        text = (DEPLOY / "Dockerfile").read_text()
        self.assertRegex(build_argument("RUST_VERSION"), r"^\d+\.\d+\.\d+$")
        self.assertRegex(text, r"cargo-cyclonedx@\d+\.\d+\.\d+")
        self.assertIn("--locked --package roomcast", text)
        (package,) = [package for package in workspace()["packages"] if package["name"] == "roomcast"]
        wanted = tuple(map(int, package["rust_version"].split(".")))
        self.assertGreaterEqual(tuple(map(int, build_argument("RUST_VERSION").split("."))), wanted)

    def test_the_version_and_the_features_are_those_of_the_crate(self):
        (package,) = [package for package in workspace()["packages"] if package["name"] == "roomcast"]
        self.assertEqual(build_argument("VERSION"), package["version"])
        for feature in filter(None, build_argument("FEATURES").split(",")):
            self.assertIn(feature, package["features"])

    def test_the_context_has_the_sources_and_nothing_else(self):
        with folder("context") as place:
            buildah = Buildah(place)
            buildah.build(ROOT, "FROM scratch\nCOPY . /\n", "--ignorefile", ROOT / ".dockerignore")
            buildah("from", "roomcast")
            mounted = Path(buildah("mount", "roomcast-working-container").strip())
            members = json.loads(run("cargo", "metadata", "--locked", "--no-deps", "--format-version", "1", cwd=mounted))
            self.assertEqual(len(members["workspace_members"]), len(workspace()["workspace_members"]))
            found = {str(path.relative_to(mounted)) for path in mounted.rglob("*") if path.is_file()}
        tracked = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *SOURCES, cwd=ROOT).split("\n")
        expected = {path for path in tracked if path and (ROOT / path).exists()}
        self.assertEqual(found, expected | {"deploy/bill-of-materials", "deploy/image-root"})


class Image(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = contextlib.ExitStack()
        cls.addClassCleanup(cls.stack.close)
        place = cls.stack.enter_context(folder("image"))
        built = Path(place) / "built"
        run(DEPLOY / "image-root", roomcast(), built / "image")
        cls.buildah = Buildah(place)
        empty = Path(place) / "empty"
        empty.mkdir()
        *_, stage = dockerfile()
        arguments = ["--build-arg", "REVISION=0123abc", "--build-arg", "CREATED=2026-01-02T03:04:05Z"]
        cls.buildah.build(empty, "".join(stage), "--build-context", f"build={built}", *arguments)
        cls.buildah("from", "roomcast")

    def config(self):
        return json.loads(self.buildah("inspect", "--type", "image", "roomcast"))["Docker"]["config"]

    def files(self):
        # A container that nothing has run in: running adds files.
        name = self.buildah("from", "roomcast").strip()
        mounted = Path(self.buildah("mount", name).strip())
        return {str(path.relative_to(mounted)): path for path in mounted.rglob("*") if path.is_file()}

    def test_it_says_how_it_is_run(self):
        config = self.config()
        self.assertEqual(config["User"], "65532:65532")
        self.assertEqual(config["Entrypoint"], ["/usr/local/bin/roomcast"])
        self.assertEqual(config["WorkingDir"], "/etc/roomcast")
        self.assertEqual(config["StopSignal"], "SIGTERM")
        self.assertEqual(set(config["ExposedPorts"]), {"3000/tcp", "3001/tcp"})
        self.assertEqual(config["Healthcheck"]["Test"], ["CMD", "/usr/local/bin/roomcast", "healthcheck"])
        labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
        self.assertEqual(labels["revision"], "0123abc")
        self.assertEqual(labels["created"], "2026-01-02T03:04:05Z")
        self.assertEqual(labels["version"], build_argument("VERSION"))
        self.assertEqual(labels["licenses"], "MIT OR Apache-2.0")

    def test_the_chart_runs_it_as_the_same_user(self):
        chart = read_yaml(ROOT / "helm" / "roomcast" / "values.yaml")
        user, group = map(int, self.config()["User"].split(":"))
        self.assertEqual(chart["podSecurityContext"]["runAsUser"], user)
        self.assertEqual(chart["podSecurityContext"]["runAsGroup"], group)

    def test_one_program_and_what_it_needs(self):
        files = self.files()
        programs = [name for name, path in files.items() if os.access(path, os.X_OK) and ".so" not in name]
        self.assertEqual(programs, ["usr/local/bin/roomcast"])
        libraries = {re.sub(r"\.so.*", "", Path(name).name) for name in files if ".so" in name}
        self.assertLessEqual(libraries, {"libc", "libm", "libgcc_s", "ld-linux-x86-64", "ld-linux-aarch64"})
        self.assertIn("usr/share/doc/roomcast/LICENSE-MIT", files)
        for name, path in files.items():
            self.assertFalse(path.stat().st_mode & 0o022, f"{name} can be written by others")

    def test_a_node_in_it_becomes_healthy_and_ends_by_sigterm(self):
        public, api = free_port(), free_port()
        env = [f"ROOMCAST__PUBLIC__LISTEN=127.0.0.1:{public}", f"ROOMCAST__API__LISTEN=127.0.0.1:{api}"]
        health = self.buildah.in_container(*self.config()["Healthcheck"]["Test"][1:], env=env)
        self.assertEqual(subprocess.run(health, capture_output=True).returncode, 1, "healthy before it runs")
        command = self.buildah.in_container("/usr/local/bin/roomcast", env=env)
        node = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            until(lambda: subprocess.run(health, capture_output=True).returncode == 0, "healthy node")
            # No session: it would have to be drained.
            with urllib.request.urlopen(f"http://127.0.0.1:{public}/socket.io/socket.io.js", timeout=10) as answer:
                self.assertEqual(answer.status, 200)
        finally:
            os.kill(child_named(node.pid, "roomcast"), signal.SIGTERM)
            output, _ = node.communicate(timeout=60)
        self.assertEqual(node.returncode, 0)
        self.assertIn(b"drained", output)
        self.assertIn(b"configuration ok (roomcast.toml)", output)

    def test_without_settings_clients_reach_it_from_outside_and_the_api_does_not(self):
        output = run(*self.buildah.in_container("/usr/local/bin/roomcast", "check"))
        self.assertIn("http://0.0.0.0:3000/socket.io/", output)
        self.assertIn("http://127.0.0.1:3001", output)

    def test_names_are_resolved_in_it(self):
        """A broker by name: libc has to find it without any further library."""
        url = f"redis://localhost:{free_port()}"
        command = self.buildah.in_container("/usr/local/bin/roomcast", "--adapter", "redis", "--adapter-url", url)
        said = subprocess.run(command, capture_output=True, text=True, timeout=120)
        self.assertIn("onnection refused", said.stdout + said.stderr)
