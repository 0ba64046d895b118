# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the engines that most of the tests stand beside, one of each a process of pytest, started by
the first test that asks for it. A test may kill its engine, which the next one finds started again."""
import contextlib
import itertools

import pytest

from conftest import free_port
from kafka import Kafka, NotFetched, class_path
from qdrant import Qdrant
from rabbitmq import RabbitMQ
from redis_cluster import RedisCluster
from redis_server import DURABLE, Redis

NAMES = itertools.count()


@contextlib.contextmanager
def running(made, end="kill"):
    try:
        yield made.start()
    finally:
        getattr(made, end)()


@pytest.fixture
def unique():
    """What nobody else's logs, groups and keys begin with."""
    return f"t{next(NAMES)}-"


@pytest.fixture(scope="session")
def kafka_jars():
    try:
        class_path()
    except NotFetched as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def kafka_of_session(kafka_jars, tmp_path_factory):
    with running(Kafka(tmp_path_factory.mktemp("kafka") / "one", free_port)) as kafka:
        yield kafka


@pytest.fixture
def broker(kafka_of_session):
    """A Kafka of one node."""
    return kafka_of_session.start()


@pytest.fixture(scope="session")
def rabbit_of_session(tmp_path_factory):
    with running(RabbitMQ(tmp_path_factory.mktemp("rabbitmq")), end="stop") as rabbit:
        yield rabbit


@pytest.fixture
def rabbit(rabbit_of_session):
    return rabbit_of_session if rabbit_of_session.process else rabbit_of_session.start()


@pytest.fixture(scope="session")
def redis_of_session(tmp_path_factory):
    with running(Redis(tmp_path_factory.mktemp("redis") / "one", **DURABLE)) as redis:
        yield redis


@pytest.fixture
def redis(redis_of_session):
    """A server alone, as durable as it can be."""
    return redis_of_session if redis_of_session.process else redis_of_session.start()


@pytest.fixture(scope="session")
def cluster_of_session(tmp_path_factory):
    with running(RedisCluster(tmp_path_factory.mktemp("cluster"))) as cluster:
        yield cluster


@pytest.fixture
def cluster(cluster_of_session):
    """A Redis Cluster of three masters with a replica each."""
    cluster_of_session.run()
    return cluster_of_session


@pytest.fixture(scope="session")
def qdrant_of_session(tmp_path_factory):
    qdrant = Qdrant(tmp_path_factory.mktemp("qdrant") / "qdrant").start()
    yield qdrant
    if qdrant.process.poll() is None:
        qdrant.close()


@pytest.fixture
def qdrant(qdrant_of_session):
    """The fake, empty, and told nothing."""
    if qdrant_of_session.process.poll() is not None:
        qdrant_of_session.start()
    qdrant_of_session.tell(reset=True)
    return qdrant_of_session
