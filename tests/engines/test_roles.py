# SPDX-License-Identifier: Apache-2.0
"""Many processes for one flow of events: APIs that write a journal of several partitions on Kafka,
workers that divide it and apply to a Redis Cluster. Whatever dies, freezes or comes to them, what
was acknowledged is in effect once."""
import itertools
import os
import signal
import subprocess
import time

import pytest
import requests

from conftest import PATIENCE_S, Server, free_port, millrace, wait_until
from kafka import Kafka, NotFetched, class_path
from load import MINUTE, RANGE, Writer
from redis_cluster import RedisCluster

NAMES = itertools.count()
PARTITIONS = 6
ASKED = {"time_range": RANGE, "limit": 200}


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    try:
        class_path()
    except NotFetched as error:
        pytest.skip(str(error))
    with Kafka(tmp_path_factory.mktemp("kafka") / "one", free_port) as kafka:
        yield kafka


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster")).start()
    yield cluster
    cluster.kill()


class Fleet:
    """Processes that share a journal and a cluster, by name."""

    def __init__(self, directory, journal, events):
        self.directory, self.journal, self.events = directory, journal, events
        self.members = {}

    def start(self, name, roles):
        member = self.members[name] = Server(
            self.directory / name, "--journal", self.journal, "--events", self.events,
            "--roles", roles)
        member.spawn()
        return member

    def ready(self):
        for member in self.members.values():
            assert wait_until(lambda member=member: answers(member, 200)), member.stderr()
        return self

    def stop(self):
        for member in self.members.values():
            if member.process:
                member.stop()


def answers(member, status):
    try:
        return requests.get(member.metrics_url + "/readyz", timeout=10).status_code == status
    except requests.RequestException:
        return False


def partitions(member):
    try:
        metrics = member.metrics()
    except requests.RequestException:
        return 0
    return metrics.get('millrace_consumer_partitions{consumer="events"}', 0)


@pytest.fixture
def fleet(broker, cluster, tmp_path):
    name = f"t{next(NAMES)}"
    fleet = Fleet(tmp_path, f"kafka://{broker.servers}/?topic-prefix={name}-"
                  f"&partitions={PARTITIONS}&session-timeout=2000",
                  f"{cluster.url}/?replicas=1&prefix={name}")
    yield fleet
    fleet.stop()


class Load:
    """Tags by several threads, each to one of the APIs; check() compares what any of them answers."""

    def __init__(self, *apis):
        self.apis = apis
        self.writers = [Writer(api.url, f"w{i}", 1 + i * 10_000_000, points=False)
                        for i, api in enumerate(apis)]

    def __enter__(self):
        for writer in self.writers:
            writer.start()
        return self

    def __exit__(self, *_):
        for writer in self.writers:
            writer.stopping.set()
        for writer in self.writers:
            writer.join(60)
            assert not writer.is_alive()

    def progress(self, n=40):
        wanted = [writer.acknowledged + n for writer in self.writers]
        assert wait_until(lambda: all(w.acknowledged >= n for w, n in zip(self.writers, wanted)))

    def present(self):
        """The products that are there, of each writer; each once."""
        found = []
        for i, writer in enumerate(self.writers):
            products = []
            for cookie in {writer.cookie(number) for number in writer.tags}:
                answer = self.apis[-1 - i].get(f"/user_profiles/{cookie}",
                                               params=ASKED)
                products += [int(tag["product_info"]["product_id"]) for tag in answer.json()["buys"]]
            assert len(products) == len(set(products)), "a tag is there twice"
            found.append(set(products))
        return found

    def all_there(self):
        return all({n for n, done in writer.tags.items() if done} <= products
                   for writer, products in zip(self.writers, self.present()))

    def check(self):
        assert wait_until(self.all_there), "an acknowledged tag is missing"
        counted, there = self.counted(), sum(map(len, self.present()))
        if counted != there:  # one of unknown outcome may have come between the two
            counted, there = self.counted(), sum(map(len, self.present()))
        assert counted == there

    def counted(self):
        answer = self.apis[0].post("/aggregates", params={
            "time_range": RANGE, "action": "BUY", "aggregates": ["COUNT", "SUM_PRICE"]})
        [[minute, _, count, price]] = answer.json()["rows"]
        assert minute == MINUTE and count == price
        return int(count)


def test_workers_come_go_and_freeze(fleet):
    """A rebalance under load, a worker killed in mid-batch, and one that sleeps through a rebalance
    and wakes with records in its hands."""
    one, two = fleet.start("api-1", "api"), fleet.start("api-2", "api")
    first = fleet.start("worker-1", "worker")
    fleet.ready()
    with Load(one, two) as load:
        load.progress()
        second = fleet.start("worker-2", "worker")
        assert wait_until(lambda: partitions(second) == PARTITIONS / 2)
        load.progress()
        first.kill()
        assert wait_until(lambda: partitions(second) == PARTITIONS)
        second.process.send_signal(signal.SIGSTOP)
        fleet.start("worker-3", "worker")
        assert wait_until(lambda: partitions(fleet.members["worker-3"]) == PARTITIONS)
        load.progress()
        second.process.send_signal(signal.SIGCONT)
        assert wait_until(lambda: partitions(second) == PARTITIONS / 2)
        load.progress()
    load.check()


def test_apis_die_and_the_broker_too(fleet, broker):
    one, two = fleet.start("api-1", "api,worker"), fleet.start("api-2", "api")
    fleet.ready()
    with Load(one, two) as load:
        load.progress()
        two.kill()
        two.start()
        load.progress()
        broker.brokers[0].kill()
        assert wait_until(lambda: answers(two, 503))
        broker.brokers[0].start()
        broker.brokers[0].wait()
        fleet.ready()
        load.progress()
        one.kill()
        one.start()
        load.progress()
    load.check()


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


def test_a_wrong_number_of_partitions_binds_nothing(fleet):
    """The topic is asked before the cluster remembers the number."""
    fleet.start("first", "api")
    fleet.ready().stop()
    fleet.members.clear()
    fleet.events += "-other"
    right, fleet.journal = fleet.journal, fleet.journal.replace(
        f"partitions={PARTITIONS}", f"partitions={PARTITIONS + 1}")
    for role in ("api", "worker"):
        wrong = fleet.start(f"wrong-{role}", role)
        assert wrong.process.wait(PATIENCE_S) == 1
        wrong.process = None
        assert f"has {PARTITIONS} partitions" in wrong.stderr()
    fleet.members.clear()
    fleet.journal = right
    fleet.start("right", "api,worker")
    fleet.ready()


def test_what_is_not_ours_is_passed_over(fleet, broker):
    """Messages that somebody else wrote into the topic, some in a transaction, whose end takes an
    offset that nobody reads."""
    from confluent_kafka import Producer
    one = fleet.start("one", "api,worker")
    fleet.ready()
    topic = fleet.journal.split("topic-prefix=")[1].split("&")[0] + "records"
    common = {"bootstrap.servers": broker.servers, "log_level": 0}
    plain, other = Producer(common), Producer({**common, "transactional.id": topic})

    def write(producer):
        for partition in range(PARTITIONS):
            producer.produce(topic, b"MRS\x01" + b"x" * 60, partition=partition)
        assert producer.flush(PATIENCE_S) == 0

    write(plain)
    other.init_transactions(PATIENCE_S)
    other.begin_transaction()
    write(other)
    other.commit_transaction(PATIENCE_S)
    with Load(one) as load:
        load.progress()
    load.check()
    write(plain)
    strange = 'millrace_consumer_strange_messages_total{consumer="events"}'
    assert wait_until(lambda: one.metrics()[strange] >= 3 * PARTITIONS)
    assert wait_until(lambda: one.metrics()['millrace_consumer_lag_messages{consumer="events"}'] == 0)
    assert "none of millrace" in one.stderr()


def test_what_a_process_shows(fleet):
    api, worker = fleet.start("api", "api"), fleet.start("worker", "worker")
    fleet.ready()
    tag = {"time": f"{MINUTE}.000Z", "cookie": "c", "country": "PL", "device": "PC", "action": "VIEW",
           "origin": "o", "product_info": {"product_id": "1", "brand_id": "b", "category_id": "c",
                                           "price": 7}}
    assert api.post("/user_tags", json=tag).status_code == 204
    assert wait_until(lambda: api.get("/user_profiles/c", params=ASKED).json().get("views") == [tag])
    parts = requests.get(worker.metrics_url + "/readyz", timeout=PATIENCE_S).json()["parts"]
    assert set(parts) == {"server", "events"} and parts["events"]["reachable"]
    assert set(api.get("/readyz").json()["parts"]) == {"server", "http", "journal", "events"}
    status = api.get("/status").json()
    assert "password" not in status["health"]["parts"]["journal"]["url"]
    assert api.get("/collections").status_code == 404
    assert wait_until(lambda: worker.metrics()[
        'millrace_consumer_applied_records_total{consumer="events"}'] == 1)
    assert worker.metrics()['millrace_consumer_lag_messages{consumer="events"}'] >= 0
    assert api.request("DELETE", "/user_profiles/c").status_code == 204
    assert wait_until(lambda: api.get("/user_profiles/c", params=ASKED).json()["views"] == [])
    shown = millrace("status", "--metrics-listen", f"127.0.0.1:{worker.metrics_port}").stdout
    assert f"partitions       {PARTITIONS}" in shown and "messages behind" in shown
    with pytest.raises(requests.RequestException):
        worker.get("/healthz")
    worker.stop()
    worker.port = api.port  # where it does not listen
    worker.spawn()
    fleet.ready()


@pytest.mark.parametrize("options, words", [
    (["--roles", "api"], ["--roles", "partitions=12"]),
    (["--journal", "kafka://127.0.0.1:1/?partitions=4"], ["partitions", "--events"]),
    (["--journal", "kafka://127.0.0.1:1/?partitions=4", "--events", "redis+cluster://127.0.0.1:1/",
      "--points", "qdrant://127.0.0.1:1"], ["points", "--points"]),
    (["--journal", "kafka://127.0.0.1:1/?partitions=4", "--events", "redis+cluster://127.0.0.1:1/",
      "--tasks", "redis://127.0.0.1:1"], ["tasks", "--tasks"]),
    (["--journal", "kafka://127.0.0.1:1/?partitions=65", "--events",
      "redis+cluster://127.0.0.1:1/"], ["partitions is a number from 1 to 64"]),
    (["--journal", "redis://127.0.0.1:1/?partitions=4"], ["partitions"]),
], ids=["roles-alone", "own-store", "points", "tasks", "too-many", "not-of-kafka"])
def test_combinations_that_make_no_sense_are_refused(tmp_path, options, words):
    server = Server(tmp_path / "data", *options)
    done = subprocess.run(server.command(), capture_output=True, text=True, timeout=PATIENCE_S,
                          env={**os.environ})
    assert done.returncode == 1
    for word in words:
        assert word in done.stderr, done.stderr
