# SPDX-License-Identifier: Apache-2.0
"""--events redis+cluster://…: profiles, aggregates and ids on a real Redis Cluster of three masters with
a replica each, against the model of the events' other tests; whatever dies, every acknowledged tag
is in effect once."""
import concurrent.futures
import datetime
import json
import random
import shutil
import sys

import pytest
import requests

from conftest import PATIENCE_S, ROOT, Server, millrace, wait_until
from events_model import (Maker, Model, Wire, check_aggregates, check_profile, check_profiles, render,
                          settle)
from fleet import Fleet
from journal_file import JournalFile
from load import MINUTE, RANGE, Load, tag
from redis_cluster import keys_of, told
from redis_server import PASSWORD
from roles import ASKED

sys.path.append(str(ROOT / "tests" / "api"))
import test_events  # noqa: E402
import test_import  # noqa: E402
from test_import import files  # noqa: E402,F401

SEED = 6
OVERTAKEN = 'millrace_events_redis_scripts_total{outcome="overtaken"}'


def url_of(cluster, prefix):
    return f"{cluster.url}/?replicas=1&prefix={prefix}"


@pytest.fixture
def served(cluster, server_factory, request):
    """Makes servers whose events have a prefix of their own: the test's name."""
    def make(*options, name="data", prefix=request.node.name):
        return server_factory("--events", url_of(cluster, prefix), *options, name=name)
    return make


def part(server, port=None):
    answer = requests.get(f"http://127.0.0.1:{port or server.port}/healthz", timeout=PATIENCE_S)
    return answer.json()["parts"]["events"]


def error_of(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["code"] == code
    return answer.json()["error"]["message"]


# ---- The tests of the routes that reach the store, as they are ----

cookie = test_events.cookie
globals().update({name: getattr(test_events, name) for name in [
    "test_a_tag_comes_back_as_it_was_sent", "test_product_ids_keep_their_type_and_prices_their_sign",
    "test_ids_hold_any_unicode", "test_cookies_are_percent_decoded_once",
    "test_ids_are_compared_byte_for_byte", "test_identical_tags_and_equal_times_all_count",
    "test_lists_descend_by_time_whatever_the_order_of_arrival", "test_range_and_limit",
    "test_the_200_newest_of_each_action_are_kept", "test_an_unknown_cookie_has_two_empty_lists",
    "test_a_user_is_forgotten", "test_aggregates", "test_every_combination_of_filters",
    "test_an_unseen_filter_value_gives_zeros", "test_batch_takes_good_lines_and_names_bad_ones",
    "test_ids_are_dense_and_the_same_for_ever", "test_filters_are_utf8", "test_wrong_questions",
    "test_idempotency_key", "test_idempotency_key_of_a_batch", "test_a_refused_request_uses_no_key"]})


@pytest.fixture(scope="module")
def server(cluster_of_session, tmp_path_factory):
    """What they are given."""
    made = Server(tmp_path_factory.mktemp("server") / "data", "--events", url_of(cluster_of_session, "routes"))
    yield made.start()
    made.stop()


# ---- Tests of its own ----

class Feed:
    """Tags to a server and to the model."""

    def __init__(self, server, cookies=("hot", "a/b %", "é😀", *(f"c{i}" for i in range(200)))):
        self.random, self.server, self.model = random.Random(SEED), server, Model()
        self.maker = Maker(self.random, list(cookies))
        self.connect()

    def connect(self):
        self.wire = Wire(self.server, self.random)

    def add(self, n, **changes):
        tags = [self.maker.tag(**changes) for _ in range(n)]
        lines = [render(tag, self.random) for tag in tags]
        answer = self.wire.post_lines([*lines, b"no tag"], self.random.choice([None, "gzip"]))
        assert answer.status == 200 and answer.json()["accepted"] == n, answer.body
        one = self.maker.tag()
        assert self.wire.post_tag(one).status == 204
        assert self.wire.post_tag(one).status == 204  # the same again counts again
        for tag in [*tags, one, one]:
            self.model.add(tag)

    def erase(self, cookie):
        assert self.wire.erase(cookie).status == 204
        self.model.erase(cookie)
        assert self.wire.profile(cookie) == {"cookie": cookie, "views": [], "buys": []}

    def check(self):
        settle(self.server)
        seen = sorted(self.model.profiles)
        check_profiles(self.wire, self.model, self.random, {"hot", "nobody", *seen[:20]})
        for cookie in seen:
            check_profile(self.wire, self.model, cookie)
        check_aggregates(self.wire, self.model, self.random)


def test_events_equal_the_model(served):
    server = served().start()
    feed = Feed(server)
    for turn in range(3):
        feed.add(300)
        feed.add(150, cookie="hot")  # more than are kept
        feed.erase("c7")
        feed.erase(feed.random.choice(sorted(feed.model.profiles)))
        feed.add(20, cookie="c7")
        if turn == 1:
            server.kill()
            server.start()
            feed.connect()
        feed.check()
    late = feed.maker.tag(time="1999-12-31T23:59:59.999Z", cookie="hot")  # none is late here
    assert feed.wire.post_tag(late).status == 204
    feed.model.add(late)
    settle(server)
    check_aggregates(feed.wire, feed.model, feed.random, first="1999-12-31T23:55")


def test_sums_are_of_64_bits(served):
    server = served().start()
    feed, n = Feed(server), 300
    for price, action in [(2**31 - 1, "VIEW"), (-2**31, "BUY")]:
        tags = [feed.maker.tag(time="2022-03-22T12:15:00.000Z", action=action) for _ in range(n)]
        for tag in tags:
            tag["product_info"]["price"] = price
            feed.model.add(tag)
        assert feed.wire.post_tags(tags).json()["accepted"] == n
    feed.check()


def slot_moved(cluster, key):
    """Its slot goes to another master, with all that is in it."""
    masters = cluster.masters()
    slot = masters[0].call("CLUSTER", "KEYSLOT", key)
    source = next(m for m in masters if not str(m.call("TTL", key)).startswith("MOVED"))
    target = next(m for m in masters if m is not source)
    source_id, target_id = (m.call("CLUSTER", "MYID") for m in (source, target))
    assert target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id) == "OK"
    assert source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id) == "OK"
    while keys := source.call("CLUSTER", "GETKEYSINSLOT", slot, 100):
        assert source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 10000, "AUTH", PASSWORD,
                           "KEYS", *keys) == "OK"
    for node in (target, source):
        assert node.call("CLUSTER", "SETSLOT", slot, "NODE", target_id) == "OK"


def test_under_load_the_server_a_master_and_a_slot_go(cluster, served):
    prefix = "load"
    server = served(prefix=prefix).start()
    minute = int(datetime.datetime.fromisoformat(MINUTE + "+00:00").timestamp()) // 60
    with Load(server) as load:
        load.progress()
        server.kill()
        server.start()
        load.progress()
        slot_moved(cluster, f"{prefix}events:{{m:{minute}:0}}")
        load.progress()
        victim = cluster.masters()[0]
        victim.kill()
        assert wait_until(lambda: len(cluster.masters()) == 3)
        load.progress()  # acknowledged; in effect once two have it again
        cluster.run()
        assert wait_until(lambda: part(server)["ready"])
        load.progress()
    assert wait_until(cluster.is_whole)
    load.check()


def test_what_is_read_again_counts_once(cluster, served):
    """A start from an older position, and from none at all: as after a batch that was redelivered."""
    prefix = "again"
    server = served("--keep-journal-size", "1G", prefix=prefix).start()
    feed = Feed(server)
    older = {}
    for _ in range(2):
        feed.add(200)
        feed.erase("c3")
        feed.add(5, cookie="c3")
        feed.check()
        server.stop()
        positions = {key: told(cluster, "HGET", key, "low") or "0" * 20
                     for key in (f"{prefix}events:{{w:{lane}}}:p" for lane in range(4))}
        older = older or positions
        server.start()
        feed.connect()
    for restored in (older, dict.fromkeys(older, "0" * 20)):
        server.stop()
        for key, position in restored.items():
            told(cluster, "HSET", key, "low", position)
        server.start()
        feed.connect()
        assert server.metrics()[OVERTAKEN] > 0
        feed.check()


def test_racing_twins_count_once(server, cookie):
    body = json.dumps(test_events.a_tag(cookie=cookie))
    with concurrent.futures.ThreadPoolExecutor(3) as pool:  # more would find the test's short queue full
        answers = list(pool.map(lambda i: test_events.keyed(server, "/user_tags", body, f"k{i % 10}"),
                                range(60)))
    assert {answer.status_code for answer in answers} == {204}
    test_events.wait_profile(server, cookie, 10)
    settle(server)
    test_events.wait_profile(server, cookie, 10)


def test_a_key_counts_once_whatever_is_applied_again(cluster, served):
    """Sent twice, then all of it read again, then sent once more: in effect once, also what of it
    comes to a lane in several batches."""
    prefix = "keyed"
    server = served("--keep-journal-size", "1G", prefix=prefix).start()
    feed = Feed(server)
    tags = [feed.maker.tag(cookie=f"c{i % 7}") for i in range(100)]
    body = b"\n".join(render(tag, feed.random) for tag in tags)

    def send():
        answer = test_events.keyed(server, "/user_tags/batch", body, "the key")
        assert answer.json()["accepted"] == len(tags)
        feed.add(10)
    for tag in tags:
        feed.model.add(tag)
    send()
    send()
    feed.check()
    server.stop()
    for lane in range(4):
        told(cluster, "HSET", f"{prefix}events:{{w:{lane}}}:p", "low", "0" * 20)
    server.start()
    feed.connect()
    feed.check()
    send()
    feed.check()
    server.stop()
    for lane in range(4):  # and where the buckets do not know
        for key in keys_of(cluster, f"{prefix}events:{{[cm]:*"):
            told(cluster, "DEL", key)
        told(cluster, "HSET", f"{prefix}events:{{w:{lane}}}:p", "low", "0" * 20)
    server.start()
    feed.connect()
    feed.check()


def test_an_import_is_once_in_effect(served, files):  # noqa: F811
    n = 2 * test_import.SEVERAL_CHUNKS
    source = test_import.Halved(files, test_import.ndjson(test_import.tags(n, "far")))
    server = served("--import-hosts", files.authority).start()
    task_id = test_import.add(server, url=source.url, events=True, stall_s=3600)
    test_import.wait_taken(server, task_id)
    server.kill()
    source.go_on.set()
    server.start()
    task = test_import.wait_end(server, task_id)
    assert task["status"] == "succeeded" and task["result"]["accepted"] == n, task
    settle(server)
    assert test_import.count_tags(server, "far") == n


def test_a_journal_that_has_lost_its_newest(cluster, served):
    """Restored from a backup: what it gives lsns to next is none of what the buckets know."""
    prefix = "restored"
    server = served(prefix=prefix).start()
    feed = Feed(server)
    feed.add(50)
    settle(server)
    server.stop()
    shutil.copytree(server.directory, server.directory.with_name("backup"))
    server.start()
    feed.connect()
    feed.add(100)
    settle(server)
    server.kill()
    shutil.rmtree(server.directory)
    server.directory.with_name("backup").rename(server.directory)
    for lane in range(4):  # as if the crash had come between a batch and the next
        told(cluster, "HSET", f"{prefix}events:{{w:{lane}}}:p", "low", "0" * 20)
    server.start()
    assert "a store is ahead of the journal" in server.stderr()
    feed.connect()
    feed.add(150)
    feed.check()


def test_a_copy_of_the_data_directory(served):
    """Two that give the same lsns: the one that came last goes on, and the other says why it does not."""
    one = served().start()
    Feed(one).add(20)
    settle(one)
    shutil.copytree(one.directory, one.directory.with_name("copy"))
    two = served(name="copy").start()
    tag = test_events.a_tag()
    assert two.post("/user_tags", json=tag).status_code == 204
    settle(two)
    assert one.post("/user_tags", json=tag).status_code == 204
    assert wait_until(lambda: "has taken these events over" in part(one).get("reason", ""))
    assert two.post("/user_tags", json=tag).status_code == 204
    settle(two)
    one.kill()


def test_a_cluster_that_has_lost_something_is_noticed(cluster, served):
    """As when it was restored, or emptied: never passed over, and applied again from the journal."""
    prefix = "forgetful"
    server = served("--keep-journal-size", "1G", prefix=prefix).start()
    feed = Feed(server)
    feed.add(100)
    feed.check()
    for key in keys_of(cluster, f"{prefix}events:{{w:*"):
        told(cluster, "DEL", key)
    feed.add(50)
    assert wait_until(lambda: "has lost what it had applied" in part(server).get("reason", ""))
    server.kill()
    server.start()
    feed.connect()
    feed.check()  # the buckets were there yet: nothing counts twice
    server.stop()
    for key in keys_of(cluster, f"{prefix}events:*"):
        told(cluster, "DEL", key)
    server.spawn()
    assert server.process.wait(PATIENCE_S) == 1
    server.process = None
    assert "was it emptied?" in server.stderr().splitlines()[-1]
    (server.directory / "events-redis" / "SOURCE").unlink()
    server.start()
    feed.connect()
    feed.check()  # all of it was in the journal yet


def test_a_script_that_fails_leaves_no_gap(cluster, served):
    """A key of somebody else's lies where a cookie's tags are to go: they wait, and come then."""
    prefix = "foreign"
    server = served(prefix=prefix).start()
    feed = Feed(server)
    feed.add(1, cookie="one")
    settle(server)
    foreign, = keys_of(cluster, f"{prefix}events:{{c:*one")
    told(cluster, "RENAME", foreign, foreign + "-kept")
    told(cluster, "SET", foreign, "x")
    feed.add(20, cookie="one")
    assert wait_until(lambda: not part(server)["ready"])
    told(cluster, "RENAME", foreign + "-kept", foreign)
    feed.check()


def test_a_cluster_that_is_away(cluster, served):
    server = served().start()
    feed = Feed(server)
    feed.add(100)
    settle(server)
    assert feed.wire.get_id("origin", "one") == 1
    shown = part(server)
    assert (shown["ready"], shown["reachable"]) == (True, True)
    assert shown["url"].startswith("redis+cluster://127.0.0.1:") and PASSWORD not in shown["url"]
    cluster.kill()
    feed.add(50)  # acknowledged, and kept for it
    assert wait_until(lambda: not part(server)["reachable"])
    shown = part(server)
    assert not shown["ready"] and "does not answer" in shown["reason"]
    assert server.metrics()["millrace_events_redis_reachable"] == 0
    for method, path in [("GET", "/user_profiles/hot?time_range=2022-03-22T12:00:00_2022-03-22T13:00:00"),
                         ("GET", "/aggregates?time_range=2022-03-22T12:10:00_2022-03-22T12:11:00"
                                 "&action=VIEW&aggregates=COUNT")]:
        error_of(server.request(method, path), 503, "engine_unreachable")
    error_of(server.post("/get_id", json={"collection_name": "origin", "element": "two",
                                          "create_missing": True}), 503, "engine_unreachable")
    status = millrace("status", "--metrics-listen", f"127.0.0.1:{server.metrics_port}", "--json")
    assert PASSWORD not in status.stdout and "redis+cluster://" in status.stdout
    server.kill()
    server.spawn()
    assert wait_until(lambda: waits(server))
    cluster.run()
    assert wait_until(lambda: ready(server))
    assert wait_until(cluster.is_whole)
    feed.connect()
    feed.check()
    assert feed.wire.get_id("origin", "two") == 2
    assert feed.wire.get_id("origin", "one") == 1
    assert server.get("/status").json()["redis"]["reachable"] is True
    assert server.metrics()["millrace_events_redis_reachable"] == 1


def test_weak_settings_are_named(cluster, served):
    master = cluster.masters()[-1]
    master.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    server = served().start()
    assert wait_until(lambda: "maxmemory-policy allkeys-lru instead of noeviction" in server.stderr())
    master.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    # what is so on all of them is said of one
    assert server.stderr().count("min-replicas-to-write 0 instead of 1") == 1


def ready(server):
    try:
        return requests.get(server.url + "/readyz", timeout=PATIENCE_S).status_code == 200
    except requests.RequestException:
        return False


def waits(server):
    """Alive, not ready, and says for what."""
    try:
        answer = requests.get(server.url + "/readyz", timeout=PATIENCE_S)
        alive = requests.get(server.metrics_url + "/livez", timeout=PATIENCE_S)
    except requests.RequestException:
        return False
    parts = answer.json()["parts"]
    return (answer.status_code == 503 and alive.status_code == 200 and "events" in parts
            and parts["server"]["reason"] == "starting: waits for the events")


def test_what_is_refused(cluster, served, server_factory):
    server = served(prefix="mine").start()
    server.stop()

    def says(sentence, *options, name):
        other = server_factory(*options, name=name).spawn()
        assert other.process.wait(PATIENCE_S) != 0
        other.process = None
        assert sentence in other.stderr(), other.stderr()

    events = ("--events", url_of(cluster, "mine"))
    says("are of another data directory", *events, name="another")
    says("are in a Redis Cluster: give --events again", name="data")
    checked = json.loads(millrace("check", "--data-dir", str(server.directory), "--json").stdout)
    assert (checked["events"]["on_redis"], checked["damages"]) == (True, 0)
    server_factory(name="local").start().stop()
    says("keeps its events itself", *events, name="local")
    says("has a prefix that is not", "--events", url_of(cluster, "%7Bx%7D"), name="new")
    told(cluster, "HSET", "mineevents:{meta}", "layout", 2)
    says("another version of Millrace", *events, name="data")


@pytest.mark.parametrize("options", [
    ("--events", "redis+cluster://127.0.0.1:1/"), ("--tasks", "redis://127.0.0.1:1/"),
    ("--journal", "redis://127.0.0.1:1/", "--points", "qdrant://127.0.0.1:1")], ids=lambda o: o[0])
def test_a_start_that_reached_nobody_binds_nothing(server_factory, options):
    first = server_factory(*options).spawn()
    assert wait_until(lambda: "an engine says" in first.stderr())  # it waits
    first.kill()
    server_factory().start()


def test_dead_letters(served):
    server = served().start()
    feed = Feed(server)
    feed.add(20, cookie="c1")
    settle(server)
    server.stop()
    journal = JournalFile(server.directory)
    tag = [r for r in journal.records if r.kind == 2 and r.payload[1] == 5][-1]
    numbers = [journal.append("events", tag.key_hash, b"\xff" + tag.payload[1:]) for _ in range(3)]
    server.start()
    settle(server)
    for _ in range(2):
        letters = server.get("/dead-letters").json()["dead_letters"]
        assert [letter["number"] for letter in letters] == numbers[::-1]
        assert {letter["reason"] for letter in letters} == {"not a record of events"}
        server.kill()
        server.start()
    feed.connect()
    answer = server.post(f"/dead-letters/events/{numbers[0]}/replay")
    assert "does not decode" in error_of(answer, 422, "invalid_field")
    assert server.delete(f"/dead-letters/events/{numbers[0]}").status_code == 204
    mended = feed.maker.tag(cookie=cookie_of(tag))
    for _ in range(2):
        answer = server.post(f"/dead-letters/events/{numbers[1]}/replay", json={"record": mended})
    assert answer.status_code == 404
    feed.model.add(mended)
    assert [letter["number"] for letter in server.get("/dead-letters").json()["dead_letters"]] \
        == numbers[2:]
    feed.check()
    feed.erase(mended["cookie"])  # its letters go with it
    settle(server)
    assert server.get("/dead-letters").json()["dead_letters"] == []


def cookie_of(record):
    size = int.from_bytes(record.payload[4:8], "little")
    return record.payload[32:32 + size].decode()


def test_one_server_keeps_journal_events_and_tasks(redis, unique, tmp_path):
    """Under one prefix, which all names have; each tag is in effect once, whoever is killed."""
    url = f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/?prefix={unique}"
    fleet = Fleet(tmp_path, url + "&partitions=2", "--events", url, "--tasks", url)
    try:
        api, worker = fleet.start("api", "api"), fleet.start("worker", "worker")
        fleet.ready()
        for i in range(1, 5):
            assert api.post("/user_tags", json=tag("c", i)).status_code == 204
        task = api.post("/tasks", json={"type": "long_task", "args": {"total": 1}}).json()["id"]
        worker.kill()
        worker.spawn()

        def products():
            buys = api.get("/user_profiles/c", params=ASKED).json()["buys"]
            return sorted(int(buy["product_info"]["product_id"]) for buy in buys)

        assert wait_until(lambda: products() == [1, 2, 3, 4])
        assert wait_until(lambda: api.get(f"/tasks/{task}").json().get("status") == "succeeded")
        counted = api.post("/aggregates", params={"time_range": RANGE, "action": "BUY", "aggregates": "COUNT"})
        assert [row[-1] for row in counted.json()["rows"]] == ["4"]
        parts = requests.get(worker.metrics_url + "/readyz", timeout=PATIENCE_S).json()["parts"]
        assert parts["events"]["url"] == f"redis://127.0.0.1:{redis.port}/?prefix={unique}"
    finally:
        fleet.stop()
    names = {key.lstrip("{").removeprefix(unique) for key in redis.call("KEYS", f"*{unique}*")}
    assert {"events:identity", "tasks:identity", "events:{meta}", "tasks}:meta"} <= names and not any(
        name.startswith(unique) for name in names)
