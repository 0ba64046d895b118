# SPDX-License-Identifier: Apache-2.0
"""Events against a plain model: random tags in every form, every query, restarts and checkpoints in
between. A failing run prints its seed; SEED=n replays it.
"""
import json
import os
import random
import threading
import time

import pytest

from conftest import SANITIZED, TINY
from events_model import (EVER, LONG_TEXTS, TEXTS, Maker, Model, Wire, check_aggregate,
                          check_aggregates, check_profile, check_profiles, minutes_from, quoted,
                          render, settle, some_text, spoiled)

pytestmark = pytest.mark.long

SEED = int(os.environ.get("SEED") or random.randrange(2**32))
OFTEN = ["--checkpoint-interval", "100ms", "--checkpoint-size", "64K"]
# So many tags move the watermark (EVENT_WATERMARK_TAGS).
WATERMARK_TAGS = 10 if TINY else 1000
ROUNDS = 3 if SANITIZED else 6
THREADS = 8


@pytest.fixture
def chooser():
    print(f"seed {SEED}")
    return random.Random(SEED)


def some_cookies(chooser):
    return ["hot", "warm", *TEXTS, *LONG_TEXTS, *{some_text(chooser) for _ in range(40)}]


def send_batch(wire, model, maker, chooser, n, **changes):
    """n lines, bad ones and blank ones among them; the answer must name each bad one."""
    lines, good, bad = [], [], []
    for number in range(1, n + 1):
        tag = maker.tag(**changes)
        dice = chooser.random()
        if dice < 0.1:
            lines.append(spoiled({**tag, "origin": f"never {maker.n}"}, chooser))
            bad.append(number)
        elif dice < 0.12:
            lines.append(chooser.choice([b"", b" ", b"\r"]))
        else:
            lines.append(render(tag, chooser) + chooser.choice([b"", b"\r"]))
            good.append(tag)
    answer = wire.post_lines(lines, chooser.choice([None, "gzip", "zstd"]))
    assert answer.status == 200, answer.body
    found = answer.json()
    assert found["accepted"] == len(good)
    assert [r["line"] for r in found["rejected"]] == bad, lines
    assert all(r["error"] for r in found["rejected"])
    for tag in good:
        model.add(tag)


def send_some(wire, model, maker, chooser):
    for _ in range(chooser.randint(1, 40)):
        tag = maker.tag()
        answer = wire.post_tag(tag)
        assert (answer.status, answer.body) == (204, b""), (tag, answer.body)
        model.add(tag)
        if chooser.random() < 0.05:  # the same again counts again
            assert wire.post_tag(tag).status == 204
            model.add(tag)
    for _ in range(chooser.randint(0, 3)):
        send_batch(wire, model, maker, chooser, chooser.choice([1, 30, 300]))
    # one cookie whose lists overflow
    send_batch(wire, model, maker, chooser, 300, cookie="hot")


def erase_some(wire, model, chooser):
    for cookie in chooser.sample(sorted(model.profiles), min(2, len(model.profiles))):
        assert wire.erase(cookie).status == 204
        model.erase(cookie)
        assert wire.profile(cookie) == {"cookie": cookie, "views": [], "buys": []}


def check_ids(wire, model):
    """The ids of what tags brought are 1, 2, 3, …: what was refused has none."""
    for collection, name in [("origin", "origin"), ("brand", "brand_id"),
                             ("category", "category_id")]:
        ids = [wire.get_id(collection, value, create=False) for value in model.values[name]]
        assert sorted(ids) == list(range(1, len(ids) + 1)), (collection, ids)


def warm_up(wire, model, maker):
    """So many tags that the watermark is somewhere in 12:10 to 12:20 from now on."""
    tags = [maker.tag(time=maker.minutes[5] + ":30.000Z") for _ in range(WATERMARK_TAGS)]
    answer = wire.post_tags(tags)
    assert answer.json() == {"accepted": len(tags), "rejected": []}, answer.body
    for tag in tags:
        model.add(tag)


@pytest.mark.parametrize("options", [[], OFTEN], ids=["", "checkpoints"])
def test_invariants_1_3_4_events_equal_the_model(server_factory, chooser, options):
    server = server_factory(*options).start()
    wire, model = Wire(server, chooser), Model()
    cookies = some_cookies(chooser)
    maker = Maker(chooser, cookies)
    warm_up(wire, model, maker)
    settle(server)
    for turn in range(ROUNDS):
        send_some(wire, model, maker, chooser)
        for time_ms in maker.LATE[:2] + ["2022-03-21T12:09:00.000Z"]:
            tag = maker.tag(time=time_ms)
            assert wire.post_tag(tag).status == 204
            model.add(tag, late=True)
        erase_some(wire, model, chooser)
        settle(server)
        if turn % 2:
            server.stop()
            server.start()
            wire = Wire(server, chooser)
        seen = sorted(model.profiles)
        check_profiles(wire, model, chooser, {"hot", "nobody", *chooser.sample(seen, min(12, len(seen)))})
        check_aggregates(wire, model, chooser)
        check_aggregates(wire, model, chooser, f"2022-03-22T{chooser.randrange(12):02}:30")
    check_profiles(wire, model, chooser, {*cookies, "nobody"}, queries=1)
    check_ids(wire, model)
    server.stop()


def test_one_minute_of_more_than_70000_tags(server_factory, chooser):
    server = server_factory(*OFTEN).start()
    wire, model = Wire(server, chooser), Model()
    maker = Maker(chooser, [f"c{i}" for i in range(500)])
    maker.plain = 1
    total = 5000 if TINY else 71000
    for start in range(0, total, 5000):
        tags = [maker.tag(time=f"2022-03-22T12:15:{chooser.randrange(60):02}.007Z")
                for _ in range(min(5000, total - start))]
        assert wire.post_tags(tags).json()["accepted"] == len(tags)
        for tag in tags:
            model.add(tag)
    settle(server)
    for _ in range(2):
        check_aggregates(wire, model, chooser, "2022-03-22T12:14", rounds=2)
        check_profiles(wire, model, chooser, ["c0", "c1", "c499"])
        server.stop()
        server.start()
        wire = Wire(server, chooser)
    server.stop()


def test_sums_pass_the_bounds_of_int32_and_53_bits(server_factory, chooser):
    server = server_factory().start()
    wire, model = Wire(server, chooser), Model()
    maker = Maker(chooser, ["c"])
    n = 300
    for price, brand, action in [(2**31 - 1, "high", "VIEW"), (-2**31, "low", "BUY")]:
        tags = []
        for _ in range(n):
            tag = maker.tag(time="2022-03-22T12:15:00.000Z", action=action, origin="o")
            tag["product_info"].update(price=price, brand_id=brand, category_id="c")
            tags.append(tag)
            model.add(tag)
        assert wire.post_tags(tags).json()["accepted"] == n
    settle(server)
    for action, brand in [("VIEW", "high"), ("BUY", "low")]:
        for filters in [{}, {"brand_id": brand}]:
            check_aggregate(wire, model, ["2022-03-22T12:15"], action, filters, ["SUM_PRICE", "COUNT"])
    found = wire.aggregate(["2022-03-22T12:15"], "BUY", {"brand_id": "low"}, ["SUM_PRICE"])
    assert found["rows"] == [["2022-03-22T12:15:00", "BUY", "low", str(-2**31 * n)]]
    server.stop()


def late_tags(server):
    return server.metrics()["millrace_events_late_tags_total"]


def test_a_late_tag_is_kept_and_counted_but_in_no_aggregate(server_factory, chooser):
    server = server_factory(*OFTEN).start()
    wire, model = Wire(server, chooser), Model()
    maker = Maker(chooser, ["c"])
    warm_up(wire, model, maker)
    settle(server)
    within, late = "2022-03-21T12:15", "2022-03-21T12:14"  # the watermark is 2022-03-22T12:15
    for minute in [within, late]:
        tag = maker.tag(time=minute + ":59.999Z", cookie="one", action="VIEW")
        assert wire.post_tag(tag).status == 204
        model.add(tag, late=minute == late)
    settle(server)
    for _ in range(2):  # before and after a restart: the decision stands in the record
        check_profile(wire, model, "one")
        for minute in [late, within]:
            check_aggregate(wire, model, minutes_from(minute, 1), "VIEW", {}, ["COUNT"])
        found = wire.aggregate([late, within], "VIEW", {}, ["COUNT"])
        assert [row[-1] for row in found["rows"]] == ["0", "1"]
        server.stop()
        server.start()
        wire = Wire(server, chooser)
    tag = maker.tag(time="1999-12-31T23:59:59.999Z", cookie="one")
    before = late_tags(server)
    assert wire.post_tag(tag).status == 204
    settle(server)
    assert late_tags(server) == before + 1
    server.stop()


def test_a_tag_of_2099_does_not_take_the_day_away(server_factory, chooser):
    server = server_factory(*OFTEN).start()
    wire, model = Wire(server, chooser), Model()
    maker = Maker(chooser, ["c", "d"])
    warm_up(wire, model, maker)
    settle(server)
    for future in ["2099-01-01T00:00:00.000Z", "9999-12-31T23:59:00.000Z"]:
        tag = maker.tag(time=future, cookie="c")
        assert wire.post_tag(tag).status == 204
        model.add(tag)
    settle(server)
    for _ in range(2):
        send_batch(wire, model, maker, chooser, 200)
        settle(server)
        check_profiles(wire, model, chooser, ["c", "d"])
        check_aggregates(wire, model, chooser)
        check_aggregate(wire, model, minutes_from("2098-12-31T23:59", 3), "VIEW", {}, ["COUNT"])
        server.stop()
        server.start()
        wire = Wire(server, chooser)
    server.stop()


def in_threads(n, work):
    """Runs work(number) in n threads at once; what they returned. An error of one is raised."""
    results, errors, gate = [None] * n, [], threading.Barrier(n)

    def run(number):
        try:
            gate.wait(30)
            results[number] = work(number)
        except Exception as error:  # raised below, in the test's thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if errors:
        raise errors[0]
    return results


def test_concurrent_creation_gives_one_id_the_same_for_ever(server_factory, chooser):
    """All threads ask for the same element at the same moment, or for any."""
    server = server_factory("--threads", "4", *OFTEN).start()
    names = ["origin", "new", "ż/😀 collection"]
    elements = [f"e{i}" for i in range(40 if SANITIZED else 150)] + TEXTS + [""]
    seeds = [chooser.random() for _ in range(THREADS)]
    together = threading.Barrier(THREADS)

    def create(number):
        mine, own, wire = {}, random.Random(seeds[number]), Wire(server)
        for collection in names:
            order = list(elements)
            if collection != "new":
                own.shuffle(order)
            for element in order:
                if collection == "new":
                    together.wait(60)
                mine[collection, element] = wire.get_id(collection, element)
        return mine

    results = in_threads(THREADS, create)
    assert all(mine == results[0] for mine in results)
    for name in names:
        ids = sorted(i for (collection, _), i in results[0].items() if collection == name)
        assert ids == list(range(1, len(elements) + 1)), name
    for again in range(2):
        server.stop()
        server.start()
        wire = Wire(server)
        for (collection, element), i in results[0].items():
            assert wire.get_id(collection, element, create=again == 0) == i
        assert wire.get_id("new", "absent", create=False) is None
        assert wire.get_id("absent", "absent", create=False) is None
        assert wire.get_id("new", f"next{again}") == len(elements) + 1 + again
    server.stop()


def test_a_tag_and_get_id_have_one_dictionary(server_factory, chooser):
    server = server_factory().start()
    wire = Wire(server)
    assert wire.get_id("origin", "first") == 1
    tag = Maker(chooser, ["c"]).tag(origin="second")
    tag["product_info"]["brand_id"] = "b"
    assert wire.post_tag(tag).status == 204
    assert wire.get_id("origin", "second", create=False) == 2
    assert wire.get_id("brand", "b", create=False) == 1
    refused = {**tag, "origin": "third", "device": "none"}
    assert wire.post_tag(refused).status in (400, 422)
    assert wire.get_id("origin", "third", create=False) is None
    server.stop()


def test_two_threads_racing_on_one_cookie(server_factory, chooser):
    """Writers and readers on many connections: each answer is in order, without twins, and holds
    what its writer had got an answer for; at the end all is there, once."""
    server = server_factory("--threads", "2", *OFTEN).start()
    model = Model()
    seeds = [chooser.random() for _ in range(THREADS)]
    n = 40 if SANITIZED else 150
    stop = threading.Event()

    def write(number):
        own, wire = random.Random(seeds[number]), Wire(server)
        maker, sent = Maker(own, ["one"], f"w{number}"), []
        maker.n = number * 1_000_000  # no writer's product is another's
        for i in range(n):
            tags = [maker.tag() for _ in range(1 if i % 10 else 5)]
            answer = wire.post_tag(tags[0]) if len(tags) == 1 else wire.post_tags(tags)
            assert answer.status in (200, 204), answer.body
            sent += tags
        return sent

    def read():
        wire = Wire(server)
        least = 0
        while not stop.is_set():
            found = wire.profile("one")
            ids = [json.dumps(t["product_info"]["product_id"]) + t["time"] + t["origin"]
                   for name in ("views", "buys") for t in found[name]]
            assert len(ids) == len(set(ids))
            assert len(ids) >= least, "tags were there and are gone"
            least = len(ids)
            rows = wire.aggregate(minutes_from("2022-03-22T12:10", 10), "VIEW", {}, ["COUNT"])["rows"]
            assert sum(int(row[-1]) for row in rows) <= THREADS * n * 5

    failures = []

    def reader():
        try:
            read()
        except Exception as error:  # raised below, in the test's thread
            failures.append(error)

    readers = [threading.Thread(target=reader) for _ in range(2)]
    for thread in readers:
        thread.start()
    try:
        results = in_threads(THREADS, write)
    finally:
        stop.set()
        for thread in readers:
            thread.join(60)
    if failures:
        raise failures[0]
    for sent in results:
        for tag in sent:
            model.add(tag)
    settle(server)
    wire = Wire(server, chooser)
    check_profiles(wire, model, chooser, ["one"], queries=20)
    check_aggregates(wire, model, chooser, rounds=2)
    server.stop()


def test_a_tag_is_soon_in_profiles_and_aggregates(server_factory, chooser):
    """Invariant 9 for events: a query finds a tag soon after its answer (the bound is the contract's)."""
    server = server_factory().start()
    wire, maker = Wire(server), Maker(chooser, ["c"])
    for i in range(20):
        cookie = f"soon {i}"
        tag = maker.tag(cookie=cookie, action="BUY", origin=cookie, time="2022-03-22T12:15:00.000Z")
        assert wire.post_tag(tag).status == 204
        answered = time.monotonic()
        while not wire.profile(cookie)["buys"]:
            assert time.monotonic() < answered + 10
        while wire.aggregate(["2022-03-22T12:15"], "BUY", {"origin": cookie},
                             ["COUNT"])["rows"][0][-1] != "1":
            assert time.monotonic() < answered + 10
    server.stop()


def test_erased_is_erased_for_ever(server_factory, chooser):
    """From memory and from disk; what comes later is kept."""
    server = server_factory(*OFTEN).start()
    wire, model = Wire(server, chooser), Model()
    maker = Maker(chooser, ["gone/%é😀", "stays"])
    for turn in range(4):
        send_batch(wire, model, maker, chooser, 200)
        if turn % 2:
            settle(server)
            time.sleep(0.3)
        answer = wire.erase("gone/%é😀")
        assert (answer.status, answer.body) == (204, b"")
        model.erase("gone/%é😀")
        check_profile(wire, model, "gone/%é😀")
        send_batch(wire, model, maker, chooser, 20)
        if turn == 2:
            server.stop()
            server.start()
            wire = Wire(server, chooser)
        settle(server)
        check_profiles(wire, model, chooser, ["gone/%é😀", "stays"])
    assert wire.erase("unknown").status == 204
    check_aggregates(wire, model, chooser)  # these name nobody and keep their counts
    server.stop()


def test_an_empty_profile_of_every_cookie_that_is_never_null(server):
    wire = Wire(server)
    for cookie in ["nobody", *TEXTS, *LONG_TEXTS]:
        assert wire.profile(cookie) == {"cookie": cookie, "views": [], "buys": []}
    answer = wire.request("GET", f"/user_profiles/{quoted('x' * 4097)}?time_range={EVER[0]}_{EVER[1]}")
    assert answer.status in (400, 422)
