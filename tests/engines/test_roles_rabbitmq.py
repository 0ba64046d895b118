# SPDX-License-Identifier: Apache-2.0
"""A journal of events that processes share, on RabbitMQ: a stream a partition."""
import itertools

import pytest

from conftest import wait_until
from driver_suite import run_shared_suites
from fleet import Fleet
from rabbitmq import RabbitMQ
from redis_cluster import RedisCluster
from redis_server import DURABLE, PASSWORD, Redis
from roles import PARTITIONS, apis_die_and_the_engine_too, workers_come_go_and_freeze

NAMES = itertools.count()


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    broker = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    try:
        yield broker.start()
    finally:
        broker.stop()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster")).start()
    yield cluster
    cluster.kill()


@pytest.fixture
def fleet(broker, cluster, tmp_path):
    name = f"t{next(NAMES)}"
    fleet = Fleet(tmp_path, f"amqp://127.0.0.1:{broker.port}/?prefix={name}-"
                  f"&partitions={PARTITIONS}",
                  "--events", f"{cluster.url}/?replicas=1&prefix={name}")
    yield fleet
    fleet.stop()


def test_what_the_driver_promises(broker):
    run_shared_suites(f"amqp://127.0.0.1:{broker.port}/?prefix=LOG-&partitions=4")


def test_workers_come_go_and_freeze(fleet):
    workers_come_go_and_freeze(fleet)


def test_apis_die_and_the_broker_too(fleet, broker):
    apis_die_and_the_engine_too(fleet, broker.kill, broker.start)


def test_a_task_over_two_processes(broker, tmp_path):
    """The rest is in test_roles_tasks.py."""
    redis = Redis(tmp_path / "redis", **DURABLE)
    fleet = Fleet(tmp_path, f"amqp://127.0.0.1:{broker.port}/?prefix=tasks-&partitions={PARTITIONS}",
                  "--tasks", f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/")
    try:
        redis.start()
        api = fleet.start("api", "api")
        fleet.start("worker", "worker")
        fleet.ready()
        task = api.post("/tasks", json={"type": "long_task", "args": {"total": 1}}).json()["id"]
        assert wait_until(lambda: api.get(f"/tasks/{task}").json().get("status") == "succeeded")
    finally:
        fleet.stop()
        redis.kill()
