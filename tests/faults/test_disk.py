# SPDX-License-Identifier: Apache-2.0
"""The disk's faults on the real binary: full, failing, hanging. Nothing acknowledged is lost, reads
go on while writes get 503, and it heals by itself.

Needs the right to mount a tmpfs (root) for the full disk, and strace for injected errors.
"""
import contextlib
import signal
import subprocess
import threading
import time

import pytest
import requests

from conftest import PATIENCE_S, ROOT, wait_until
from disk import fill, injecting, needs_strace, small_disk, tracing  # noqa: F401 (a fixture)

DEBUG = str(ROOT / "build-debug" / "millrace")
RELEASE = str(ROOT / "build" / "millrace")


class Writer(threading.Thread):
    """Upserts one point after the other; remembers which were acknowledged and what else came."""

    def __init__(self, server, dimension, first=0, pause=0.0):
        super().__init__()
        self.server, self.dimension, self.first, self.pause = server, dimension, first, pause
        self.acknowledged, self.statuses, self.odd = [], {}, []
        self.running = True

    def run(self):
        session = requests.Session()
        i = self.first
        while self.running:
            try:
                answer = session.put(self.server.url + "/collections/c/points", timeout=PATIENCE_S, json={
                    "points": [{"id": i, "vector": [i] * self.dimension, "payload": {"i": i}}]})
            except requests.RequestException as error:
                self.odd.append(error)
                return
            self.statuses[answer.status_code] = self.statuses.get(answer.status_code, 0) + 1
            if answer.status_code == 200:
                self.acknowledged.append(i)
            elif answer.status_code in (429, 503):
                if "Retry-After" not in answer.headers:
                    self.odd.append("no Retry-After")
                time.sleep(0.02)
            else:
                self.odd.append(answer.text)
            i += 1
            if self.pause:
                time.sleep(self.pause)


def make(server, dimension):
    assert server.put("/collections/c", json={
        "vectors": {"size": dimension, "distance": "Dot"}}).status_code == 200


def all_there(server, ids):
    deadline = time.monotonic() + PATIENCE_S
    missing = list(ids)
    while missing and time.monotonic() < deadline:
        found = set()
        for start in range(0, len(missing), 500):
            part = missing[start:start + 500]
            found |= {p["id"] for p in server.post("/collections/c/points",
                                                   json={"ids": part}).json()["result"]}
        missing = [i for i in missing if i not in found]
    assert not missing, missing[:10]


def write_status(server):
    return server.put("/collections/c/points", json={
        "points": [{"id": 10**9, "vector": [0.0] * server.dimension}]}).status_code


def test_invariant_6_a_full_disk_heals_by_itself(server_factory, small_disk, tmp_path):
    server = server_factory(binary=DEBUG)
    server.directory = small_disk / "data"
    server.log = tmp_path / "full.stderr"
    server.dimension = 256
    server.start()
    make(server, 256)
    writer = Writer(server, 256)
    writer.start()
    assert wait_until(lambda: len(writer.acknowledged) > 10)
    filler = fill(small_disk / "filler")
    assert wait_until(lambda: writer.statuses.get(503, 0) > 5), writer.statuses
    # reads and health go on
    assert server.get("/livez").status_code == 200
    assert server.post("/collections/c/points/count", json={}).status_code == 200
    filler.unlink()
    assert wait_until(lambda: write_status(server) == 200), "did not heal"
    writer.running = False
    writer.join(PATIENCE_S)
    assert not writer.odd, writer.odd[:3]
    all_there(server, writer.acknowledged)
    server.kill()
    server.start()
    all_there(server, writer.acknowledged)
    server.stop()


def test_start_on_a_full_disk_says_so(small_disk):
    fill(small_disk / "filler")
    result = subprocess.run([RELEASE, "serve", "--data-dir", str(small_disk / "data"), "--listen",
                             "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"],
                            capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert result.returncode > 0
    assert len(result.stderr.strip().splitlines()) == 1 and "space" in result.stderr.lower()


@needs_strace
@pytest.mark.parametrize("expression", [
    "fdatasync:error=EIO:when=3+7", "pwrite64:error=EIO:when=5+11",
    "pwrite64:error=ENOSPC:when=2+5", "fdatasync:error=EIO"])
def test_invariant_7_injected_errors(server_factory, expression):
    server = server_factory("--checkpoint-interval", "1s", binary=DEBUG)
    server.dimension = 8
    server.start()
    make(server, 8)
    writer = Writer(server, 8)
    writer.start()
    assert wait_until(lambda: writer.acknowledged)
    with injecting(server, expression):
        time.sleep(1.7)
    assert wait_until(lambda: write_status(server) == 200), "did not heal"
    assert wait_until(lambda: len(writer.acknowledged) > 10)
    writer.running = False
    writer.join(PATIENCE_S)
    assert not writer.odd, writer.odd[:3]
    assert set(writer.statuses) <= {200, 429, 503}, writer.statuses
    all_there(server, writer.acknowledged)
    server.kill()
    server.start()
    all_there(server, writer.acknowledged)
    server.stop()


@needs_strace
def test_invariant_10_a_sync_that_hangs_stops_only_writes(server_factory):
    server = server_factory(binary=RELEASE)
    server.dimension = 4
    server.start()
    make(server, 4)
    server.put("/collections/c/points?wait=true", json={"points": [{"id": 1, "vector": [1] * 4}]})
    with injecting(server, "fdatasync:delay_enter=60s"):
        first = {}

        def write():
            first["answer"] = requests.put(server.url + "/collections/c/points", timeout=PATIENCE_S, json={
                "points": [{"id": 2, "vector": [2] * 4}]})

        thread = threading.Thread(target=write)
        thread.start()

        def refused():
            answer = server.post("/upsert", timeout=20,
                                 json={"id": 9, "collectionName": "c", "vector": [1] * 4})
            return answer.json()["error"]["code"] == "unavailable"

        assert wait_until(refused)
        assert write_status(server) == 503
        for path in ["/healthz", "/livez", "/collections/c", "/collections/c/points/1"]:
            assert server.get(path, timeout=10).status_code in (200, 503), path
        assert server.get("/collections/c/points/1", timeout=10).status_code == 200
        thread.join(30)
        assert first["answer"].status_code == 503
    assert wait_until(lambda: write_status(server) == 200)
    server.stop()


@needs_strace
def test_invariant_1_what_is_written_again_at_the_start_is_there_before_anybody_asks(server_factory):
    """After a kill the last commit is written again; the syncs of that fail for a while."""
    server = server_factory(binary=RELEASE).start()
    for name in ["first", "last"]:
        made = server.put(f"/collections/{name}", json={"vectors": {"size": 4, "distance": "Dot"}})
        assert made.status_code == 200
    server.kill()
    spares = [f"-P{server.directory}/journal/spare-{i}" for i in range(1, 6)]
    server.wrapper = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", *spares,
                      "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=1..2"]
    server.spawn()
    statuses = []

    def has_answered():
        with contextlib.suppress(requests.ConnectionError):
            statuses.append(server.get("/collections/last").status_code)
        return statuses

    assert wait_until(has_answered)
    assert statuses == [200]
    server.stop()


@needs_strace
def test_invariant_10_a_stop_ends_although_a_sync_hangs(server_factory):
    server = server_factory("--stop-timeout", "1s", binary=RELEASE)
    server.dimension = 4
    server.start()
    make(server, 4)
    server.put("/collections/c/points?wait=true", json={"points": [{"id": 1, "vector": [1] * 4}]})
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync",
                               "-e", "inject=fdatasync:delay_enter=90s", "-p",
                               str(server.process.pid)], stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: tracing(server, tracer))
        begin = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        said = "nothing that was acknowledged is lost"
        assert wait_until(lambda: said in server.stderr())
        assert 5 < time.monotonic() - begin
    finally:
        tracer.terminate()  # it holds the thread that it delays, and so the end of the process
        tracer.wait(PATIENCE_S)
    assert server.process.wait(PATIENCE_S) == 1
    server.process = None
    server.start()
    assert server.get("/collections/c/points/1").status_code == 200
    server.stop()
