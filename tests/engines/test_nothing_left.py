# SPDX-License-Identifier: Apache-2.0
"""What commands that read, and starts that are refused, leave on engines and disk: nothing."""
import socket
import subprocess

import pytest

from conftest import BINARY, PATIENCE_S, free_port
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
        self.wrong = {"kafka": lambda: f"kafka://mill:wrong@127.0.0.1:{self.engine.brokers[0].sasl_port}/?",
                      "redis": lambda: f"redis://:wrong@127.0.0.1:{self.engine.port}/?"}.get(
                          kind, lambda: f"amqp://guest:wrong@127.0.0.1:{self.engine.port}/?")()
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
        """Topics, streams, queues, exchanges and keys."""
        if self.kind == "kafka":
            from confluent_kafka.admin import AdminClient
            found = AdminClient({"bootstrap.servers": self.engine.servers}).list_topics(timeout=PATIENCE_S).topics
        elif self.kind == "redis":
            found = []
        else:
            found = [name for what in ("list_queues", "list_exchanges")
                     for name in self.engine.control(what, "--quiet", "--no-table-headers", "name").split()]
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
    for stores, words in ((other[:2], "no events under the name"), (other[2:], "no tasks under the prefix")):
        done = letters(engines, "list", stores=stores)
        assert done.returncode == 2 and words in done.stderr, done
    assert sorted(engines.names()) == made


def refused(tmp_path, *options):
    """What a start says that ends by itself, and makes no data directory."""
    directory = tmp_path / "data"
    done = subprocess.run([BINARY, "serve", "--data-dir", directory, "--listen", f"127.0.0.1:{free_port()}",
                           "--metrics-listen", f"127.0.0.1:{free_port()}", *options], capture_output=True,
                          text=True, timeout=PATIENCE_S)
    assert done.returncode != 0 and not directory.exists(), done.stderr
    return done.stderr


def test_a_start_that_is_refused_makes_nothing(engines, tmp_path):
    journal = engines.journal
    one_order = journal.replace(f"&partitions={PARTITIONS}", "").replace("&queues=quorum", "")
    for options, word in (
            (["--journal", journal + "&nonsense=1", *engines.stores()], "nonsense"),
            (["--journal", journal.replace("partitions=2", "partitions=0"), *engines.stores()], "from 1 to 64"),
            (["--journal", journal, *engines.stores()[:-1], engines.stores()[-1] + "&nonsense=1"], "nonsense"),
            (["--journal", journal, "--events", engines.stores()[1] + "&replicas=x", *engines.stores()[2:]],
             "replicas"),
            (["--journal", journal], "stores that all processes share"),
            (["--journal", one_order + "&nonsense=1"], "nonsense"),
            (["--journal", one_order + "&nonsense=1", "--roles", "worker", *engines.stores()], "nonsense"),
            (["--points", "qdrant://127.0.0.1:1?api_key_file=/none"], "key")):
        assert word in refused(tmp_path, *options)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert "in use" in refused(tmp_path, "--journal", journal, *engines.stores(), "--listen", address)
    assert engines.names() == []


def test_a_store_that_refuses_is_asked_before_a_journal_is_made(engines, tmp_path):
    engines.redis.call("HSET", f"{{{engines.prefix}tasks}}:meta", "layout", "0", "partitions", "2", "source", "")
    made = sorted(engines.names())
    assert "another version" in refused(tmp_path, "--journal", engines.journal, *engines.stores())
    assert sorted(engines.names()) == made


def test_a_wrong_password_ends_the_start(engines, tmp_path):
    """Of whichever engine, with a sentence that does not show it."""
    def asked(option, url, *options):
        said = refused(tmp_path, option, url, *options)
        assert "wrong" not in said
        return said

    asked("--journal", engines.wrong + f"&partitions={PARTITIONS}" + "&queues=quorum" * (engines.kind == "queues"),
          *engines.stores())
    [_, events, _, tasks] = engines.stores()
    for option, url in (("--events", events), ("--tasks", tasks)):
        others = {"--events": events, "--tasks": tasks, option: url.replace(f":{PASSWORD}@", ":wrong@")}
        said = asked(option, others.pop(option), "--journal", engines.journal,
                     *(word for pair in others.items() for word in pair))
        assert "takes another user and password" in said
    assert engines.names() == []
