# SPDX-License-Identifier: Apache-2.0
"""The real server with its tasks on a real Redis: what is promised of tasks holds, whatever is killed, and
the data directory has nothing of them that Redis has not: it may be taken away."""
import itertools
import os
import shutil
import signal
import subprocess
import threading
import time

import pytest
import requests

from conftest import PATIENCE_S, free_port, millrace, wait_until
from driver_suite import SUITE
from redis_server import DURABLE, PASSWORD, Redis, Trio

ENDS = ("succeeded", "failed", "cancelled")
NAMES = (f"on-{n}-" for n in itertools.count())


def url_of(redis, name, more=""):
    return f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/?prefix={name}{more}"


@pytest.fixture
def make(server_factory):
    """A server whose tasks are elsewhere, with little to be had beside."""
    def made(url, *options, **named):
        return server_factory("--tasks", url, "--max-workers", "2", *options, **named)
    return made


def take_away(server):
    """Its copy of the tasks, as on another machine."""
    shutil.rmtree(server.directory / "tasks-redis")


def unit(test, *arguments, **environment):
    done = subprocess.run([SUITE.with_name(test), *arguments], timeout=3 * PATIENCE_S, text=True,
                          env={**os.environ, **environment}, capture_output=True)
    assert done.returncode == 0 and "SKIPPED" not in done.stdout, done.stdout + done.stderr


def test_the_store_over_it(redis):
    base = f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/"
    redis.call("CONFIG", "SET", "appendfsync", "no")  # nothing is killed
    try:
        unit("test-tasks-remote", base)
        unit("test-tasks-shared", base)
        unit("test-tasks-store", MILLRACE_TEST_TASKS=base, SEED="5")
    finally:
        redis.call("CONFIG", "SET", "appendfsync", DURABLE["appendfsync"])


# ---- One task each ----
def create(server, total=10, step=5, **more):
    body = {"type": "long_task", "args": {"total": total, "step": step, **more.pop("args", {})}, **more}
    answer = server.post("/tasks", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def task(server, task_id):
    answer = server.get(f"/tasks/{task_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def ends(server, task_id, status="succeeded"):
    assert wait_until(lambda: task(server, task_id)["status"] in ENDS)
    assert task(server, task_id)["status"] == status, task(server, task_id)


def all_tasks(server):
    page = server.get("/tasks", params={"limit": 1000})
    assert page.status_code == 200 and page.json()["next"] is None, page.text
    return {found["id"]: found for found in page.json()["tasks"]}


def is_persisted(server):
    """Everything that was applied; then nothing is journal's alone."""
    metrics = server.metrics()
    before = metrics['millrace_checkpoints_total{store="tasks",result="ok"}']
    return wait_until(lambda: server.metrics()[
        'millrace_checkpoints_total{store="tasks",result="ok"}'] >= before + 2)


def test_tasks(redis, make):
    server = make(url_of(redis, name := next(NAMES))).start()
    done = create(server)
    ends(server, done)
    scheduled = create(server, run_at="2099-01-01T00:00:00Z")
    cancelled = create(server, run_at="2099-01-01T00:00:00Z", priority=9)
    assert server.delete(f"/tasks/{cancelled}").status_code == 200
    retried = create(server, run_at="2099-01-01T00:00:00Z")
    assert server.delete(f"/tasks/{retried}").status_code == 200
    assert server.post(f"/tasks/{retried}/retry").status_code == 202
    ends(server, retried)
    keyed = create(server, idempotency_key="once")
    assert create(server, idempotency_key="once") == keyed
    ends(server, keyed)
    running = create(server, total=100000, step=1, args={"pace_ms": 50})
    assert wait_until(lambda: task(server, running)["progress"] > 0)
    # what others see: the states, the attempt that holds the task, within a moment
    keys = f"{{{name}tasks}}"
    assert wait_until(lambda: int(redis.call("HLEN", keys)) > 6)
    assert is_persisted(server)
    server.stop()
    take_away(server)
    server.start()
    found = all_tasks(server)
    assert [found[t]["status"] for t in (done, scheduled, cancelled, retried, keyed)] == [
        "succeeded", "queued", "cancelled", "succeeded", "succeeded"]
    assert create(server, idempotency_key="once") == keyed
    assert found[running]["status"] in ("queued", "running")
    assert server.delete(f"/tasks/{running}").status_code == 200
    health = server.get("/readyz").json()["parts"]["tasks"]
    assert health["reachable"] and health["url"] == f"redis://127.0.0.1:{redis.port}/?prefix={name}"
    server.stop()
    checked = millrace("check", "--data-dir", str(server.directory))
    assert checked.returncode == 0 and "they are on Redis" in checked.stdout, checked.stdout


# ---- A load, and the model of it ----
class Writer(threading.Thread):
    """Makes, reads and cancels tasks, whatever dies. Each is made with a key until that is answered."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.stopping = server, threading.Event()
        self.tasks, self.ended, self.error = {}, {}, None  # key: id, id: status

    def send(self, method, path, **options):
        """Until it is answered; None: it is to stop."""
        while not self.stopping.is_set():
            try:
                answer = self.server.request(method, path, timeout=30, **options)
                if answer.status_code not in (429, 503):
                    return answer
            except requests.RequestException:
                pass
            time.sleep(0.05)
        return None

    def run(self):
        try:
            for n in itertools.count():
                if not self.step(n):
                    return
        except AssertionError as error:  # the test reads it
            self.error = error

    def step(self, n):
        key = f"key-{n}"
        body = {"type": "long_task", "args": {"total": n % 7, "step": 1}, "idempotency_key": key}
        answer = self.send("POST", "/tasks", json=body)
        if answer is None:
            return False
        assert answer.status_code == 202, answer.text
        self.tasks[key] = answer.json()["id"]
        if n % 3 == 0 and (answer := self.send("DELETE", f"/tasks/{self.tasks[key]}")) is not None:
            assert answer.status_code in (200, 409), answer.text
        if (answer := self.send("GET", f"/tasks/{self.tasks[f'key-{n // 2}']}")) is not None:
            assert answer.status_code == 200, answer.text
            self.see(answer.json())
        return True

    def see(self, found):
        known = self.ended.get(found["id"])
        assert known in (None, found["status"]), (known, found)
        if found["status"] in ENDS:
            self.ended[found["id"]] = found["status"]

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.join(PATIENCE_S)
        assert not self.is_alive() and self.error is None, self.error

    def progress(self, n=40):
        wanted = len(self.tasks) + n
        assert wait_until(lambda: len(self.tasks) >= wanted or self.error), "no task is made"
        assert self.error is None, self.error

    def check(self, server):
        """Each has come to one end, the one that was read; none is there that nobody made."""
        assert wait_until(lambda: not any(
            server.get("/tasks/queue").json()[part] for part in ("queued", "running")))
        found, cursor = {}, {}
        while cursor is not None:
            page = server.get("/tasks", params={"limit": 1000, **cursor}).json()
            found.update((entry["id"], entry) for entry in page["tasks"])
            cursor = {"cursor": page["next"]} if page["next"] else None
        for task_id in self.tasks.values():
            assert found[task_id]["status"] in ENDS
            self.see(found[task_id])
        assert len(set(self.tasks.values())) == len(self.tasks)
        assert len(found) <= len(self.tasks) + 1, "a task was made twice"  # one had no answer


def test_killed(redis, make):
    """kill -9 of the server at any moment; the directory's copy goes with it, or stays."""
    server = make(url_of(redis, next(NAMES))).start()
    with Writer(server) as writer:
        for cycle in range(4):
            writer.progress()
            server.kill()
            if cycle % 2:
                take_away(server)
            server.start()
        writer.progress()
    writer.check(server)


def test_redis_killed_and_emptied(tmp_path, make):
    """Tasks go on while it is away, and it gets what it has missed, or lost."""
    redis = Redis(tmp_path / "redis", **DURABLE)
    try:
        redis.start()
        server = make(url_of(redis, next(NAMES))).start()
        with Writer(server) as writer:
            writer.progress()
            redis.kill()
            assert wait_until(lambda: server.get("/readyz").status_code == 503)
            part = server.get("/status").json()["health"]["parts"]["tasks"]
            assert not part["reachable"] and "not reachable" in part["reason"]
            writer.progress()
            redis.start()
            assert wait_until(lambda: server.get("/readyz").status_code == 200)
            redis.call("FLUSHALL")
            writer.progress()
        writer.check(server)
        assert is_persisted(server)
        server.stop()
        take_away(server)
        server.start()
        writer.check(server)
        server.stop()
        redis.call("FLUSHALL")
        assert "was it emptied?" in refusal(server)
    finally:
        redis.kill()


def test_no_replica_no_checkpoint(tmp_path, make):
    """replicas=1: what no replica has is not taken for kept."""
    master = Redis(tmp_path / "master", **DURABLE)
    replica = Redis(tmp_path / "replica", replicaof=f"127.0.0.1 {master.port}", **DURABLE)
    try:
        master.start()
        replica.start()
        assert wait_until(lambda: Trio.replicas_online(master) == 1)
        server = make(url_of(master, "two-", "&replicas=1")).start()
        ends(server, create(server))
        replica.kill()
        create(server, run_at="2099-01-01T00:00:00Z")
        assert wait_until(lambda: says(server, "/readyz", 503, "only 0 of 1 replicas"))
        replica.start()
        assert wait_until(lambda: says(server, "/readyz", 200, "tasks"))
        server.stop()
    finally:
        master.kill()
        replica.kill()


def test_master_under_sentinels_killed(tmp_path, make):
    """With a replica that has each checkpoint, what was let go of the journal survives the master."""
    trio = Trio(tmp_path / "trio")
    try:
        trio.start()
        server = make(trio.url).start()
        with Writer(server) as writer:
            writer.progress()
            trio.master.kill()
            writer.progress()
            assert wait_until(lambda: server.get("/readyz").status_code == 200)
            server.kill()
            take_away(server)
            server.start()
            writer.progress()
        writer.check(server)
        server.stop()
    finally:
        trio.kill()


def test_another_server_takes_over(redis, make):
    """On a journal that both reach. Who froze and wakes is put out of the tasks, and says so."""
    url = url_of(redis, next(NAMES))
    first = make(url, "--journal", url, name="first").start()
    made = [create(first, total=2, step=1, args={"pace_ms": 20}) for _ in range(20)]
    waiting = create(first, run_at="2099-01-01T00:00:00Z")
    first.process.send_signal(signal.SIGSTOP)
    second = make(url, "--journal", url, name="second").start()
    first.process.send_signal(signal.SIGCONT)
    for task_id in made:
        ends(second, task_id)
    assert task(second, waiting)["status"] == "queued"
    assert wait_until(lambda: "another server has taken the tasks over" in
                      first.get("/readyz").json()["parts"]["tasks"].get("reason", ""))
    first.kill()
    assert is_persisted(second)
    assert second.get("/readyz").status_code == 200


# ---- The start ----
def says(server, path, status, word):
    try:
        answer = server.get(path)
    except requests.RequestException:
        return False
    return answer.status_code == status and word in answer.text


def refusal(server):
    """What it says when it does not start."""
    server.spawn()
    assert server.process.wait(PATIENCE_S) != 0
    server.process = None
    return server.stderr()


def test_redis_is_not_there_yet(tmp_path, make):
    redis = Redis(tmp_path / "redis", **DURABLE)
    server = make(url_of(redis, "late-"))
    server.spawn()
    try:
        assert wait_until(lambda: says(server, "/readyz", 503, "waits for the tasks"))
        assert says(server, "/livez", 200, f"Redis at 127.0.0.1:{redis.port} is not reachable")
        redis.start()
        assert wait_until(lambda: says(server, "/readyz", 200, "tasks"))
        ends(server, create(server))
        server.stop()
    finally:
        redis.kill()


def test_what_does_not_fit(redis, make, server_factory):
    assert "no parameter replica" in refusal(make(url_of(redis, "x", "&replica=1"), name="a"))
    assert "TLS" in refusal(make(f"rediss://127.0.0.1:{free_port()}/", name="b"))
    assert "local:" in refusal(make(f"kafka://127.0.0.1:{free_port()}/", name="c"))
    wrong = url_of(redis, "x").replace(PASSWORD, "x" + PASSWORD)
    assert "takes another user and password" in refusal(make(wrong, name="d"))
    here = server_factory(name="here").start()
    here.stop()
    there = make(url_of(redis, next(NAMES)), name="there").start()
    there.stop()
    here.options, there.options = there.options, here.options
    assert "keeps its tasks itself" in refusal(here)
    assert "the tasks of" in (said := refusal(there)) and "are on Redis: give --tasks again" in said
    assert PASSWORD not in said
