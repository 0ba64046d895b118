# SPDX-License-Identifier: Apache-2.0
"""Invariant 6 on the real binary: one ceiling for the memory of the process.

Anonymous memory is looked at (RssAnon): pages of our mapped files are the kernel's to drop.
"""
import json
import pathlib
import re
import socket
import threading
import time

import pytest
import requests

from conftest import SANITIZED, TINY

MIB = 1 << 20
LIMIT = 256 * MIB
SLACK = 32 * MIB  # the binary, thread stacks, what the allocator keeps, catalogs
COLLECTIONS = 300
DIMENSION = 128
POINTS = 500  # in a write
WRITES = 3    # to each collection

pytestmark = pytest.mark.skipif(SANITIZED or TINY, reason="memory of a release build is measured")


def anonymous(server):
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024


class Watch(threading.Thread):
    """The most anonymous memory that was seen."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.most, self.on = server, 0, True

    def run(self):
        while self.on:
            self.most = max(self.most, anonymous(self.server))
            time.sleep(0.02)

    def end(self):
        self.on = False
        self.join()
        return self.most


def write(session, url, body, refused):
    """Writes until it is taken; a refusal must say when to come again."""
    for _ in range(1800):
        answer = session.put(url, data=body, headers={"Content-Type": "application/json"})
        if answer.status_code == 200:
            return
        assert answer.status_code in (429, 503) and "Retry-After" in answer.headers, answer.text
        assert "outcome" not in answer.text
        refused.append(answer.status_code)
        time.sleep(0.1)
    raise AssertionError("refused for minutes")


def ask_and_not_read(server, path, body):
    s = socket.create_connection(("127.0.0.1", server.port))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    data = json.dumps(body).encode()
    s.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
              b"Content-Length: %d\r\n\r\n" % (path.encode(), len(data)) + data)
    return s


def counts(session, server):
    return {session.post(f"{server.url}/collections/c{i}/points/count", json={}).json()["result"]
            ["count"] for i in range(COLLECTIONS)}


def wait_for_counts(session, server, expected):
    deadline = time.monotonic() + 120
    while counts(session, server) != {expected}:
        assert time.monotonic() < deadline, (counts(session, server), server.get("/healthz").text)
        time.sleep(0.5)


def test_invariant_6_one_ceiling_for_memory(server_factory):
    """300 growing collections, slow readers of large answers, under --memory-limit 256M."""
    server = server_factory("--memory-limit", "256M", "--body-timeout", "5s").start()
    session = requests.Session()
    bodies = [json.dumps({"points": [
        {"id": w * POINTS + i, "vector": [round((i * 31 + k) % 97 / 97, 3) for k in range(DIMENSION)],
         "payload": {"city": "Krakow", "n": i}} for i in range(POINTS)]}) for w in range(WRITES)]
    for i in range(COLLECTIONS):
        assert session.put(f"{server.url}/collections/c{i}", json={
            "vectors": {"size": DIMENSION, "distance": "Dot"}}).status_code == 200
    watch = Watch(server)
    watch.start()
    refused, readers = [], []
    for w in range(WRITES):
        for i in range(COLLECTIONS):
            write(session, f"{server.url}/collections/c{i}/points", bodies[w], refused)
            if i % 10 == 0:
                readers.append(ask_and_not_read(
                    server, "/collections/c0/points/query/batch", {"searches": [
                        {"limit": POINTS, "with_vector": True, "with_payload": True}] * 20}))
    wait_for_counts(session, server, POINTS * WRITES)
    metrics = server.metrics()
    most = watch.end()
    print(f"most anonymous memory {most / MIB:.0f} MiB, refused {len(refused)} times, "
          f"{len(readers)} readers")
    assert most < LIMIT + SLACK
    assert metrics["millrace_memory_limit_bytes"] == LIMIT
    for kind in ("points", "journal", "bodies", "answers", "connections", "dictionary", "keys"):
        part = metrics[f'millrace_memory_part_bytes{{kind="{kind}"}}']
        assert metrics[f'millrace_memory_used_bytes{{kind="{kind}"}}'] < part + 8 * MIB
    # slow readers are cut: there is memory for the answers to others soon
    used, part = (f'millrace_memory_{what}_bytes{{kind="answers"}}' for what in ("used", "part"))
    deadline = time.monotonic() + 120
    while (now := server.metrics())[used] > now[part] * 3 / 4:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    for s in readers:
        s.close()
    while server.metrics()[used] > MIB:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    server.kill()
    server.start()
    wait_for_counts(session, server, POINTS * WRITES)


def test_memory_limit_too_small(server_factory):
    server = server_factory("--memory-limit", "1M").spawn()
    assert server.process.wait(60) == 1
    server.process = None
    assert "--memory-limit must be at least 64 MiB" in server.stderr()


def test_invariant_6_parsing_is_counted(server_factory):
    """A long body is refused where parsing it would take too much; a long vector is read past it."""
    server = server_factory("--memory-limit", "64M").start()
    dimension = 65536
    assert server.put("/collections/c", json={
        "vectors": {"size": dimension, "distance": "Dot"}}).status_code == 200
    watch = Watch(server)
    watch.start()
    begin = anonymous(server)
    headers = {"Content-Type": "application/json"}
    numbers = ",".join(["1"] * 900_000)
    for path, body in (("/upsert", '{"id":1,"collectionName":"c","a":[%s]}'),
                       ("/data/id", '{"id":1,"collectionName":"c","a":[%s]}'),
                       ("/collections/c/points/query", '{"query":[%s]}')):
        answer = server.post(path, data=body % numbers, headers=headers)
        assert answer.status_code == 400 and "the body may have at most" in answer.text, answer.text
    assert watch.end() - begin < 10 * MIB
    body = {"id": 1, "collectionName": "c", "vector": [0.123456789] * dimension}
    answer = server.post("/upsert", json=body)
    assert answer.status_code == 200, answer.text


def test_searches_of_a_batch_share_their_memory(server_factory):
    """Results that were written are given back: a batch takes no more than its largest search."""
    server = server_factory("--memory-limit", "64M").start()
    points, searches = 3000, 40
    assert server.put("/collections/c", json={
        "vectors": {"size": 1, "distance": "Dot"}}).status_code == 200
    assert server.put("/collections/c/points?wait=true", json={
        "points": [{"id": i, "vector": [i]} for i in range(points)]}).status_code == 200
    last = {"offset": points - 1, "limit": 1}
    for path, search in (("search", last | {"vector": [1]}), ("query", last | {"query": [1]}),
                         ("query", last)):
        answer = server.post(f"/collections/c/points/{path}/batch",
                             json={"searches": [search] * searches})
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["result"]) == searches
    assert server.metrics()['millrace_memory_used_bytes{kind="answers"}'] < MIB


def test_invariant_6_merges_take_little_memory(server_factory):
    """What a merge copies is bounded by --memory-limit, and merges go on under it."""
    server = server_factory("--memory-limit", "64M", "--lanes", "1",
                            "--checkpoint-interval", "300ms").start()
    session = requests.Session()
    dimension, points, batch = 256, 50_000, 1000
    assert server.put("/collections/c", json={
        "vectors": {"size": dimension, "distance": "Dot"}}).status_code == 200
    url, part = f"{server.url}/collections/c/points", 16 * MIB
    for first in [*range(0, points, batch), *range(0, points, 2 * batch)]:
        write(session, url, json.dumps({"points": [
            {"id": i, "vector": [1] * dimension} for i in range(first, first + batch)]}), [])
    most, deadline = 0, time.monotonic() + 120
    while (now := server.metrics())["millrace_points_reclaimed_bytes_total"] < 20 * MIB:
        assert time.monotonic() < deadline, now
        most = max(most, now['millrace_memory_used_bytes{kind="points"}'])
        time.sleep(0.02)
    assert now['millrace_points_merges_total{result="ok"}'] > 0
    assert most < part + 2 * MIB
    assert session.post(f"{url}/count", json={}).json()["result"]["count"] == points
