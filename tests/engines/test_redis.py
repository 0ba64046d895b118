# SPDX-License-Identifier: Apache-2.0
"""The journal's driver of Redis, against real ones: the suite of all drivers, and what becomes of the
log when a server is killed, a master is failed over, replicas are missing, or messages are lost."""
import subprocess

import pytest

from conftest import PATIENCE_S, free_port, wait_until
from driver_suite import SUITE, Endurance, opening, run_suite, verify
from engines import running
from redis_server import DURABLE, PASSWORD, Redis, Trio

WAITED = "cmdstat_wait"


@pytest.fixture(scope="module")
def weak_redis(tmp_path_factory):
    with running(Redis(tmp_path_factory.mktemp("redis") / "weak")) as made:
        yield made


def url_of(redis, more="", log="LOG"):
    return f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/?prefix={log}{more}"


def test_a_start_that_cannot_listen_puts_nobody_out(server_factory, redis):
    """Only a start that goes on takes the journal over: the addresses are tried before."""
    journal = url_of(redis, log="polite-")
    server = server_factory("--journal", journal).start()
    other = server_factory("--journal", journal, name="other")
    other.directory.mkdir()  # it was started here before
    other.port = server.port
    other.spawn()
    assert other.process.wait(PATIENCE_S) == 1
    other.process = None
    assert "is in use by another process" in other.stderr()
    answer = server.put("/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}})
    assert answer.status_code == 200, answer.text


def test_what_all_drivers_promise(redis):
    here = f"127.0.0.1:{redis.port}"
    run_suite(url_of(redis), refused=[
        f"redis://:{PASSWORD}-2@{here}/", f"redis://miller:{PASSWORD}@{here}/", f"redis://{here}/",
        f"redis://{PASSWORD}@{here}/", url_of(redis, "&replicas=many"), url_of(redis, "&replicas=17"),
        f"redis://:{PASSWORD}@{here}/journal", f"redis://:{PASSWORD}@{here}/99999",
        f"redis://:{PASSWORD}@{here}/99", f"redis://:{PASSWORD}@{here},{here}/",
        url_of(redis, log="{}"), url_of(redis, log="x" * 200),
        url_of(redis, f"&sentinel-password={PASSWORD}"), f"redis+sentinel://:{PASSWORD}@{here}/",
        f"redis+sentinel://:{PASSWORD}@{here}/mill?sentinel-password={PASSWORD}",
        f"rediss://:{PASSWORD}@{here}/", f"rediss+sentinel://:{PASSWORD}@{here}/mill"])


def test_another_database(redis):
    run_suite(f"redis://default:{PASSWORD}@127.0.0.1:{redis.port}/3?prefix=LOG", "test_an_empty_log")
    assert "keys" in redis.info("keyspace")["db3"]


@pytest.mark.parametrize("setting, value", [
    ("appendonly", "no"), ("appendfsync", "everysec"), ("maxmemory-policy", "allkeys-lru")])
def test_weak_settings_are_named(weak_redis, setting, value):
    for name, good in DURABLE.items():
        weak_redis.call("CONFIG", "SET", name, good)
    run_suite(url_of(weak_redis), "test_weak_settings_are_named")
    weak_redis.call("CONFIG", "SET", setting, value)
    run_suite(url_of(weak_redis), "test_weak_settings_are_named", weak=f"{setting} {value}")


def test_settings_that_are_not_told_are_named(weak_redis):
    weak_redis.call("ACL", "SETUSER", "miller", "on", f">{PASSWORD}", "~*", "+@all", "-config")
    run_suite(f"redis://miller:{PASSWORD}@127.0.0.1:{weak_redis.port}/?prefix=LOG",
              "test_weak_settings_are_named", weak="does not tell its appendonly")


def test_a_server_that_knows_another_owner_is_not_read_or_trimmed(redis):
    done = subprocess.run([SUITE.with_name("test-journal-redis"), url_of(redis, log="stale-")],
                          capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_wrong_is_said(redis):
    here = f"127.0.0.1:{redis.port}"
    assert "takes another user and password" in opening(f"redis://:sesame-2@{here}/")
    assert "NOAUTH" in opening(f"redis://{here}/")
    assert "TLS" in opening(f"rediss://{here}/")
    assert "not reachable" in opening(f"redis://127.0.0.1:{free_port()}/")
    redis.call("SET", "text-journal", "an entry of somebody else")
    assert "WRONGTYPE" in opening(url_of(redis, log="text-"))


def test_killed_while_it_appends(tmp_path):
    with running(Redis(tmp_path / "redis", **DURABLE)) as redis, Endurance(url_of(redis)) as writer:
        for _ in range(3):
            assert writer.goes_on(), writer.end()
            redis.kill()
            redis.start()
        assert writer.goes_on(), writer.end()
        redis.call("CLIENT", "KILL", "TYPE", "normal")
        assert writer.goes_on(), writer.end()
        assert writer.end() == (0, "")


def test_killed_with_the_process_that_appends(tmp_path):
    with running(Redis(tmp_path / "redis", **DURABLE)) as redis, Endurance(url_of(redis)) as writer:
        assert writer.goes_on(), writer.end()
        redis.kill()
        writer.kill()
        redis.start()
        verify(writer.url, writer.acknowledged)


def test_memory_is_full_for_a_while(tmp_path):
    with running(Redis(tmp_path / "redis", **DURABLE)) as redis, Endurance(url_of(redis)) as writer:
        assert writer.goes_on(), writer.end()
        redis.call("CONFIG", "SET", "maxmemory", 1)
        assert wait_until(lambda: "errorstat_OOM" in redis.info("errorstats"))
        redis.call("CONFIG", "SET", "maxmemory", 0)
        assert writer.goes_on(), writer.end()
        assert writer.end() == (0, "")


def test_lost_messages_put_the_process_out(tmp_path):
    """As after a failover to a replica without them; or after a restart of a Redis that keeps
    nothing, and then also before anybody has noticed."""
    with running(Redis(tmp_path / "redis")) as redis:
        with Endurance(url_of(redis)) as writer:
            assert writer.goes_on(), writer.end()
            redis.call("HSET", "{endure-journal}:owner", "top", f"{0:020}-{0:020}")
            status, complaint = writer.wait()
            assert status == 1 and "has lost acknowledged messages" in complaint
        redis.call("FLUSHALL")
        with Endurance(url_of(redis)) as writer:
            assert writer.goes_on(), writer.end()
            redis.kill()
            redis.start()
            status, complaint = writer.wait()
            assert status == 1 and "or lost by it" in complaint
            assert PASSWORD not in complaint


def test_a_log_that_was_emptied_is_not_written_from_its_beginning(tmp_path):
    """What it gave out once, it would take for messages that are there already."""
    with running(Redis(tmp_path / "redis")) as redis:
        with Endurance(url_of(redis)) as writer:
            assert writer.goes_on(), writer.end()
            assert writer.end() == (0, "")
        redis.call("XTRIM", "endure-journal", "MAXLEN", 0)
        with Endurance(url_of(redis)) as writer:
            status, complaint = writer.wait()
            assert status == 1 and "was it emptied?" in complaint


def test_a_master_is_killed(tmp_path):
    with running(Trio(tmp_path)) as trio, Endurance(trio.url) as writer:
        assert writer.goes_on(), writer.end()
        trio.master.kill()
        assert writer.goes_on(), writer.end()
        assert any(r.call("ROLE")[0] == "master" for r in trio.replicas)
        writer.kill()
        verify(trio.url, writer.acknowledged)


def test_no_replica_no_acknowledgement(tmp_path):
    """replicas=1: with the only replica gone, what is appended is not acknowledged, until one is back."""
    with running(Redis(tmp_path / "master", **DURABLE)) as master, \
            running(Redis(tmp_path / "replica", replicaof=f"127.0.0.1 {master.port}",
                          **DURABLE)) as replica, \
            Endurance(url_of(master, "&replicas=1")) as writer:
        assert "is no master, but a slave" in opening(url_of(replica, log="other"))
        assert "of 2 replicas have" in opening(url_of(master, "&replicas=2", log="other"))

        def waited():
            return int(master.info("commandstats").get(WAITED, "calls=0,").split(",")[0][6:])

        assert writer.goes_on(), writer.end()
        replica.kill()
        assert wait_until(lambda: Trio.replicas_online(master) == 0)
        before = waited()
        assert wait_until(lambda: waited() >= before + 2)  # whatever was before that, is said
        acknowledged, before = writer.acknowledged, waited()
        assert wait_until(lambda: waited() >= before + 2)
        assert writer.acknowledged == acknowledged
        replica.start()
        assert writer.goes_on(), writer.end()
        assert writer.end() == (0, "")


def test_sentinels_that_know_no_master(tmp_path):
    """A name that none knows is refused; Sentinels of which none answers are unavailable, and one that
    is away is passed over."""
    with running(Trio(tmp_path)) as trio:
        gone = f"127.0.0.1:{free_port()}"
        run_suite(trio.url.replace("@", f"@{gone},"), "test_an_empty_log",
                  "test_weak_settings_are_named", "test_an_engine_that_is_not_there_is_unavailable",
                  "test_wrong_parameters_are_refused", refused=[trio.url.replace("/mill?", "/saw?")])
