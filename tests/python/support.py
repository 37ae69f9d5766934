"""Servers for the Python tests: started on a free port, waited for by condition, ended by process id."""

import os
import pathlib
import random
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

REFERENCE = os.environ.get("REFERENCE") == "1"
DEADLINE = float(os.environ.get("TEST_DEADLINE_MS", "20000")) / 1000
REFERENCE_SERVER = pathlib.Path(__file__).resolve().parent.parent / "node" / "reference-server.js"


def until(condition, what, deadline=DEADLINE):
    """Calls `condition` until it returns something true, and returns that."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"no {what} within {deadline} s")
        time.sleep(0.02)


def free_port():
    """Below the ephemeral range, so that no outgoing connection takes it before the server binds it."""
    while True:
        port = random.randrange(10_240, 31_240)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def status_of(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


class Process:
    """A process that ends with the test."""

    def __init__(self, process):
        self.process = process

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Server(Process):
    """A server of the programs under test."""

    def __init__(self, variable, mode, env, ready_url, ready_statuses, arguments=()):
        if REFERENCE:
            command = ["node", str(REFERENCE_SERVER), mode]
        elif variable in os.environ:
            command = [os.environ[variable]]
        else:
            raise RuntimeError(f"{variable} is not set: run through tests/run, or with REFERENCE=1")
        super().__init__(subprocess.Popen([*command, *arguments], env={**os.environ, **env}))
        try:
            until(lambda: self._alive() and status_of(ready_url) in ready_statuses, "readiness of the server")
        except BaseException:
            self.stop()
            raise

    def _alive(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode} before it was ready")
        return True


def start_test_server(**env):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    server = Server("ROOMCAST_TESTSERVER_BIN", "testserver", {"PORT": str(port), **env}, f"{url}/", (404, 200))
    server.url = url
    return server


def start_nats():
    """A NATS server of the test's own, with its `url`."""
    places = os.environ.get("PATH", "").split(os.pathsep) + ["/usr/sbin", "/usr/local/sbin"]
    program = shutil.which("nats-server", path=os.pathsep.join(places))
    if not program:
        raise RuntimeError("nats-server is not installed; `apt-get install nats-server` installs it")
    port = free_port()
    process = subprocess.Popen([program, "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
    server = Process(process)
    server.url = f"nats://127.0.0.1:{port}"
    try:
        until(lambda: _accepts(port), "NATS server")
    except BaseException:
        server.stop()
        raise
    return server


def _accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start_gateway(file=None, **env):
    port, api_port = free_port(), free_port()
    settings = {
        "ROOMCAST__PUBLIC__LISTEN": f"127.0.0.1:{port}",
        "ROOMCAST__API__LISTEN": f"127.0.0.1:{api_port}",
        # A node that a test stops has its clients still.
        "ROOMCAST__DRAIN__DELAY": "0s",
        "ROOMCAST__DRAIN__PERIOD": "0s",
        "ROOMCAST__DRAIN__GRACE": "3s",
        **env,
    }
    api = f"http://127.0.0.1:{api_port}"
    arguments = ["--config", file] if file else []
    server = Server("ROOMCAST_BIN", "gateway", settings, f"{api}/readyz", (200,), arguments)
    server.url, server.api = f"http://127.0.0.1:{port}", api
    return server
