# SPDX-License-Identifier: Apache-2.0
"""A journal that processes share, on RabbitMQ's quorum queues: a queue a partition. A queue has no
offsets, and what was not acknowledged comes again: the store numbers it."""
import concurrent.futures
import signal

import pytest

from conftest import wait_until
from driver_suite import run_shared_suites
from engines import running
from fleet import Fleet, answers
from redis_server import Trio
from roles import (PARTITIONS, Load, another_store_is_refused, apis_die_and_the_engine_too,
                   workers_come_go_and_freeze)
from test_roles_tasks import Tasks, becomes, execute


def url(rabbit, prefix, n=PARTITIONS):
    return f"amqp://127.0.0.1:{rabbit.port}/?prefix={prefix}&partitions={n}&queues=quorum"


@pytest.fixture
def fleet(rabbit, cluster, unique, tmp_path):
    fleet = Fleet(tmp_path, url(rabbit, unique), "--events",
                  f"{cluster.url}/?replicas=1&prefix={unique}")
    yield fleet
    fleet.stop()


def test_what_the_driver_promises(rabbit):
    run_shared_suites(url(rabbit, "LOG-", 4))


def test_workers_come_go_and_freeze(fleet):
    workers_come_go_and_freeze(fleet)


def test_apis_die_and_the_broker_too(fleet, rabbit):
    apis_die_and_the_engine_too(fleet, rabbit.kill, rabbit.start)


def test_another_store_is_refused(fleet, rabbit):
    another_store_is_refused(fleet, rabbit.remove_exchange)


def test_workers_are_killed_in_mid_batch(fleet):
    """Again and again, each with messages in its hands that were applied in part and not acknowledged."""
    one, two = fleet.start("api-1", "api"), fleet.start("api-2", "api")
    workers = [fleet.start(f"worker-{i}", "worker") for i in range(2)]
    fleet.ready()
    with Load(one, two) as load:
        for i in range(8):
            load.progress(25)
            workers[i % 2].kill()
            workers[i % 2].spawn()
    load.check()


def test_a_master_dies(fleet, cluster):
    """With replicas=1 the numbers are on two nodes before they are used; those that the new master gives are
    far above them, and nothing is missing between."""
    one = fleet.start("both", "api,worker")
    fleet.ready()
    with Load(one) as load:
        for _ in range(2):
            load.progress()
            cluster.masters()[0].kill()
            assert wait_until(lambda: len(cluster.masters()) == 3)
            load.progress()
            cluster.run()
            assert wait_until(cluster.is_whole)
    load.check()


def test_the_store_is_away_and_comes_back(fleet, cluster):
    """The queues keep what comes meanwhile."""
    api, worker = fleet.start("api", "api"), fleet.start("worker", "worker")
    fleet.ready()
    with Load(api) as load:
        load.progress()
        cluster.kill()
        assert wait_until(lambda: answers(worker, 503))
        cluster.run()
        assert wait_until(cluster.is_whole)
        fleet.ready()
        load.progress()
    load.check()
    assert worker.process.poll() is None


def test_what_is_not_ours_is_passed_over(fleet, rabbit):
    """Somebody else's message, which has no id: counted once, also by who gets it again."""
    both = fleet.start("both", "api,worker")
    fleet.ready()
    queue = fleet.journal.split("prefix=")[1].split("&")[0] + "events-q"
    for i in range(PARTITIONS):
        rabbit.control("eval", "rabbit_basic:publish(rabbit_misc:r(<<\"/\">>, exchange, <<>>), "
                       f'<<"{queue}{i}">>, [], <<"strange">>).')
    strange = 'millrace_consumer_strange_messages_total{consumer="events"}'
    assert wait_until(lambda: both.metrics()[strange] == PARTITIONS)
    with Load(both) as load:
        load.progress()
        both.kill()
        both.start()
        load.progress()
    load.check()
    assert both.metrics()[strange] == 0


@pytest.fixture
def tasks(rabbit, unique, tmp_path):
    with running(Trio(tmp_path / "trio")) as trio:
        fleet = Tasks(tmp_path, url(rabbit, unique, 4), trio.url, trio.master, unique)
        fleet.trio = trio
        yield fleet
        fleet.stop()


def create_many(fleet, *apis):
    """Through all of them at once: the ids."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:  # as in test_roles_tasks.py
        return list(pool.map(lambda i: execute(apis[i % len(apis)], "once"), range(24)))


def all_succeed(api, ids):
    for task in ids:
        assert becomes(api, task, "succeeded")["attempts"] <= 3


def test_tasks_by_any_api_and_worker(tasks, rabbit):
    """Workers that are killed and that sleep, a broker that is killed; each task has one end."""
    one, two = tasks.start("api-1", "api"), tasks.start("api-2", "api")
    first, second = tasks.start("worker-1", "worker"), tasks.start("worker-2", "worker")
    tasks.ready()
    ids = create_many(tasks, one, two)
    first.kill()
    ids += create_many(tasks, one, two)
    first.spawn()
    second.process.send_signal(signal.SIGSTOP)
    ids += create_many(tasks, one, two)
    all_succeed(one, ids)
    second.process.send_signal(signal.SIGCONT)
    rabbit.kill()
    rabbit.start()
    tasks.ready()
    ids += create_many(tasks, one, two)
    all_succeed(two, ids)
    assert tasks.runs() >= len(ids)
    # What takes its workers with it is given up, and is a dead letter.
    deadly = execute(one, "die")
    assert "worker" in becomes(two, deadly, "failed")["error"]
    letters = 'millrace_consumer_dead_letters{consumer="tasks"}'
    assert wait_until(lambda: first.metrics()[letters] == 1)


def test_tasks_over_a_failover(tasks):
    """The numbers of messages are on two servers as well."""
    one = tasks.start("one", "api,worker")
    tasks.ready()
    ids = create_many(tasks, one)
    tasks.trio.master.kill()
    ids += create_many(tasks, one)
    tasks.ready()
    all_succeed(one, ids + create_many(tasks, one))


def test_streams_are_another_journal(fleet):
    """Their offsets would be taken for numbers, and the other way round."""
    fleet.start("first", "api")
    fleet.ready().stop()
    fleet.members.clear()
    fleet.journal = fleet.journal.replace("&queues=quorum", "")
    wrong = fleet.start("wrong", "api")
    assert wrong.process.wait(60) == 1
    wrong.process = None
    assert "are of another data directory or journal" in wrong.stderr()
