# SPDX-License-Identifier: Apache-2.0
"""The real server with its journal on Redis, on a Redis under Sentinels and on RabbitMQ (test_kafka.py
has Kafka's): killed and started again, like the engine below it, with a model of what must be there."""
import signal

import pytest

from conftest import free_port, wait_until
from load import Load
from rabbitmq import RabbitMQ
from redis_server import DURABLE, PASSWORD, Redis, Trio


class OneRedis:
    def __init__(self, directory):
        self.redis = Redis(directory / "redis", **DURABLE)
        self.restart = self.redis.start
        self.kill = self.stop = self.redis.kill

    def start(self):
        self.redis.start()
        return self

    def url(self, name):
        return f"redis://:{PASSWORD}@127.0.0.1:{self.redis.port}/?prefix={name}-"


class OneRabbit:
    def __init__(self, directory):
        self.rabbit = RabbitMQ(directory)
        self.restart, self.kill, self.stop = self.rabbit.start, self.rabbit.kill, self.rabbit.stop

    def start(self):
        self.rabbit.start()
        return self

    def url(self, name):
        return f"amqp://127.0.0.1:{self.rabbit.port}/?prefix={name}-"


@pytest.fixture(scope="module", params=[OneRedis, OneRabbit])
def engine(request, tmp_path_factory):
    made = request.param(tmp_path_factory.mktemp("engine"))
    try:
        yield made.start()
    finally:
        made.stop()


def test_killed_and_started_again(server_factory, engine):
    server = server_factory("--journal", engine.url("killed"), "--checkpoint-interval", "100ms")
    server.start()
    with Load(server) as load:
        for _ in range(2):
            load.progress()
            server.kill()
            server.start()
        load.progress()
    load.check()
    server.stop()
    server.start()
    load.check()


def test_engine_killed_and_started_again(server_factory, engine):
    """Writes are refused or have no answer meanwhile, reads go on, and it heals by itself."""
    server = server_factory("--journal", engine.url("engine")).start()
    with Load(server) as load:
        load.progress()
        engine.kill()
        try:
            assert wait_until(lambda: server.get("/readyz").status_code == 503)
            assert server.get("/collections/load").status_code == 200
        finally:
            engine.restart()
        load.progress()
    load.check()
    server.kill()
    server.start()
    load.check()


def test_one_owner(server_factory, engine):
    """Who froze and wakes when another has taken over acknowledges nothing any more."""
    first = server_factory("--journal", engine.url("owner"), name="first").start()
    with Load(first, writers=1) as load:
        load.progress(20)
    first.process.send_signal(signal.SIGSTOP)
    second = server_factory("--journal", engine.url("owner"), name="second").start()
    first.process.send_signal(signal.SIGCONT)
    load.server = second
    load.check()
    wish = {"collection_name": "brand", "element": "x", "create_missing": True}
    assert first.post("/get_id", json=wish).status_code == 503
    assert wait_until(lambda: first.get("/readyz").status_code == 503)
    assert second.post("/get_id", json=wish).status_code == 200


def test_master_under_sentinels_killed(server_factory, tmp_path):
    """What was acknowledged with a replica that had it survives the master's death."""
    trio = Trio(tmp_path / "trio")
    try:
        trio.start()
        server = server_factory("--journal", trio.url).start()
        with Load(server) as load:
            load.progress()
            trio.master.kill()
            load.progress()
        load.check()
        server.stop()
    finally:
        trio.kill()


def test_an_engine_that_is_not_offered(server_factory):
    for url, word in ((f"rediss://127.0.0.1:{free_port()}/", "TLS"),
                      (f"mqtt://127.0.0.1:{free_port()}/", "scheme")):
        server = server_factory("--journal", url, name=word)
        server.spawn()
        assert server.process.wait(60) == 1
        server.process = None
        assert word in server.stderr()
