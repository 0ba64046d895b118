# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the server and of workers at random moments while tasks are queued, run, cancelled and
retried: afterwards every task that was acknowledged is there and comes to exactly one end, no end that was
read changes, and an idempotency key has one task.

CYCLES (30 by default) and SEED can be set; the seed is printed.
"""
import os
import random
import signal
import threading
import time

import requests

from conftest import wait_until

CYCLES = int(os.environ.get("CYCLES") or 30)
SEED = int(os.environ.get("SEED") or random.randrange(2**32))
THREADS = 3
CONSTANT = ["--checkpoint-interval", "20ms", "--checkpoint-size", "1K", "--max-workers", "2"]
ENDS = ("succeeded", "failed", "cancelled")


class Client(threading.Thread):
    """Queues, looks at and cancels tasks until the server dies."""

    def __init__(self, name, server, known):
        super().__init__()
        self.server, self.known = server, known
        self.random = random.Random(name)
        self.name = name
        self.made = []    # ids that were acknowledged
        self.keys = {}    # idempotency key -> id
        self.ended = {}   # id -> status, as read
        self.error = None

    def run(self):
        try:
            with requests.Session() as session:
                while True:
                    self.step(session)
        except requests.RequestException:
            pass
        except Exception as error:  # an answer that should not be: the test reads it
            self.error = error

    def step(self, session):
        dice = self.random.random()
        if dice < 0.5:
            self.add(session)
        elif dice < 0.6:
            self.add_batch(session)
        elif dice < 0.9:
            self.look(session)
        else:
            self.cancel(session)

    def a_task(self):
        total = self.random.choice((0, 10, 1000))
        args = {"total": total, "step": max(1, total // 3)}
        if self.random.random() < 0.01:
            args = {"total": 5, "step": 1, "pace_ms": 20}
        return {"type": "long_task", "args": args, "priority": self.random.randrange(10)}

    def add(self, session):
        task = self.a_task()
        if self.random.random() < 0.3:
            key = f"{self.name}-{self.random.randrange(50)}"
            answer = session.post(self.server.url + "/tasks", timeout=30,
                                  json={**task, "idempotency_key": key})
            if self.take(answer):
                known = self.keys.setdefault(key, answer.json()["id"])
                assert known == answer.json()["id"], "a key has one task"
        else:
            self.take(session.post(self.server.url + "/tasks", json=task, timeout=30))

    def take(self, answer):
        if answer.status_code == 503:
            return False
        assert answer.status_code == 202, answer.text
        self.made.append(answer.json()["id"])
        return True

    def add_batch(self, session):
        tasks = [self.a_task() for _ in range(self.random.randint(1, 40))]
        answer = session.post(self.server.url + "/tasks/batch", json={"tasks": tasks}, timeout=30)
        if answer.status_code != 503:
            assert answer.status_code == 202, answer.text
            self.made += [entry["id"] for entry in answer.json()["tasks"]]

    def look(self, session):
        if not self.made:
            return
        task_id = self.random.choice(self.made[-200:])
        answer = session.get(f"{self.server.url}/tasks/{task_id}", timeout=30)
        assert answer.status_code == 200, (task_id, answer.text)
        self.see(answer.json())

    def see(self, task):
        known = self.ended.get(task["id"])
        assert known is None or known == task["status"], (known, task)
        if task["status"] in ENDS:
            self.ended[task["id"]] = task["status"]

    def cancel(self, session):
        if not self.made:
            return
        task_id = self.random.choice(self.made[-20:])
        answer = session.delete(f"{self.server.url}/tasks/{task_id}", timeout=30)
        assert answer.status_code in (200, 409, 503), answer.text
        if answer.status_code == 200:
            self.see(answer.json())


def kill_workers(server, dice):
    """Some of the worker processes, as a machine short of memory would."""
    children = f"/proc/{server.process.pid}/task/{server.process.pid}/children"
    try:
        pids = [int(pid) for pid in open(children, encoding="ascii").read().split()]
        for pid in pids:
            if dice.random() < 0.5:
                os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):
        pass


def all_tasks(server):
    """By id, page by page."""
    found, cursor = {}, None
    while True:
        page = server.get("/tasks", params={"limit": 1000, **({"cursor": cursor} if cursor else {})})
        assert page.status_code == 200, page.text
        found.update((task["id"], task) for task in page.json()["tasks"])
        cursor = page.json()["next"]
        if cursor is None:
            return found


def test_invariant_3_every_task_ends_once(server_factory):
    print("SEED", SEED)
    dice = random.Random(SEED)
    server = server_factory(*CONSTANT)
    made, keys, ended = [], [{} for _ in range(THREADS)], {}
    for cycle in range(CYCLES):
        server.start()
        clients = [Client(f"{SEED}-{i}", server, None) for i in range(THREADS)]
        for i, client in enumerate(clients):
            client.keys, client.ended = keys[i], ended
            client.random = random.Random(f"{SEED}-{cycle}-{i}")
            client.start()
        if cycle == 0:  # however slow the machine
            assert wait_until(lambda: sum(len(c.made) for c in clients) >= CYCLES
                              or any(c.error for c in clients))
        end = time.monotonic() + dice.uniform(0.05, 1.0)
        while time.monotonic() < end:
            time.sleep(0.05)
            if dice.random() < 0.2:
                kill_workers(server, dice)
        server.kill()
        for client in clients:
            client.join(60)
            assert client.error is None, client.error
            made += client.made
    server.start()
    deadline = time.monotonic() + 120
    while sum(server.get("/tasks/queue").json()[part] for part in ("queued", "running")):
        assert time.monotonic() < deadline, server.get("/tasks/queue").text
        time.sleep(0.05)
    kept = all_tasks(server)
    for task_id in made:
        task = kept[task_id]
        assert task["status"] in ENDS, task
        assert ended.get(task_id, task["status"]) == task["status"], (ended[task_id], task)
        if task["status"] == "succeeded":
            assert task["progress"] == 1
    for task_id in dice.sample(made, min(len(made), 100)):
        assert server.get(f"/tasks/{task_id}").json() == kept[task_id]
    server.stop()
