# SPDX-License-Identifier: Apache-2.0
"""The real server with its journal on Redis, on a Redis under Sentinels and on RabbitMQ (test_kafka.py
has Kafka's): killed and started again, like the engine below it, with a model of what must be there."""
import signal

import pytest

from conftest import free_port, wait_until
from engines import running
from load import Load
from redis_server import PASSWORD, Trio


@pytest.fixture(params=["redis", "rabbit"])
def engine(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def url(request, engine, unique):
    """A log of its own."""
    scheme = {"redis": f"redis://:{PASSWORD}@", "rabbit": "amqp://"}[request.node.callspec.params["engine"]]
    return f"{scheme}127.0.0.1:{engine.port}/?prefix={unique}"


def test_killed_and_started_again(server_factory, url):
    server = server_factory("--journal", url, "--checkpoint-interval", "100ms")
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


def test_engine_killed_and_started_again(server_factory, engine, url):
    """Writes are refused or have no answer meanwhile, reads go on, and it heals by itself."""
    server = server_factory("--journal", url).start()
    with Load(server) as load:
        load.progress()
        engine.kill()
        try:
            assert wait_until(lambda: server.get("/readyz").status_code == 503)
            assert server.get("/collections/load").status_code == 200
        finally:
            engine.start()
        load.progress()
    load.check()
    server.kill()
    server.start()
    load.check()


def test_one_owner(server_factory, url):
    """Who froze and wakes when another has taken over acknowledges nothing any more."""
    first = server_factory("--journal", url, name="first").start()
    with Load(first, writers=1) as load:
        load.progress(20)
    first.process.send_signal(signal.SIGSTOP)
    second = server_factory("--journal", url, name="second").start()
    first.process.send_signal(signal.SIGCONT)
    load.server = second
    load.check()
    wish = {"collection_name": "brand", "element": "x", "create_missing": True}
    assert first.post("/get_id", json=wish).status_code == 503
    assert wait_until(lambda: first.get("/readyz").status_code == 503)
    assert second.post("/get_id", json=wish).status_code == 200


def test_master_under_sentinels_killed(server_factory, tmp_path):
    """What was acknowledged with a replica that had it survives the master's death."""
    with running(Trio(tmp_path / "trio")) as trio:
        server = server_factory("--journal", trio.url).start()
        with Load(server) as load:
            load.progress()
            trio.master.kill()
            load.progress()
        load.check()
        server.stop()


def test_an_engine_that_is_not_offered(server_factory):
    for url, word in ((f"rediss://127.0.0.1:{free_port()}/", "TLS"),
                      (f"mqtt://127.0.0.1:{free_port()}/", "scheme")):
        server = server_factory("--journal", url, name=word)
        server.spawn()
        assert server.process.wait(60) == 1
        server.process = None
        assert word in server.stderr()
