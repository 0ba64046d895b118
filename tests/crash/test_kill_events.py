# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments under a load of events: profiles, aggregates and ids equal a model fed with
exactly what was acknowledged, and of the requests in flight each has its effect once or not at all.

Each client writes to cookies of its own, one request after the other: single tags, batches (one group:
all or nothing), both with and without an Idempotency-Key, erasures, and ids. Every product is new, so a
profile tells which tags in flight were taken; the aggregates must agree with it. A request in flight
that had a key is sent again after the crash, as a client would: then it has happened once. Kills come
at random moments, or as soon as the file of a checkpoint is seen, so that they fall between its parts:
dictionary, columns, profiles, keys.
CYCLES (30 by default for all of them together) and SEED can be set; the seed is printed.
"""
import os
import random
import threading
import time

import pytest

from conftest import ROOT, wait_until
from events_model import (ACTIONS, Maker, Model, Wire, canonical, check_aggregates, check_profile,
                          minute_after, settle)

CYCLES = int(os.environ.get("CYCLES") or 30)
SEED = int(os.environ.get("SEED") or random.randrange(2**32))
THREADS = 4
WINDOW = 11          # minutes of event time that a cycle's tags are of
TAGS_A_COOKIE = 150  # fewer than are kept, so that each tag can be found
CONSTANT = ["--checkpoint-interval", "20ms", "--checkpoint-size", "1K"]
COLLECTIONS = {"origin": "origin", "brand": "brand_id", "category": "category_id", "other": None}


class SharedModel(Model):
    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()
        self.ids = {}  # (collection, element) -> id; None: asked for, perhaps created

    def take(self, tags):
        with self.lock:
            for tag in tags:
                self.add(tag)


def post(wire, kind, tags, key):
    return wire.post_tag(tags[0], key) if kind == "tag" else wire.post_tags(tags, key)


class Client(threading.Thread):
    """Writes until the server dies."""

    def __init__(self, name, server, model, first):
        super().__init__()
        self.name, self.server, self.model = name, server, model
        self.random = random.Random(name)
        self.maker = Maker(self.random, [], name, first, 0)
        self.cookies = []    # all so far
        self.done = []       # (kind, tags, key) that were acknowledged
        self.in_flight = []  # (kind, tags or cookie, key) without an answer, or with 503
        self.writes, self.error = 0, None

    def run(self):
        try:
            wire = Wire(self.server)
            while True:
                self.step(wire)
                self.writes += 1
        except Wire.DIED:
            pass
        except Exception as error:  # an answer that should not be: the test reads it
            self.error = error

    def step(self, wire):
        dice = self.random.random()
        if dice < 0.5:
            self.send(wire, "tag", 1)
        elif dice < 0.85:
            self.send(wire, "batch", self.random.randint(1, 60))
        elif dice < 0.95:
            self.create(wire)
        elif len(self.cookies) > 6:
            self.erase(wire)

    def settled(self, request, answer, right):
        """Whether the outcome is known."""
        if answer.status in (429, 503):
            time.sleep(0.02)
            return False
        assert answer.status in right, (request[0], answer.status, answer.body)
        self.in_flight.remove(request)
        return True

    def send(self, wire, kind, n):
        if self.maker.n >= TAGS_A_COOKIE * len(self.cookies) / 3:
            self.cookies += [f"{self.name}/%é😀{len(self.cookies) + i}" for i in range(3)]
            self.maker.cookies = self.cookies[-3:]
        tags = [self.maker.tag() for _ in range(n)]
        key = f"{self.name} {self.writes}" if self.random.random() < 0.5 else None
        request = (kind, tags, key)
        self.in_flight.append(request)
        if self.settled(request, post(wire, kind, tags, key), (200, 204)):
            self.model.take(tags)
            self.done.append(request)

    def erase(self, wire):
        cookie = self.random.choice(self.cookies[:-3])
        request = ("erase", cookie, None)
        self.in_flight.append(request)
        if self.settled(request, wire.erase(cookie), (202, 204)):
            self.model.erase(cookie)

    def create(self, wire):
        pair = (self.random.choice(list(COLLECTIONS)), f"e{self.random.randrange(self.writes + 50)}")
        self.model.ids.setdefault(pair, None)
        check_id(wire, self.model, pair, create=True)


def check_id(wire, model, pair, create=False):
    """An id that was seen stays."""
    found = wire.get_id(*pair, create=create)
    assert model.ids.get(pair) in (None, found), (pair, model.ids[pair], found)
    model.ids[pair] = found
    return found


# ---- After the crash ----

def texts_of(wire, cookies):
    profiles = [wire.profile(cookie) for cookie in cookies]
    return {canonical(tag) for p in profiles for name in ACTIONS.values() for tag in p[name]}


def resolve_tags(wire, client, request):
    """Finds out whether tags in flight were taken: all of a request or none."""
    kind, tags, key = request
    if key:
        answer = post(wire, kind, tags, key)
        assert answer.status in (200, 204), (answer.status, answer.body)
        settle(client.server)
    texts = texts_of(wire, {tag["cookie"] for tag in tags})
    taken = sum(canonical(tag) in texts for tag in tags)
    assert taken in ([len(tags)] if key else [0, len(tags)]), f"{taken} of a batch of {len(tags)}"
    if taken:
        client.model.take(tags)


def resolve(wire, client):
    for request in client.in_flight:
        if request[0] != "erase":
            resolve_tags(wire, client, request)
        elif not texts_of(wire, [request[1]]):
            client.model.erase(request[1])


def send_again(wire, client, chooser):
    """Acknowledged before the crash, sent again with its key: no effect. Another body: refused."""
    keyed = [request for request in client.done if request[2]]
    for kind, tags, key in chooser.sample(keyed, min(3, len(keyed))):
        answer = post(wire, kind, tags, key)
        assert answer.status == (204 if kind == "tag" else 200), answer.body
        other = [{**tags[0], "country": "another"}] + tags[1:]
        assert post(wire, kind, other, key).status == 422


def check_ids(wire, model, pairs, dense):
    for pair in pairs:
        check_id(wire, model, pair)
    for collection in dense:
        ids = [i for (c, _), i in model.ids.items() if c == collection and i is not None]
        assert sorted(ids) == list(range(1, len(ids) + 1)), collection


def all_pairs(model):
    values = {(c, v) for c, name in COLLECTIONS.items() if name for v in model.values[name]}
    return values | set(model.ids)


def check(server, clients, chooser, first, windows):
    wire, model = Wire(server), clients[0].model
    settle(server)
    for client in clients:
        resolve(wire, client)
        send_again(wire, client, chooser)
    settle(server)
    older = sorted(set(model.profiles) - {c for client in clients for c in client.cookies})
    for client in clients:
        some = chooser.sample(client.cookies[:-3], min(6, len(client.cookies[:-3])))
        for cookie in client.cookies[-3:] + some + chooser.sample(older, min(2, len(older))):
            check_profile(wire, model, cookie)
    for start in {first, chooser.choice(windows)}:
        check_aggregates(wire, model, chooser, start)
        check_aggregates(wire, model, chooser, minute_after(start, 1))
    others = [pair for pair in model.ids if pair[0] == "other"]
    check_ids(wire, model, others, ["other"])


def wait_for_checkpoint(server, seconds):
    """Until the file of a checkpoint of events is seen."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not (server.directory / "events/ingest.sst").exists():
        pass


def cycles(server, n, seed):
    chooser = random.Random(seed)
    model, windows, total, tags = SharedModel(), [], 0, 0
    server.start()
    for cycle in range(n):
        first = minute_after("2022-03-22T12:10", cycle * WINDOW)
        windows.append(first)
        clients = [Client(f"{seed}-{cycle}-{i}", server, model, first) for i in range(THREADS)]
        for client in clients:
            client.start()
        if cycle == 0:  # however slow the machine
            assert wait_until(lambda: sum(c.writes for c in clients) >= n
                              or any(c.error for c in clients))
        time.sleep(chooser.choice([0.02, 0.1, 0.3, 0.5]) * (1 + chooser.random()))
        if server.options and chooser.random() < 0.5:
            wait_for_checkpoint(server, 1)
            time.sleep(chooser.choice([0, 0.001, 0.01]) * chooser.random())
        server.kill()
        for client in clients:
            client.join(120)
            if client.error:
                raise client.error
        server.start()
        check(server, clients, chooser, first, windows)
        total += sum(c.writes for c in clients)
        tags += sum(c.maker.n for c in clients)
    check_ids(Wire(server), model, all_pairs(model), COLLECTIONS)
    server.stop()
    print(f"{n} cycles, {total} requests, {tags} tags, seed {seed}")


@pytest.mark.parametrize("build,options", [
    ("build", []), ("build", CONSTANT), ("build-debug", CONSTANT)],
    ids=["release", "release-checkpoints", "debug-checkpoints"])
def test_invariants_1_3_4_7_kill_events_under_load(server_factory, build, options):
    print(f"seed {SEED}")
    server = server_factory(*options, binary=str(ROOT / build / "millrace"))
    cycles(server, max(1, CYCLES // 3), SEED)


def test_invariant_3_killed_again_while_it_replays_events(server_factory):
    """The next start finds the same, however often; also right after the replay's own checkpoints."""
    print(f"seed {SEED}")
    chooser = random.Random(SEED)
    server = server_factory(*CONSTANT, binary=str(ROOT / "build-debug" / "millrace")).start()
    wire, model = Wire(server), SharedModel()
    maker = Maker(chooser, ["a/b", "é😀", "%"])
    for _ in range(20):
        tags = [maker.tag() for _ in range(25)]
        assert wire.post_tags(tags).json()["accepted"] == len(tags)
        model.take(tags)
    server.kill()
    for _ in range(10):
        server.spawn()
        time.sleep(chooser.random() * 0.3)
        server.kill()
    server.start()
    settle(server)
    wire = Wire(server)
    for cookie in maker.cookies:
        check_profile(wire, model, cookie)
    check_aggregates(wire, model, chooser)
    check_aggregates(wire, model, chooser, "2022-03-22T12:11")
    server.stop()
