# SPDX-License-Identifier: Apache-2.0
"""Many processes for one flow of events: APIs that write a journal of several partitions on Kafka,
workers that divide it and apply to a Redis Cluster. Whatever dies, freezes or comes to them, what
was acknowledged is in effect once."""
import json
import os
import subprocess

import pytest
import requests

from conftest import PATIENCE_S, TINY, Server, millrace, wait_until
from fleet import Fleet, answers, place_of_mark
from letters import KafkaLog, at, letters_of_events_go_from_any_api, listed, message
from load import MINUTE, tag
from redis_cluster import keys_of, told
from roles import (ASKED, PARTITIONS, Load, a_worker_names_the_engine,
                   an_api_says_that_no_worker_lives, an_idle_api_notices, another_store_is_refused,
                   apis_die_and_the_engine_too, workers_come_go_and_freeze)

APPLIED = 'millrace_consumer_applied_records_total{consumer="events"}'


@pytest.fixture
def fleet(broker, cluster, unique, tmp_path):
    fleet = Fleet(tmp_path, f"kafka://{broker.servers}/?topic-prefix={unique}"
                  f"&partitions={PARTITIONS}&session-timeout=2000",
                  "--events", f"{cluster.url}/?replicas=1&prefix={unique}")
    yield fleet
    fleet.stop()


def test_workers_come_go_and_freeze(fleet):
    workers_come_go_and_freeze(fleet)


def test_apis_die_and_the_broker_too(fleet, broker):
    apis_die_and_the_engine_too(fleet, broker.kill, broker.start)


def test_an_idle_api_notices(fleet, broker):
    an_idle_api_notices(fleet, broker.kill, broker.start)


def test_a_worker_names_the_engine(fleet, broker):
    a_worker_names_the_engine(fleet, broker.kill, broker.start, broker.servers)


def test_an_api_says_that_no_worker_lives(fleet):
    an_api_says_that_no_worker_lives(fleet, "messages of the journal", True)


def test_a_master_dies(fleet, cluster):
    """With replicas=1 what was applied is on two nodes, and what was not is applied after it."""
    one = fleet.start("both", "api,worker")
    fleet.ready()
    with Load(one) as load:
        load.progress()
        master = cluster.masters()[0]
        master.kill()
        assert wait_until(lambda: len(cluster.masters()) == 3)
        load.progress()
        cluster.run()
        assert wait_until(cluster.is_whole)
        load.progress()
    load.check()


def topic_of(fleet, kind="events"):
    return fleet.journal.split("topic-prefix=")[1].split("&")[0] + kind


def test_a_wrong_number_of_partitions_binds_nothing(fleet, broker):
    """The topic is asked before the cluster remembers the number."""
    broker.make_topic(topic_of(fleet), PARTITIONS)
    right, fleet.journal = fleet.journal, fleet.journal.replace(
        f"partitions={PARTITIONS}", f"partitions={PARTITIONS + 1}")
    for role in ("api", "worker"):
        assert f"has {PARTITIONS} partitions" in fleet.refused(role)
    fleet.journal = right
    fleet.start("right", "api,worker")
    fleet.ready()


def test_another_store_is_refused(fleet, broker):
    another_store_is_refused(fleet, broker.delete_topic)


def test_what_comes_later_is_no_mark(fleet, broker):
    """As when two come first: each has left his own, and both see the same one first."""
    from confluent_kafka import Producer
    one = fleet.start("one", "api,worker")
    fleet.ready()
    producer = Producer({"bootstrap.servers": broker.servers, "log_level": 0})
    producer.produce(topic_of(fleet) + "-store", b"another/1", key=b"1")
    assert producer.flush(PATIENCE_S) == 0
    one.stop()
    one.spawn()
    fleet.ready()


def test_another_store_that_is_away_is_refused_when_it_comes(fleet, cluster):
    fleet.start("api", "api")
    fleet.ready().stop()
    fleet.members.clear()
    fleet.stores[-1] += "x"
    cluster.kill()
    wrong = fleet.start("wrong", "api,worker")
    try:
        assert wait_until(lambda: answers(wrong, 503))
        assert wrong.process.poll() is None
    finally:
        cluster.run()
    assert wrong.process.wait(2 * PATIENCE_S) == 1
    fleet.members.clear()
    assert "is another: it has no events under the name" in wrong.stderr()
    assert keys_of(cluster, fleet.stores[-1].split("prefix=")[1] + "events:*") == []


def test_a_cluster_that_was_emptied_is_refused_until_told_otherwise(fleet, broker, cluster):
    one = fleet.start("one", "api,worker")
    fleet.ready()
    assert one.post("/user_tags", json=tag("c", 1)).status_code == 204
    assert wait_until(lambda: one.get("/user_profiles/c", params=ASKED).json()["buys"])
    fleet.stop()
    prefix = fleet.stores[-1].split("prefix=")[1] + "events"
    for key in keys_of(cluster, f"{prefix}:*"):
        told(cluster, "DEL", key)
    said = fleet.refused("api,worker")
    assert f"belongs to the store {prefix}/" in said and "emptied" in said, said
    assert keys_of(cluster, f"{prefix}:*") == []
    broker.delete_topic(place_of_mark(said))
    one.spawn()
    fleet.ready()
    # What the journal still has is there again, and what comes is.
    assert one.post("/user_tags", json=tag("c", 2)).status_code == 204
    assert wait_until(lambda: len(one.get("/user_profiles/c", params=ASKED).json()["buys"]) == 2)


def test_another_kafka_with_the_same_topic_is_refused(fleet, cluster):
    """Whose offsets would be taken for this one's: the cluster knows which it was."""
    fleet.start("first", "api")
    fleet.ready().stop()
    key = fleet.stores[-1].split("prefix=")[1] + "events:{meta}"
    master = next(m for m in cluster.masters() if not str(m.call("TTL", key)).startswith("MOVED"))
    source = master.call("HGET", key, "source")
    topic, identity = source.split("@")
    assert topic.startswith("kafka:") and len(identity) > 10
    master.call("HSET", key, "source", f"{topic}@another")
    for role in ("api", "worker"):
        other = fleet.start(f"second-{role}", role)
        assert other.process.wait(PATIENCE_S) == 1
        other.process = None
        assert "are of another data directory or journal" in other.stderr()
    fleet.members.clear()


def test_what_is_not_ours_is_passed_over(fleet, broker):
    """Messages that somebody else wrote into the topic, some in a transaction, whose end takes an
    offset that nobody reads, also where nothing comes behind it."""
    from confluent_kafka import Producer
    one = fleet.start("one", "api,worker")
    fleet.ready()
    topic = topic_of(fleet)
    common = {"bootstrap.servers": broker.servers, "log_level": 0}
    plain, other = Producer(common), Producer({**common, "transactional.id": topic})

    def write(producer):
        for partition in range(PARTITIONS):
            producer.produce(topic, b"MRS\x01" + b"x" * 60, partition=partition)
        assert producer.flush(PATIENCE_S) == 0

    def write_transaction():
        other.begin_transaction()
        write(other)
        other.commit_transaction(PATIENCE_S)

    write(plain)
    other.init_transactions(PATIENCE_S)
    write_transaction()
    with Load(one) as load:
        load.progress()
    load.check()
    write_transaction()
    strange = 'millrace_consumer_strange_messages_total{consumer="events"}'
    assert wait_until(lambda: one.metrics()[strange] >= 3 * PARTITIONS)
    assert wait_until(lambda: one.metrics()['millrace_consumer_lag_messages{consumer="events"}'] == 0)
    assert "none of millrace" in one.stderr()


def test_dead_letters_go_from_any_api(fleet, broker):
    topic = topic_of(fleet)
    letters_of_events_go_from_any_api(fleet, KafkaLog(broker.servers, topic, PARTITIONS))


@pytest.mark.skipif(not TINY, reason="there are too many letters of another build")
def test_dead_letters_have_a_bound(fleet, broker):
    """A partition that has as many as may be waits, and goes on when some were dropped."""
    most, more = 20, 3
    one = fleet.start("one", "api,worker")
    fleet.ready()
    topic = topic_of(fleet)
    log = KafkaLog(broker.servers, topic, PARTITIONS)
    for i in range(most + more):
        log.append(2, message("events", i, b"\xff"))

    def reason():
        return one.get("/readyz").json()["parts"]["events"].get("reason", "")

    assert wait_until(lambda: "as many dead letters as may be kept" in reason())
    assert one.post("/user_tags", json=tag("c", 1)).status_code == 204
    letters = listed(one, "events")
    assert len(letters) == most
    for letter in letters[:more]:
        assert one.delete(at(letter)).status_code == 204
    assert wait_until(lambda: len(listed(one, "events")) == most)
    assert wait_until(lambda: answers(one, 200)), reason()


def first_messages(servers, topic, n):
    """Of so many partitions, each its first."""
    from confluent_kafka import Consumer, TopicPartition
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "copy", "log_level": 0})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    found = {}
    while len(found) < n:
        message = consumer.poll(PATIENCE_S)
        assert message and not message.error()
        found.setdefault(message.partition(), message.value())
    consumer.close()
    return found


def test_a_key_counts_once_over_processes(fleet, broker):
    """Sent to several APIs; and where a crash left a part of it in the journal, which nobody was told
    of: what is missing is added."""
    from confluent_kafka import Producer
    tags = [tag(f"c{i % 20}", i) for i in range(60)]
    body = "\n".join(map(requests.compat.json.dumps, tags))

    def send(api):
        answer = api.post("/user_tags/batch", data=body, headers={"Idempotency-Key": "k"})
        return answer.status_code, answer.json().get("accepted")

    def products(api):
        return sorted(int(buy["product_info"]["product_id"]) for i in range(20)
                      for buy in api.get(f"/user_profiles/c{i}", params=ASKED).json()["buys"])

    def applied(worker):
        return worker.metrics().get(APPLIED, 0)

    topic = fleet.journal.split("topic-prefix=")[1].split("&")[0]
    one, two = fleet.start("one", "api"), fleet.start("two", "api")
    fleet.ready()
    assert [send(api) for api in (one, two, one)] == [(200, 60)] * 3
    messages = first_messages(broker.servers, topic + "events", PARTITIONS // 2)
    worker = fleet.start("worker", "worker")
    fleet.ready()
    assert wait_until(lambda: applied(worker) >= 180)
    assert wait_until(lambda: products(two) == list(range(60)))
    fleet.stop()

    fleet.members.clear()
    fleet.journal = fleet.journal.replace(topic, topic + "again-")
    fleet.stores[-1] += "-again"
    three = fleet.start("three", "api,worker")
    fleet.ready()
    producer = Producer({"bootstrap.servers": broker.servers, "log_level": 0})
    for partition, message in messages.items():
        producer.produce(topic + "again-events", message, partition=partition)
    assert producer.flush(PATIENCE_S) == 0
    part = sum(int.from_bytes(message[12:16], "little") for message in messages.values())
    assert wait_until(lambda: applied(three) >= part)
    assert send(three) == (200, 60)
    assert wait_until(lambda: applied(three) >= part + 60)
    assert wait_until(lambda: products(three) == list(range(60)))


def test_what_is_deleted_before_it_was_applied_is_counted(fleet, broker):
    """As by retention.ms: said once, and the rest is applied."""
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient
    lost = 'millrace_consumer_lost_messages_total{consumer="events"}'
    api = fleet.start("api", "api")
    fleet.ready()

    def send(first):
        for number in range(first, first + 10):
            assert api.post("/user_tags", json=tag("c", number)).status_code == 204

    send(0)
    topic = topic_of(fleet)
    admin = AdminClient({"bootstrap.servers": broker.servers, "log_level": 0})
    for done in admin.delete_records(
            [TopicPartition(topic, partition, -1) for partition in range(PARTITIONS)]).values():
        done.result(PATIENCE_S)
    send(10)
    worker = fleet.start("worker", "worker")
    fleet.ready()
    assert wait_until(lambda: worker.metrics().get(APPLIED, 0) >= 10)
    assert worker.metrics()[lost] == 10
    assert "10 messages of partition" in worker.stderr()
    shown = millrace("status", "--metrics-listen", f"127.0.0.1:{worker.metrics_port}").stdout
    assert "messages lost    10" in shown
    worker.stop()
    worker.spawn()
    fleet.ready()
    send(20)
    assert wait_until(lambda: worker.metrics().get(APPLIED, 0) >= 10)
    assert worker.metrics()[lost] == 0  # it is not said again


def test_what_a_process_shows(fleet):
    api, worker = fleet.start("api", "api"), fleet.start("worker", "worker")
    fleet.ready()
    tag = {"time": f"{MINUTE}.000Z", "cookie": "c", "country": "PL", "device": "PC", "action": "VIEW",
           "origin": "o", "product_info": {"product_id": "1", "brand_id": "b", "category_id": "c",
                                           "price": 7}}
    assert api.post("/user_tags", json=tag).status_code == 204
    assert wait_until(lambda: api.get("/user_profiles/c", params=ASKED).json().get("views") == [tag])
    parts = requests.get(worker.metrics_url + "/readyz", timeout=PATIENCE_S).json()["parts"]
    assert set(parts) == {"server", "journal-events", "events"} and parts["events"]["reachable"]
    assert set(api.get("/readyz").json()["parts"]) == {"server", "http", "journal-events", "events"}
    status = api.get("/status").json()
    assert "password" not in status["health"]["parts"]["journal-events"]["url"]
    assert api.get("/collections").status_code == 404
    assert wait_until(lambda: worker.metrics()[APPLIED] == 1)
    assert worker.metrics()['millrace_consumer_lag_messages{consumer="events"}'] >= 0
    assert api.request("DELETE", "/user_profiles/c").status_code == 204
    assert wait_until(lambda: api.get("/user_profiles/c", params=ASKED).json()["views"] == [])
    shown = millrace("status", "--metrics-listen", f"127.0.0.1:{worker.metrics_port}").stdout
    assert f"partitions       {PARTITIONS}" in shown and "messages behind" in shown
    shown = [next(json.loads(line) for line in member.stderr().splitlines() if '"ready"' in line)
             for member in (api, worker)]
    for line, has in zip(shown, ({"listen", "port"}, set())):
        assert set(line) == {"time", "level", "message", "metrics_port", "version"} | has
    with pytest.raises(requests.RequestException):
        worker.get("/healthz")
    worker.stop()
    worker.port = api.port  # where it does not listen
    worker.spawn()
    fleet.ready()


@pytest.mark.parametrize("options, words", [
    (["--roles", "api"], ["--roles", "partitions=12", "--points"]),
    (["--journal", "kafka://127.0.0.1:1/?partitions=4"], ["partitions", "--events"]),
    (["--journal", "kafka://127.0.0.1:1/?partitions=65", "--events",
      "redis+cluster://127.0.0.1:1/"], ["partitions is a number from 1 to 64"]),
    (["--journal", "redis://127.0.0.1:1/?partitions=4"], ["partitions"]),
    (["--journal", "amqp://127.0.0.1:1/?partitions=4", "--points", "qdrant://127.0.0.1:1"],
     ["keeps no positions", "kafka://"]),
    (["--journal", "amqp://127.0.0.1:1/?partitions=4&queues=classic", "--tasks",
      "redis://127.0.0.1:1/"], ["queues is quorum, or left out"]),
    (["--journal", "amqp://127.0.0.1:1/?queues=quorum"], ["queues", "or only with partitions=N"]),
], ids=["roles-alone", "own-store", "too-many", "not-of-kafka", "points-without-positions",
        "other-queues", "queues-of-one"])
def test_combinations_that_make_no_sense_are_refused(tmp_path, options, words):
    server = Server(tmp_path / "data", *options)
    done = subprocess.run(server.command(), capture_output=True, text=True, timeout=PATIENCE_S,
                          env={**os.environ})
    assert done.returncode == 1
    for word in words:
        assert word in done.stderr, done.stderr
