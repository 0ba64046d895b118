# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments under load: nothing acknowledged is lost, nothing false is served.

Each client thread owns a range of ids and writes one request after the other: upserts of several
points, deletes, and now and then it drops the collection of its own and makes it again. So for every
id the state after a crash must be the last acknowledged one, or that of the one request in flight.
CYCLES (30 by default for the two builds together) and SEED can be set; the seed is printed.
"""
import os
import random
import threading
import time

import pytest
import requests

from conftest import ROOT, wait_until

CYCLES = int(os.environ.get("CYCLES") or 30)
SEED = int(os.environ.get("SEED") or random.randrange(2**32))
THREADS = 4
IDS = 60
DIMENSION = 8


def vector_of(collection, point, version):
    """Points of the shared collection have two vectors, one or none, as their version says."""
    vector = [point, version] + [0.5] * (DIMENSION - 2)
    if collection != "shared":
        return vector
    return {name: vector for bit, name in enumerate("ab") if version >> bit & 1}


class Client(threading.Thread):
    """Writes until the server dies. acknowledged: id -> version or None; in_flight: what the one
    request without an answer would have made of the ids it names, or None."""

    def __init__(self, number, server, seed):
        super().__init__()
        self.number, self.server = number, server
        self.random = random.Random(seed)
        self.shared = "shared"
        self.own = f"own_{number}"
        self.ids = range(number * IDS, (number + 1) * IDS)
        self.state = {self.shared: {}, self.own: {}}
        self.in_flight = None
        self.own_exists = False
        self.version = 0
        self.writes = 0
        self.error = None

    def run(self):
        session = requests.Session()
        try:
            while True:
                self.step(session)
                self.writes += 1
        except (requests.RequestException, ConnectionError):
            pass
        except Exception as error:  # an answer that should not be: the test reads it
            self.error = error

    def send(self, session, method, path, body, effect):
        """effect: (collection, {id: version or None}) or (collection, "made" or "dropped")."""
        self.in_flight = effect
        answer = session.request(method, self.server.url + path, json=body, timeout=60)
        if answer.status_code == 503 or answer.status_code == 429:
            return  # it may or may not have happened: stays in flight until the next one
        assert answer.status_code == 200, (answer.status_code, answer.text)
        self.settle(effect)

    def settle(self, effect):
        collection, change = effect
        if change == "made":
            self.own_exists = True
        elif change == "dropped":
            self.own_exists = False
            self.state[collection] = {}
        else:
            self.state[collection].update(change)
        self.in_flight = None

    def step(self, session):
        if not self.own_exists:
            self.send(session, "PUT", f"/collections/{self.own}",
                      {"vectors": {"size": DIMENSION, "distance": "Dot"}}, (self.own, "made"))
        collection = self.random.choice([self.shared, self.shared, self.own])
        chosen = self.random.sample(self.ids, self.random.randrange(1, 12))
        wait = self.random.choice(["true", "false"])
        dice = self.random.random()
        self.version += 1
        if dice < 0.02 and collection == self.own:
            self.send(session, "DELETE", f"/collections/{self.own}", None, (self.own, "dropped"))
        elif dice < 0.25:
            self.send(session, "POST", f"/collections/{collection}/points/delete?wait={wait}",
                      {"points": chosen}, (collection, {i: None for i in chosen}))
        else:
            points = [{"id": i, "vector": vector_of(collection, i, self.version),
                       "payload": {"version": self.version, "id": i}} for i in chosen]
            self.send(session, "PUT", f"/collections/{collection}/points?wait={wait}",
                      {"points": points}, (collection, {i: self.version for i in chosen}))


def scroll(server, collection):
    found, offset = {}, None
    while True:
        body = {"limit": 97, "with_vector": True, **({} if offset is None else {"offset": offset})}
        result = server.post(f"/collections/{collection}/points/scroll", json=body).json()["result"]
        for point in result["points"]:
            assert point["id"] not in found, f"id {point['id']} twice"
            assert point["payload"]["id"] == point["id"]
            version = point["payload"]["version"]
            assert point["vector"] == vector_of(collection, point["id"], version)
            found[point["id"]] = version
        offset = result["next_page_offset"]
        if offset is None:
            return found


def check_collection(server, collection, clients):
    found = scroll(server, collection)
    count = server.post(f"/collections/{collection}/points/count", json={}).json()["result"]["count"]
    assert count == len(found)
    for client in clients:
        effect = client.in_flight
        pending = effect[1] if effect and effect[0] == collection else {}
        pending = pending if isinstance(pending, dict) else {}
        before = {i: client.state[collection].get(i) for i in client.ids}
        after = {**before, **pending}
        served = {i: found.get(i) for i in client.ids}
        assert served in (before, after), {
            i: (served[i], before[i], after[i]) for i in client.ids
            if served[i] not in (before[i], after[i]) or before[i] != after[i]}
        client.state[collection] = {i: v for i, v in served.items() if v is not None}
    for name in "ab" if collection == "shared" else [""]:
        hits = server.post(f"/collections/{collection}/points/query", json={
            "query": [1.0] + [0.0] * (DIMENSION - 1), "using": name, "limit": 1000}).json()
        assert {h["id"] for h in hits["result"]["points"]} == {
            i for i, version in found.items() if not name or name in vector_of(collection, i, version)}


def check(server, clients):
    check_collection(server, "shared", clients)
    for client in clients:
        effect = client.in_flight
        exists = server.get(f"/collections/{client.own}/exists").json()["result"]["exists"]
        in_doubt = effect and effect[0] == client.own and effect[1] in ("made", "dropped")
        assert exists == client.own_exists or in_doubt, (client.own, exists, effect)
        client.own_exists = exists
        if not exists:
            client.state[client.own] = {}
        else:
            check_collection(server, client.own, [client])
        client.in_flight = None


def merges_of(server):
    return server.metrics()['millrace_points_merges_total{result="ok"}']


def first_writes(server, clients, wanted, merging):
    """However slow the machine: so many writes, and a merge when there must be one."""
    def there():
        enough = sum(c.writes for c in clients) >= wanted
        return any(c.error for c in clients) or enough and (not merging or merges_of(server))
    assert wait_until(there)


def cycles(server, n, seed, merging):
    chooser = random.Random(seed)
    server.start()
    assert server.put("/collections/shared", json={"vectors": {
        name: {"size": DIMENSION, "distance": "Dot"} for name in "ab"}}).status_code == 200
    clients = [Client(i, server, f"{seed}-{i}") for i in range(THREADS)]
    total = merges = 0
    for cycle in range(n):
        for client in clients:
            client.start()
        if cycle == 0:
            first_writes(server, clients, n, merging)
        time.sleep(chooser.choice([0.02, 0.1, 0.3, 0.5, 1.0]) * (1 + chooser.random()))
        merges += merges_of(server)
        server.kill()
        for client in clients:
            client.join(120)
            if client.error:
                raise client.error
        server.start()
        check(server, clients)
        total += sum(c.writes for c in clients)
        renewed = []
        for old in clients:
            new = Client(old.number, server, f"{seed}-{cycle}-{old.number}")
            new.state, new.own_exists, new.version = old.state, old.own_exists, old.version + 1000
            renewed.append(new)
        clients = renewed
    server.stop()
    print(f"{n} cycles, {total} acknowledged writes, {merges:.0f} merges, seed {seed}")


@pytest.mark.parametrize("build,options", [
    ("build", []), ("build-debug", ["--checkpoint-interval", "100ms", "--checkpoint-size", "16K"])])
def test_invariants_1_3_7_kill_under_load(server_factory, build, options):
    binary = ROOT / build / "millrace"
    print(f"seed {SEED}")
    server = server_factory(*options, binary=str(binary))
    cycles(server, max(1, CYCLES // 2), SEED, merging=build == "build-debug")  # segments of 16 rows


def test_kill_during_start(server_factory):
    """Killed again while it recovers: the next start finds the same."""
    server = server_factory(binary=str(ROOT / "build-debug" / "millrace")).start()
    assert server.put("/collections/c", json={
        "vectors": {"size": 1, "distance": "Dot"}}).status_code == 200
    for start in range(0, 2000, 100):
        assert server.put("/collections/c/points", json={"points": [
            {"id": i, "vector": [i]} for i in range(start, start + 100)]}).status_code == 200
    server.kill()
    chooser = random.Random(SEED)
    for _ in range(10):
        server.spawn()
        time.sleep(chooser.random() * 0.2)
        server.kill()
    server.start()
    assert server.post("/collections/c/points/count", json={}).json()["result"]["count"] == 2000
