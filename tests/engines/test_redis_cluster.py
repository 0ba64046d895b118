# SPDX-License-Identifier: Apache-2.0
"""The room of Redis (src/redis/), against a real Redis Cluster and a server alone: its own suite, and
what becomes of commands when nodes are killed."""
import subprocess

from conftest import PATIENCE_S, wait_until
from driver_suite import SUITE, Endurance
from engines import running
from redis_server import PASSWORD, Redis, Trio

PROGRAM = SUITE.with_name("test-redis-cluster")
THREADS = "4"


class Counting(Endurance):
    """Threads that count in all slots, by INCR and by a script with a position, until they are told
    to end. Without replicas= a failover may lose counts."""

    def __init__(self, url):
        super().__init__(url, [PROGRAM, "endure", url, THREADS])


def run_suite(url, skipped):
    done = subprocess.run([PROGRAM, url], capture_output=True, text=True, timeout=3 * PATIENCE_S)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    assert done.stdout.count("[  SKIPPED ] test_") == skipped, done.stdout


def saying(url):
    done = subprocess.run([PROGRAM, "say", url], capture_output=True, text=True, timeout=PATIENCE_S)
    return done.stderr


def test_what_a_cluster_promises(cluster):
    run_suite(cluster.url + "/?replicas=1", skipped=0)


def test_what_a_server_promises(redis):
    run_suite(f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/3", skipped=2)


def test_what_is_wrong_is_said(cluster, redis):
    alone = f"127.0.0.1:{redis.port}"
    assert saying(cluster.url) == ""
    assert "1 Redis at 127.0.0.1:" in saying(cluster.url.replace(PASSWORD, "sesame-2"))
    assert "takes another user and password" in saying(cluster.url.replace(PASSWORD, "sesame-2"))
    assert "NOAUTH" in saying(cluster.url.replace(f":{PASSWORD}@", ""))
    assert "is no node of a cluster" in saying(f"redis+cluster://:{PASSWORD}@{alone}")


def test_a_master_is_killed_and_then_all(cluster):
    """Nothing acknowledged is lost, nothing is done twice, and it goes on by itself each time. With
    replicas=1 only once the killed one is back: as the replica of its own."""
    with Counting(cluster.url + "/?replicas=1") as counting, Counting(cluster.url) as lossy:
        assert counting.goes_on() and lossy.goes_on()
        cluster.masters()[0].kill()
        assert lossy.goes_on(), lossy.end()
        assert len(cluster.masters()) == 3
        cluster.run()
        assert wait_until(cluster.is_whole)
        assert counting.goes_on(), counting.end()
        cluster.kill()
        cluster.run()
        assert counting.goes_on(), counting.end()
        assert counting.end() == (0, "")
        assert lossy.end() == (0, "")


def test_the_master_of_sentinels_is_killed(tmp_path, redis):
    """And the first Sentinel that is named was cut off: it goes on naming another master."""
    liar = Redis(tmp_path / "liar", sentinel=True, lines=[
        f"sentinel monitor mill 127.0.0.1 {redis.port} 1", f"sentinel auth-pass mill {PASSWORD}", ""])
    with running(Trio(tmp_path)) as trio, running(liar), Counting(
            trio.url.replace("&prefix=LOG", "").replace("@", f"@127.0.0.1:{liar.port},")) as counting:
        assert counting.goes_on(), counting.end()
        trio.master.kill()
        assert counting.goes_on(), counting.end()
        assert any(r.call("ROLE")[0] == "master" for r in trio.replicas)
        assert counting.end() == (0, "")
