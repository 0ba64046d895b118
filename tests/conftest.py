# SPDX-License-Identifier: Apache-2.0
"""What every suite shares: the real binary, started on free ports over a directory of its own.

MILLRACE names the binary (build/millrace by default); a sanitizer's report in its standard error
fails the test that saw it.
"""
import os
import pathlib
import signal
import subprocess
import time

import pytest
import requests

from waiting import PATIENCE_S, free_port, wait_until  # noqa: F401  for the tests too

pytest_plugins = ["engines"]  # fixtures; a conftest.py beside this one would hide it

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = os.environ.get("MILLRACE", str(ROOT / "build" / "millrace"))
SANITIZED = "asan" in BINARY or "tsan" in BINARY
TINY = "build/" not in BINARY
STOP_PATIENTLY = {"MILLRACE_STOP_TIMEOUT": f"{PATIENCE_S // 2}s"}  # so with a busy disk
SANITIZER_MARKS = ("ERROR: AddressSanitizer", "runtime error:", "ERROR: LeakSanitizer",
                   "WARNING: ThreadSanitizer", "Assertion")


def pytest_collection_modifyitems(items):
    """Long files first, then the largest: a worker that is left alone with one costs most."""
    items.sort(key=lambda i: (not i.get_closest_marker("long"), -i.path.stat().st_size, i.path))


class Server:
    """One millrace process. start() returns when it is ready, stop() asks it to end."""

    def __init__(self, directory, *options, env=None, wrapper=(), binary=None):
        self.directory = pathlib.Path(directory)
        self.options = list(options)
        self.env = env or {}
        self.wrapper = list(wrapper)
        self.binary = binary or BINARY
        self.port = free_port()
        self.metrics_port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.metrics_url = f"http://127.0.0.1:{self.metrics_port}"
        self.log = self.directory.parent / (self.directory.name + ".stderr")
        self.process = None

    def command(self):
        return [*self.wrapper, self.binary, "serve", "--data-dir", str(self.directory),
                "--listen", f"127.0.0.1:{self.port}",
                "--metrics-listen", f"127.0.0.1:{self.metrics_port}", *self.options]

    def spawn(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL,
                                            env={**os.environ, **STOP_PATIENTLY, **self.env})
        return self

    def start(self, timeout=2 * PATIENCE_S):
        self.spawn()
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"exit {self.process.returncode}:\n{self.stderr()}")
            try:
                if requests.get(self.url + "/readyz", timeout=PATIENCE_S).status_code == 200:
                    return self
            except requests.RequestException:
                pass
            time.sleep(0.02)
        raise AssertionError(f"not ready in {timeout} s:\n{self.stderr()}")

    def stop(self, timeout=2 * PATIENCE_S):
        """SIGTERM; the exit status must be 0 and no sanitizer may have spoken."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(timeout)
        self.process = None
        text = self.stderr()
        assert status == 0, f"exit {status}:\n{text[-4000:]}"
        for mark in SANITIZER_MARKS:
            assert mark not in text, text[-8000:]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        self.process = None

    def stderr(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def metrics(self):
        """The samples of /metrics: {'name{labels}': value}."""
        answer = requests.get(self.metrics_url + "/metrics", timeout=PATIENCE_S)
        answer.raise_for_status()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
                for line in answer.text.splitlines() if line and not line.startswith("#")}

    def request(self, method, path, **options):
        return requests.request(method, self.url + path, timeout=options.pop("timeout", 60),
                                **options)

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, **options):
        return self.request("POST", path, **options)

    def put(self, path, **options):
        return self.request("PUT", path, **options)

    def delete(self, path, **options):
        return self.request("DELETE", path, **options)


@pytest.fixture
def server_factory(tmp_path):
    """Makes servers that are stopped (and checked) at the end of the test."""
    made = []

    def make(*options, name="data", **named):
        server = Server(tmp_path / name, *options, **named)
        made.append(server)
        return server

    yield make
    for server in made:
        if server.process is not None:
            server.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One server for all tests of a module; each test uses collections of its own."""
    server = Server(tmp_path_factory.mktemp("server") / "data").start()
    yield server
    server.stop()


@pytest.fixture
def collection(server, request):
    """An empty 4-d Cosine collection named after the test."""
    name = "".join(c if c.isalnum() else "_" for c in request.node.name)[:100]
    answer = server.put(f"/collections/{name}",
                        json={"vectors": {"size": 4, "distance": "Cosine"}})
    assert answer.status_code == 200, answer.text
    return name


def millrace(*arguments, timeout=120, **options):
    """Runs a subcommand; the finished process, with text output."""
    return subprocess.run([BINARY, *arguments], capture_output=True, text=True, timeout=timeout,
                          **options)
