# SPDX-License-Identifier: Apache-2.0
"""The Qdrant of tests as a process (qdrant_server.py), and who writes points to a server in front of
it."""
import contextlib
import json
import pathlib
import random
import subprocess
import sys
import threading

import requests

from conftest import PATIENCE_S, free_port

SERVER = pathlib.Path(__file__).parent / "qdrant_server.py"
FOUR = {"vectors": {"size": 4, "distance": "Dot"}}


class Qdrant:
    """The fake: start, kill and start again on the same ports, over the same data."""

    def __init__(self, path):
        self.path, self.port, self.rest = path, free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.rest}"
        self.points = f"qdrant://127.0.0.1:{self.port}?rest={self.rest}"
        self.process = None

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, SERVER, "--port", str(self.port), "--http-port", str(self.rest),
             "--path", self.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert json.loads(self.process.stdout.readline())["port"] == self.port
        return self

    def die(self):
        with contextlib.suppress(requests.RequestException):
            self.tell(die=True)
        self.process.wait(PATIENCE_S)
        self.close()

    def tell(self, **told):
        requests.post(f"{self.url}/admin", json=told, timeout=PATIENCE_S)

    def told(self):
        return requests.get(f"{self.url}/admin", timeout=PATIENCE_S).json()

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(PATIENCE_S)

    def content(self, name):
        """{id: payload} of a collection, asked without Millrace."""
        answer = requests.post(f"{self.url}/collections/{name}/points/scroll",
                               json={"limit": 100000}, timeout=PATIENCE_S).json()
        return {p["id"]: p["payload"] for p in answer["result"]["points"]}


def point(number, value):
    return {"id": number, "vector": [1, 2, 3, number], "payload": {"v": value}}


class Writer(threading.Thread):
    """Writes and deletes at random until told to stop; model holds what was acknowledged, unsure the
    keys whose last write had no answer."""

    def __init__(self, server, seed):
        super().__init__()
        self.server, self.random = server, random.Random(seed)
        self.model, self.unsure, self.acknowledged = {}, set(), 0
        self.stopped = threading.Event()

    def write(self, number):
        if self.random.random() < 0.2:
            chosen = [self.random.randrange(60) for _ in range(3)]
            path, body = "delete", {"points": chosen}
            effect = {key: None for key in chosen}
        else:
            points = [point(self.random.randrange(60), number) for _ in range(8)]
            path, body = "", {"points": points}
            effect = {p["id"]: number for p in points}
        try:
            method = "POST" if path else "PUT"
            answer = self.server.request(method, f"/collections/a/points/{path}".rstrip("/"), json=body)
            done = answer.status_code == 200
        except requests.RequestException:
            done = False
        if done:
            self.model.update(effect)
            self.unsure -= effect.keys()
            self.acknowledged += 1
        else:
            self.unsure |= effect.keys()

    def run(self):
        number = 0
        while not self.stopped.is_set():
            number += 1
            self.write(number)

    def stop(self):
        self.stopped.set()
        self.join(PATIENCE_S)

    def agrees(self, content):
        keys = self.model.keys() - self.unsure
        return ({k: self.model[k] for k in keys if self.model[k] is not None} ==
                {k: content[k]["v"] for k in keys if k in content})
