# SPDX-License-Identifier: Apache-2.0
"""Tasks over a journal on Redis that processes share; and two kinds over one journal, each with a store of
its own: who has lost one of them goes on with the other. What holds on any journal is in
test_roles_tasks.py."""
import itertools

import pytest
import requests

from conftest import PATIENCE_S, wait_until
from engines import running
from fleet import answers
from load import tag
from redis_server import DURABLE, PASSWORD, Redis
from roles import ASKED
from test_roles_tasks import PARTITIONS, Tasks, becomes, create, execute, task_of


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    with running(Redis(tmp_path_factory.mktemp("journal") / "one", **DURABLE)) as redis:
        yield redis


@pytest.fixture
def fleet(journal, redis, unique, tmp_path):
    fleet = Tasks(tmp_path, f"redis://:{PASSWORD}@127.0.0.1:{journal.port}/?prefix={unique}"
                  f"&partitions={PARTITIONS}&session-timeout=2000",
                  f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/?prefix={unique}", redis, unique)
    yield fleet
    fleet.stop()


def test_workers_and_the_journal_die(fleet, journal):
    """Each task that was acknowledged has one end, and what nobody died of ran once."""
    one, two = fleet.start("api-1", "api"), fleet.start("api-2", "api")
    first = fleet.start("worker-1", "worker")
    fleet.ready()
    keyed = [{"type": "exec", "args": {"command": "once"}, "idempotency_key": f"k{i}"}
             for i in range(10)]
    ids = {create(api, **task) for task in keyed for api in (one, two)}
    assert len(ids) == 10
    for task in ids:
        becomes(two, task, "succeeded")
    assert fleet.runs() == 10
    held = execute(one, "hold")
    assert wait_until(lambda: fleet.runs() == 11)
    fleet.start("worker-2", "worker")
    fleet.ready()
    first.kill()
    assert wait_until(lambda: fleet.runs() == 12), task_of(one, held)
    assert becomes(one, held, "running")["attempts"] == 2
    first.spawn()
    journal.kill()
    try:
        fleet.go_on.touch()
        for _ in range(2):  # what becomes of one that was under way is unknown, and of the next known
            assert one.post("/tasks", json={"type": "long_task"}).status_code == 503
        assert wait_until(lambda: answers(one, 503))
        assert task_of(two, held)["status"] == "running"
    finally:
        journal.start()
    # Once more, if nobody knows whether its end was written.
    attempts = becomes(two, held, "succeeded")["attempts"]
    runs = fleet.runs()
    assert attempts in (2, 3) and runs in (12, 13)
    fleet.ready()
    for api in (one, two):  # the first finds that its connection is gone
        assert wait_until(lambda api=api: api.post("/tasks", json={
            "type": "long_task", "args": {"total": 1}}).status_code == 202)
    after = [execute(api, "once") for api in (one, two) for _ in range(4)]
    assert {becomes(one, task, "succeeded")["attempts"] for task in after} == {1}
    assert task_of(one, held)["attempts"] == attempts and fleet.runs() == runs + len(after)


def parts(member):
    return requests.get(member.metrics_url + "/readyz", timeout=PATIENCE_S).json()["parts"]


def waits(worker, kind):
    """Whether it has tried to apply something of the kind in vain."""
    return worker.metrics()[f'millrace_consumer_retries_total{{consumer="{kind}"}}'] > 0


def test_a_dead_store_of_one_kind_stops_no_other(fleet, redis, cluster):
    numbers = itertools.count(1)
    fleet.others = ["--events", f"{cluster.url}/?replicas=1&prefix={fleet.prefix}"]
    api, worker = fleet.start("api", "api"), fleet.start("worker", "worker")
    fleet.ready()

    def post():
        number = next(numbers)
        assert api.post("/user_tags", json=tag("c", number)).status_code == 204
        return str(number)

    def there(*products):
        answer = api.get("/user_profiles/c", params=ASKED)
        return answer.status_code == 200 and set(products) <= {
            buy["product_info"]["product_id"] for buy in answer.json()["buys"]}

    def events_go_on():
        product = post()
        return wait_until(lambda: there(product))

    def tasks_go_on():
        return becomes(api, execute(api, "once"), "succeeded")

    assert events_go_on() and tasks_go_on()
    redis.kill()
    try:
        assert wait_until(lambda: answers(api, 503) and answers(worker, 503))
        assert wait_until(lambda: not parts(worker)["tasks"]["reachable"])
        assert parts(worker)["events"]["reachable"]
        late = execute(api, "once")
        assert wait_until(lambda: waits(worker, "tasks"))
        assert events_go_on() and events_go_on()
    finally:
        redis.start()
    fleet.ready()
    becomes(api, late, "succeeded")
    cluster.kill()
    assert wait_until(lambda: not parts(worker)["events"]["reachable"])
    assert parts(worker)["tasks"]["reachable"]
    late = post()
    assert wait_until(lambda: waits(worker, "events"))
    assert tasks_go_on() and tasks_go_on()
    cluster.run()
    fleet.ready()
    assert wait_until(lambda: there(late)) and events_go_on() and tasks_go_on()
