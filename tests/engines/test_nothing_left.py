# SPDX-License-Identifier: Apache-2.0
"""What commands that read, and starts that are refused, leave on engines and disk: nothing."""
import subprocess

import pytest

from conftest import BINARY, PATIENCE_S
from fleet import Fleet
from redis_server import PASSWORD

PARTITIONS = 2


class Engines:
    """All of a test's engines, and what is on them under its prefix. journal: of one of them, shared."""

    def __init__(self, kind, request, prefix):
        self.prefix = prefix
        self.redis, self.cluster = (request.getfixturevalue(name) for name in ("redis", "cluster"))
        self.engine = request.getfixturevalue({"kafka": "broker", "redis": "redis"}.get(kind, "rabbit"))
        self.kind = kind
        where = {"kafka": lambda: f"kafka://{self.engine.servers}/?topic-prefix={prefix}",
                 "redis": lambda: f"redis://:{PASSWORD}@127.0.0.1:{self.engine.port}/?prefix={prefix}",
                 "streams": lambda: f"amqp://127.0.0.1:{self.engine.port}/?prefix={prefix}",
                 "queues": lambda: f"amqp://127.0.0.1:{self.engine.port}/?prefix={prefix}&queues=quorum"}
        self.journal = where[kind]() + f"&partitions={PARTITIONS}"

    def stores(self, prefix=None):
        prefix = prefix or self.prefix
        return ["--events", f"{self.cluster.url}/?prefix={prefix}",
                "--tasks", f"redis://:{PASSWORD}@127.0.0.1:{self.redis.port}/?prefix={prefix}"]

    def names(self):
        """Topics, streams, queues and keys."""
        if self.kind == "kafka":
            from confluent_kafka.admin import AdminClient
            found = AdminClient({"bootstrap.servers": self.engine.servers}).list_topics(timeout=PATIENCE_S).topics
        elif self.kind == "redis":
            found = []
        else:
            found = self.engine.control("list_queues", "--quiet", "--no-table-headers", "name").split()
        return [name for name in found if name.startswith(self.prefix)] + [
            key for server in [self.redis, *self.cluster.masters()]
            for key in server.call("KEYS", f"*{self.prefix}*")]


@pytest.fixture(params=["kafka", "redis", "streams", "queues"])
def engines(request, unique):
    return Engines(request.param, request, unique)


def letters(engines, *arguments, stores=None):
    return subprocess.run([BINARY, "journal", "dead-letters", *arguments, "--journal", engines.journal,
                           *(stores or engines.stores())], capture_output=True, text=True, timeout=PATIENCE_S)


def test_who_looks_for_dead_letters_makes_nothing(engines, tmp_path, request):
    more = []
    if engines.kind == "kafka":
        more = ["--points", f"qdrant://127.0.0.1:{request.getfixturevalue('qdrant').port}"]
    for arguments in (["list"], ["show", "1"], ["replay", "1"], ["drop", "1"]):
        done = letters(engines, *arguments, stores=engines.stores() + more)
        assert done.returncode == 2 and done.stdout == "", done
        assert f" {engines.prefix}" in done.stderr and "has no " in done.stderr, done.stderr
    assert engines.names() == []
    # The journal is there, and has no letters.
    fleet = Fleet(tmp_path, engines.journal, *engines.stores(), *more)
    try:
        fleet.start("one", "api")
        fleet.ready()
    finally:
        fleet.stop()
    made = sorted(engines.names())
    done = letters(engines, "list", stores=engines.stores() + more)
    assert (done.returncode, done.stdout) == (0, "no dead letters\n"), done
    assert letters(engines, "drop", "1", stores=engines.stores() + more).returncode == 1
    # A store is not.
    other = engines.stores(engines.prefix + "other-")
    for stores, words in ((other[:2], "no events under the prefix"), (other[2:], "no tasks under the prefix")):
        done = letters(engines, "list", stores=stores)
        assert done.returncode == 2 and words in done.stderr, done
    assert sorted(engines.names()) == made
