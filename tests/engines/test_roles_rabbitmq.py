# SPDX-License-Identifier: Apache-2.0
"""A journal of events that processes share, on RabbitMQ: a stream a partition."""
import json
import signal

import pytest

from conftest import wait_until
from driver_suite import SUITE, run_shared_suites, run_suite
from fleet import Fleet
from load import tag
from redis_server import PASSWORD
from roles import (ASKED, PARTITIONS, a_worker_names_the_engine, an_api_says_that_no_worker_lives,
                   an_idle_api_notices, another_store_is_refused, apis_die_and_the_engine_too,
                   workers_come_go_and_freeze)


@pytest.fixture
def fleet(rabbit, cluster, unique, tmp_path):
    fleet = Fleet(tmp_path, f"amqp://127.0.0.1:{rabbit.port}/?prefix={unique}"
                  f"&partitions={PARTITIONS}",
                  "--events", f"{cluster.url}/?replicas=1&prefix={unique}")
    yield fleet
    fleet.stop()


def test_what_the_driver_promises(rabbit):
    run_shared_suites(f"amqp://127.0.0.1:{rabbit.port}/?prefix=LOG-&partitions=4")


def test_what_this_driver_promises(rabbit):
    run_suite(f"amqp://127.0.0.1:{rabbit.port}/?prefix=LOG-&partitions=3",
              suite=SUITE.with_name("test-journal-rabbitmq_shared"))


def test_workers_come_go_and_freeze(fleet):
    workers_come_go_and_freeze(fleet)


def test_apis_die_and_the_broker_too(fleet, rabbit):
    apis_die_and_the_engine_too(fleet, rabbit.kill, rabbit.start)


@pytest.mark.parametrize("frozen", [False, True])
def test_an_idle_api_notices(fleet, rabbit, frozen):
    if frozen:
        an_idle_api_notices(fleet, lambda: rabbit.signal(signal.SIGSTOP),
                            lambda: rabbit.signal(signal.SIGCONT))
    else:
        an_idle_api_notices(fleet, rabbit.kill, rabbit.start)


def test_a_worker_names_the_engine(fleet, rabbit):
    a_worker_names_the_engine(fleet, rabbit.kill, rabbit.start,
                              f"RabbitMQ at 127.0.0.1:{rabbit.port}")


def test_an_api_says_that_no_worker_lives(fleet):
    an_api_says_that_no_worker_lives(fleet, "records of this process", False)


def test_another_store_is_refused(fleet, rabbit):
    another_store_is_refused(fleet, rabbit.remove_exchange)


def test_an_upload_of_unknown_outcome(fleet, rabbit):
    """Sent, and not confirmed: RabbitMQ may have it. Sent again with its key it is in effect once."""
    both = fleet.start("both", "api,worker")
    fleet.ready()
    lines = "\n".join(json.dumps(tag("c", number)) for number in range(1, 41))

    def upload():
        return both.post("/user_tags/batch", data=lines, headers={"Idempotency-Key": "k"})

    rabbit.signal(signal.SIGSTOP)
    try:
        answer = upload()
    finally:
        rabbit.signal(signal.SIGCONT)
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "outcome_unknown"
    fleet.ready()
    assert wait_until(lambda: upload().status_code == 200)

    def there():
        buys = both.get("/user_profiles/c", params=ASKED).json()["buys"]
        return sorted(int(buy["product_info"]["product_id"]) for buy in buys)

    assert wait_until(lambda: len(there()) >= 40)
    assert there() == list(range(1, 41))


def test_a_task_over_two_processes(rabbit, redis, unique, tmp_path):
    """The rest is in test_roles_tasks.py."""
    fleet = Fleet(tmp_path, f"amqp://127.0.0.1:{rabbit.port}/?prefix={unique}&partitions={PARTITIONS}",
                  "--tasks", f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/?prefix={unique}")
    try:
        api = fleet.start("api", "api")
        fleet.start("worker", "worker")
        fleet.ready()
        task = api.post("/tasks", json={"type": "long_task", "args": {"total": 1}}).json()["id"]
        assert wait_until(lambda: api.get(f"/tasks/{task}").json().get("status") == "succeeded")
    finally:
        fleet.stop()
