# SPDX-License-Identifier: Apache-2.0
"""A journal of events that processes share, on Redis: a stream a partition, also by Sentinels."""
import pytest
import requests

from conftest import PATIENCE_S, millrace, wait_until
from driver_suite import SUITE, run_shared_suites, run_suite
from fleet import Fleet, answers
from letters import RedisLog, letters_of_events_go_from_any_api
from load import tag
from redis_cluster import told
from redis_server import DURABLE, PASSWORD, Redis, Trio
from roles import (ASKED, PARTITIONS, a_worker_names_the_engine,
                   an_api_says_that_no_worker_lives, an_engine_fails_over, an_idle_api_notices,
                   another_store_is_refused, apis_die_and_the_engine_too,
                   workers_come_go_and_freeze)

IDS_SINCE = 1767225600  # they are this clock's, eight a millisecond
LAST_ID = """local info = redis.call("XINFO", "STREAM", KEYS[1])
for i = 1, #info, 2 do if info[i] == "last-generated-id" then return info[i + 1] end end"""


@pytest.fixture
def make_fleet(cluster, unique, tmp_path):
    made = []

    def make(journal):
        name = f"{unique}{len(made)}"
        made.append(Fleet(tmp_path, journal.replace("LOG", name)
                          + f"-&partitions={PARTITIONS}&session-timeout=2000",
                          "--events", f"{cluster.url}/?replicas=1&prefix={name}"))
        return made[-1]

    yield make
    for fleet in made:
        fleet.stop()


def url_of(redis):
    return f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/?prefix=LOG"


def test_what_the_driver_promises(redis):
    run_shared_suites(url_of(redis) + "&partitions=4")


def test_what_this_driver_promises(redis):
    run_suite(url_of(redis) + "-&partitions=2", suite=SUITE.with_name("test-journal-redis_shared"))


def test_workers_come_go_and_freeze(make_fleet, redis):
    workers_come_go_and_freeze(make_fleet(url_of(redis)))


def test_apis_die_and_redis_too(make_fleet, redis):
    apis_die_and_the_engine_too(make_fleet(url_of(redis)), redis.kill, redis.start)


def test_an_idle_api_notices(make_fleet, redis):
    an_idle_api_notices(make_fleet(url_of(redis)), redis.kill, redis.start)


def test_a_worker_names_the_engine(make_fleet, redis):
    a_worker_names_the_engine(make_fleet(url_of(redis)), redis.kill, redis.start,
                              f"Redis at 127.0.0.1:{redis.port}")


def test_an_api_says_that_no_worker_lives(make_fleet, redis):
    an_api_says_that_no_worker_lives(make_fleet(url_of(redis)), "messages of the journal", True)


def test_another_store_is_refused(make_fleet, redis):
    another_store_is_refused(make_fleet(url_of(redis)), lambda key: redis.call("DEL", key))


def test_what_an_earlier_version_made_gets_its_mark(make_fleet, redis, cluster):
    """A journal without one, and a store that has nothing to be known by."""
    fleet = make_fleet(url_of(redis))
    one = fleet.start("one", "api,worker")
    fleet.ready()
    prefix = fleet.stores[-1].split("prefix=")[1]
    mark, meta = f"{prefix}-events:store", f"{prefix}events:{{meta}}"
    identity = told(cluster, "HGET", meta, "identity")
    assert identity.startswith(f"{prefix}events/") and redis.call("GET", mark) == identity
    one.stop()
    assert redis.call("DEL", mark) == told(cluster, "HDEL", meta, "identity") == "1"
    # Who only looks leaves none.
    done = millrace("journal", "dead-letters", "list", "--journal", fleet.journal, *fleet.stores)
    assert (done.returncode, done.stdout) == (0, "no dead letters\n"), done
    assert redis.call("EXISTS", mark) == told(cluster, "HEXISTS", meta, "identity") == "0"
    one.spawn()
    fleet.ready()
    other = told(cluster, "HGET", meta, "identity")
    assert redis.call("GET", mark) == other != identity


def test_dead_letters_go_from_any_api(make_fleet, redis):
    fleet = make_fleet(url_of(redis))
    name = fleet.journal.split("prefix=")[1].split("&")[0] + "events"
    letters_of_events_go_from_any_api(fleet, RedisLog(redis, name, PARTITIONS))


def test_another_master_begins_above_what_the_last_may_have_given(make_fleet, redis):
    """So a reader that knows more than a master of today passes over nothing that comes."""
    fleet = make_fleet(url_of(redis))
    one = fleet.start("one", "api,worker")
    fleet.ready()

    def post(number):
        assert one.post("/user_tags", json=tag("c", number)).status_code == 204

    def there():
        answer = one.get("/user_profiles/c", params=ASKED)
        return {buy["product_info"]["product_id"] for buy in answer.json()["buys"]}

    post(1)
    assert wait_until(lambda: there() == {"1"})
    [stream] = [key.removesuffix(":server") for key in redis.call("KEYS", "*-events-*:server")
                if key.startswith(fleet.journal.split("prefix=")[1].split("&")[0])]
    server = redis.call("GET", f"{stream}:server")
    redis.call("SET", f"{stream}:server", ("e" if server[0] == "f" else "f") + server[1:])
    post(2)
    now = int(redis.call("TIME")[0])
    begun = int(redis.call("EVAL", LAST_ID, 1, stream).removesuffix("-0")) / 8000 + IDS_SINCE
    assert now - PATIENCE_S < begun <= now + 1
    assert wait_until(lambda: there() == {"1", "2"})


def test_a_jump_of_ids_is_not_lag(make_fleet, redis):
    fleet = make_fleet(url_of(redis))
    api, worker = fleet.start("api", "api"), fleet.start("worker", "worker")
    fleet.ready()

    def lag():
        return api.get("/readyz").json()["parts"]["events"].get("lag_messages")

    assert api.post("/user_tags", json=tag("c", 1)).status_code == 204
    assert wait_until(lambda: api.get("/user_profiles/c", params=ASKED).json()["buys"])
    assert wait_until(lambda: lag() == 0)
    worker.stop()
    [server] = [key for key in redis.call("KEYS", "*-events-*:server")
                if key.startswith(fleet.journal.split("prefix=")[1].split("&")[0])]
    known = redis.call("GET", server)
    redis.call("SET", server, ("e" if known[0] == "f" else "f") + known[1:])
    assert api.post("/user_tags", json=tag("c", 2)).status_code == 204
    assert wait_until(lambda: lag() == 1)


def test_a_redis_that_is_emptied_is_not_begun_again(make_fleet, tmp_path):
    """What is written there would be taken for what readers have already."""
    redis = Redis(tmp_path / "own", **DURABLE)
    try:
        redis.start()
        fleet = make_fleet(url_of(redis))
        one, two = fleet.start("api", "api"), fleet.start("worker", "worker")
        fleet.ready()
        assert one.post("/user_tags", json=tag("c", 1)).status_code == 204
        assert wait_until(lambda: one.get("/user_profiles/c", params=ASKED).json()["buys"])
        redis.call("FLUSHALL")
        assert one.post("/user_tags", json=tag("c", 2)).status_code == 503
        for member in fleet.members.values():
            assert wait_until(lambda member=member: answers(member, 503))
            text = requests.get(member.metrics_url + "/readyz", timeout=PATIENCE_S).text
            assert "has lost the journal" in text, text
        assert redis.call("KEYS", "*") == []
        two.stop()
        two.spawn()
        assert two.process.wait(PATIENCE_S) == 1
        two.process = None
        assert "are of another data directory or journal, not of" in two.stderr()
    finally:
        redis.kill()


def test_the_master_dies(make_fleet, tmp_path):
    """With replicas=1 what was acknowledged is on a replica, and that is the next master. What it is
    short of, ids that were given in vain, hides nothing that is written to it."""
    trio = Trio(tmp_path / "trio")
    try:
        trio.start()
        an_engine_fails_over(make_fleet(trio.url), trio.master.kill)
    finally:
        trio.kill()
