# SPDX-License-Identifier: Apache-2.0
"""Many processes for one queue of tasks: APIs that write a journal of several partitions on Kafka, workers
that divide it, apply to one Redis and run what is there. Whatever dies, sleeps or fails over, every task
that was acknowledged has exactly one end, and every process shows the same."""
import concurrent.futures
import json
import signal

import pytest
import requests

from conftest import PATIENCE_S, wait_until
from fleet import Fleet, answers, place_of_mark
from letters import KafkaLog, at, at_once, by_pages, listed, message, tool
from redis_server import PASSWORD, Trio

PARTITIONS = 4


class Tasks(Fleet):
    """Processes that share a journal and a Redis, and stores of other kinds (others: options). The command
    `hold` runs until released; it and `once` say in a file that they began."""

    def __init__(self, directory, journal, tasks, redis, prefix):
        super().__init__(directory, journal)
        self.tasks, self.redis, self.prefix = tasks, redis, prefix
        self.others = []
        self.go_on = directory / "go-on"
        self.began = directory / "began"
        self.began.touch()
        self.commands = directory / "commands.json"
        hold = f"echo $$ >> {self.began}; while ! test -e {self.go_on}; do sleep 0.02; done"
        self.commands.write_text(json.dumps({"commands": {
            "hold": {"argv": ["/bin/sh", "-c", hold]},
            "die": {"argv": ["/bin/sh", "-c", "kill -9 $PPID"]},
            "once": {"argv": ["/bin/sh", "-c", f"echo $$ >> {self.began}"]}}}))

    def start(self, name, roles):
        self.stores = ["--tasks", self.tasks, "--task-commands", str(self.commands),
                       "--max-workers", "2", *self.others]
        return super().start(name, roles)

    def stop(self):
        self.go_on.touch()
        for member in self.members.values():
            if member.process:
                member.process.send_signal(signal.SIGCONT)
        super().stop()

    def runs(self):
        return len(self.began.read_text().splitlines())


@pytest.fixture
def fleet(broker, redis, unique, tmp_path):
    fleet = Tasks(tmp_path, f"kafka://{broker.servers}/?topic-prefix={unique}&partitions={PARTITIONS}"
                  "&session-timeout=2000",
                  f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/?prefix={unique}", redis, unique)
    yield fleet
    fleet.stop()


def create(api, **task):
    answer = api.post("/tasks", json=task)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def execute(api, command, **task):
    return create(api, type="exec", args={"command": command}, **task)


def task_of(api, task_id):
    answer = api.get(f"/tasks/{task_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def becomes(api, task_id, status):
    assert wait_until(lambda: api.get(f"/tasks/{task_id}").json().get("status") == status), \
        api.get(f"/tasks/{task_id}").text
    return task_of(api, task_id)


def pages(api, **asked):
    """All ids, newest first, a page of 7 at a time."""
    found, cursor = [], {}
    while True:
        page = api.get("/tasks", params={"limit": 7, **asked, **cursor}).json()
        found += [task["id"] for task in page["tasks"]]
        if page["next"] is None:
            return found
        cursor = {"cursor": page["next"]}


def events(api, task_id):
    """Of its stream, until the end: the names, and the tasks."""
    with requests.get(f"{api.url}/tasks/{task_id}/events", stream=True, timeout=PATIENCE_S) as stream:
        assert stream.status_code == 200
        name = None
        for line in stream.iter_lines(decode_unicode=True):
            if line.startswith("event:"):
                name = line.split(":", 1)[1].strip()
            elif line.startswith("data:"):
                yield name, json.loads(line.split(":", 1)[1])


def test_another_store_is_refused(fleet, broker):
    """Of another prefix, or one that was emptied: nothing is taken, and nothing made there."""
    one = fleet.start("api", "api")
    fleet.ready()
    task = execute(one, "once")
    right, fleet.tasks = fleet.tasks, fleet.tasks + "x"
    for roles in ("worker", "api"):
        said = fleet.refused(roles)
        assert f"belongs to the store {fleet.prefix}/" in said, said
        assert "is another: it has no tasks under the prefix" in said, said
    assert fleet.redis.call("KEYS", f"{{{fleet.prefix}x*") == []
    fleet.tasks = right
    fleet.start("worker", "worker")
    fleet.ready()
    assert becomes(one, task, "succeeded") and fleet.runs() == 1
    fleet.stop()
    fleet.members.clear()
    for key in fleet.redis.call("KEYS", f"{{{fleet.prefix}tasks}}*"):
        fleet.redis.call("DEL", key)
    said = fleet.refused("worker")
    assert f"belongs to the store {fleet.prefix}/" in said and "emptied" in said, said
    broker.delete_topic(place_of_mark(said))
    one = fleet.start("both", "api,worker")
    fleet.ready()
    assert becomes(one, execute(one, "once"), "succeeded")


def test_any_api_shows_what_any_worker_does(fleet):
    one, two = fleet.start("api-1", "api"), fleet.start("api-2", "api")
    first, second = fleet.start("worker-1", "worker"), fleet.start("worker-2", "worker")
    fleet.ready()
    # Keys that both APIs get at once, and tasks without: each key has one task, each task one end.
    keys = [{"type": "exec", "args": {"command": "once"}, "idempotency_key": f"k{i}"} for i in range(20)]
    plain = [{"type": "exec", "args": {"command": "once"}} for _ in range(20)]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:  # more would find the short queue of a test full
        answered = list(pool.map(lambda job: create(job[0], **job[1]),
                                 [(api, task) for task in keys for api in (one, two)]
                                 + [(one, task) for task in plain]))
    batch = two.post("/tasks/batch", json={"tasks": keys + plain}).json()["tasks"]
    ids = set(answered) | {task["id"] for task in batch}
    assert len(ids) == 60 and [task["id"] for task in batch[:20]] == answered[0:40:2]
    assert wait_until(lambda: set(pages(two, status="succeeded")) == ids)
    assert pages(one) == pages(one, type="exec") == sorted(ids, reverse=True)
    assert pages(one, status="failed") == pages(two, type="long_task") == []
    assert fleet.runs() == 60, "nothing died: each ran once"
    ended = 'millrace_tasks_ended_total{status="succeeded"}'
    assert first.metrics()[ended] + second.metrics()[ended] == 60
    again = one.post("/tasks", json=keys[0]).json()
    assert (again["id"], again["status"]) == (answered[0], "succeeded")
    # Progress, and the end of a stream, by the one that did not create it.
    slow = create(one, type="long_task", args={"total": 10**6, "step": 1, "pace_ms": 20})
    seen = events(two, slow)
    assert next(task for _, task in seen if task["current"] > 2)["status"] == "running"
    assert wait_until(lambda: two.get("/tasks/queue").json()["running"] == 1)
    assert two.get("/tasks/queue").json()["workers"] >= 2
    cancelled = two.delete(f"/tasks/{slow}").json()
    assert cancelled["status"] == "cancelled" == task_of(one, slow)["status"]
    assert [name for name, _ in seen][-1] == "end"
    assert two.delete(f"/tasks/{slow}").status_code == 409
    assert wait_until(lambda: one.get("/tasks/queue").json()["busy"] == 0), "it runs on"
    # Later, and tried again.
    later = create(one, type="exec", args={"command": "once"}, run_at="2099-01-01T00:00:00Z")
    assert two.delete(f"/tasks/{later}").json()["status"] == "cancelled"
    retried = one.post(f"/tasks/{later}/retry")
    assert retried.status_code == 202 and becomes(two, later, "succeeded")["attempts"] == 1
    assert one.get("/tasks/01a1fe62-4d90-7000-8000-000000000001").status_code == 404
    parts = requests.get(first.metrics_url + "/readyz", timeout=PATIENCE_S).json()["parts"]
    assert set(parts) == {"server", "journal-tasks", "tasks", "runner"} and parts["tasks"]["reachable"]
    assert PASSWORD not in json.dumps(parts)


def test_there_are_no_imports(fleet, tmp_path):
    """Whatever options the API has: no worker could post to one."""
    fleet.others = ["--import-dir", str(tmp_path)]
    api = fleet.start("api", "api")
    fleet.ready()
    assert [row["type"] for row in api.get("/tasks/types").json()["types"]] == ["long_task", "exec"]
    refused = api.post("/tasks", json={"type": "import", "args": {"path": "a.ndjson", "events": True}})
    assert refused.status_code == 422 and "where processes share the journal" in refused.text
    refused = api.post("/tasks", json={"type": "other"})
    assert refused.status_code == 422 and refused.json()["error"]["message"].endswith(": long_task, exec")


def test_workers_die_and_sleep(fleet):
    """kill -9 in mid-task; and one that sleeps past its lease, whose end is refused when it wakes."""
    api, first = fleet.start("api", "api"), fleet.start("worker-1", "worker")
    fleet.ready()
    held = execute(api, "hold")
    assert wait_until(lambda: fleet.runs() == 1)
    second = fleet.start("worker-2", "worker")
    fleet.ready()
    first.kill()
    assert wait_until(lambda: fleet.runs() == 2), task_of(api, held)
    assert becomes(api, held, "running")["attempts"] == 2
    second.process.send_signal(signal.SIGSTOP)
    first.spawn()
    assert wait_until(lambda: fleet.runs() == 3), task_of(api, held)
    fleet.go_on.touch()
    done = becomes(api, held, "succeeded")
    assert done["attempts"] == 3
    second.process.send_signal(signal.SIGCONT)
    assert wait_until(lambda: answers(second, 200))
    ends = [becomes(api, execute(api, "once"), "succeeded") for _ in range(4)]
    assert task_of(api, held) == done
    assert {task["attempts"] for task in ends} == {1}
    # What takes its workers with it is given up, and can be tried again.
    deadly = execute(api, "die")
    failed = becomes(api, deadly, "failed")
    assert failed["attempts"] == 3 and "worker" in failed["error"]
    letters = 'millrace_consumer_dead_letters{consumer="tasks"}'
    assert wait_until(lambda: first.metrics()[letters] == 1)
    assert api.post(f"/tasks/{deadly}/retry").status_code == 202
    assert wait_until(lambda: task_of(api, deadly)["attempts"] == 6
                      and task_of(api, deadly)["status"] == "failed")


def test_dead_letters_go_from_any_api(fleet, broker):
    """Records that are none, which become new tasks; and the end of a task that took its workers with it,
    which is tried again."""
    one, two, worker = fleet.start("one", "api"), fleet.start("two", "api"), fleet.start("w", "worker")
    fleet.ready()
    topic = fleet.journal.split("topic-prefix=")[1].split("&")[0] + "tasks"
    log = KafkaLog(broker.servers, topic, PARTITIONS)
    for partition in (0, 1, 1, 3):
        log.append(partition, message("tasks", 1, b"?"))
    deadly = execute(one, "die")
    assert becomes(two, deadly, "failed")["attempts"] == 3
    assert wait_until(lambda: len(listed(one, "tasks")) == 5)
    letters = listed(two, "tasks")
    assert by_pages(one, 2) == letters and {letter["changed"] for letter in letters} == {None}
    [death] = [letter for letter in letters if letter["key"]]
    assert death["key"] == deadly and "it took 3 workers with it" in death["reason"]
    again = {"type": "exec", "args": {"command": "die"}, "priority": 5, "max_retries": 0}
    assert {**two.get(at(death)).json()["record"], **again} == two.get(at(death)).json()["record"]
    assert two.post(at(death, "/replay")).status_code == 200
    assert wait_until(lambda: task_of(one, deadly)["attempts"] == 6)
    becomes(one, deadly, "failed")
    assert one.get(at(death)).status_code == 404

    poison = [letter for letter in listed(one, "tasks") if not letter["key"]]
    assert {letter["reason"] for letter in poison} == {"not a record of tasks"}
    assert "does not decode" in one.get(at(poison[0])).json()["record_error"]
    assert one.post(at(poison[0], "/replay")).status_code == 422
    once = {"record": {"type": "exec", "args": {"command": "once"}}}
    assert two.post(at(poison[0], "/replay"), json=once).status_code == 200
    assert one.post(at(poison[0], "/replay"), json=once).status_code == 404
    assert at_once(worker, lambda: one.post(at(poison[1], "/replay"), json=once),
                   lambda: two.post(at(poison[1], "/replay"), json=once)) == [202] * 2
    # A worker that dies with the record in its hands: the next one finds it.
    worker.process.send_signal(signal.SIGSTOP)
    assert one.post(at(poison[2], "/replay"), json=once).status_code == 202
    worker.kill()
    worker.spawn()
    fleet.ready()
    assert wait_until(lambda: not [poisoned for poisoned in listed(two, "tasks") if poisoned in poison[:3]])
    assert wait_until(lambda: fleet.runs() == 3)
    becomes(two, execute(two, "once"), "succeeded")
    assert fleet.runs() == 4 and len(pages(one)) == 5
    stores = ["--tasks", fleet.tasks]
    left = [json.loads(line) for line in tool(fleet, "list", "--json", stores=stores).splitlines()]
    assert left == listed(one, "tasks") and len(left) == 2
    [death] = [letter for letter in left if letter["key"]]
    assert json.loads(tool(fleet, "show", str(death["number"]), stores=stores))["type"] == "exec"
    assert tool(fleet, "drop", str(death["number"]), stores=stores) == ""
    assert one.get(at(death)).status_code == 404
    for letter in listed(one, "tasks"):
        assert one.delete(at(letter)).status_code == 204
        assert two.delete(at(letter)).status_code == 404
    assert listed(two, "tasks") == []


def test_redis_is_away_and_comes_back(fleet, redis):
    """Tasks are taken meanwhile, but for those with a key; nobody answers what he does not know."""
    api, worker = fleet.start("api", "api"), fleet.start("worker", "worker")
    fleet.ready()
    held = execute(api, "hold")
    assert wait_until(lambda: fleet.runs() == 1)
    redis.kill()
    try:
        assert wait_until(lambda: answers(api, 503) and answers(worker, 503))
        assert api.get("/tasks").json()["error"]["code"] == "engine_unreachable"
        assert api.get(f"/tasks/{held}").status_code == 503
        assert api.delete(f"/tasks/{held}").status_code == 503
        assert api.post("/tasks", json={"type": "exec", "args": {"command": "once"},
                                        "idempotency_key": "k"}).status_code == 503
        meanwhile = [execute(api, "once") for _ in range(8)]
        fleet.go_on.touch()
    finally:
        redis.start()
    fleet.ready()
    for task in meanwhile:
        becomes(api, task, "succeeded")
    assert becomes(api, held, "succeeded")["attempts"] == 1, "its worker was never away"
    assert fleet.runs() == 9


def test_the_broker_is_away_and_comes_back(fleet, broker):
    """A task that ends meanwhile keeps its lease, and nobody runs it again, though its end takes longer."""
    api, worker = fleet.start("api", "api"), fleet.start("worker", "worker")
    idle = fleet.start("idle", "worker")
    fleet.ready()
    held = execute(api, "hold")
    becomes(api, held, "running")
    leases = ["ZCOUNT", "{%stasks}:leases" % fleet.prefix, "-inf"]
    broker.kill()
    try:
        fleet.go_on.touch()
        assert api.post("/tasks", json={"type": "long_task"}).status_code == 503
        # Twice as long as a lease, by the clock that counts.
        end = int(fleet.redis.call("TIME")[0]) + 5
        assert wait_until(lambda: int(fleet.redis.call("TIME")[0]) > end)
        assert task_of(api, held)["status"] == "running"
        assert fleet.redis.call(*leases, end * 1000 - 2000) == "0", "it was not renewed"
    finally:
        broker.start()
    done = becomes(api, held, "succeeded")
    assert (done["attempts"], fleet.runs(), done["error"]) == (1, 1, None)
    assert idle.process.poll() is None and worker.process.poll() is None


def test_a_failover(fleet, tmp_path):
    """With replicas=1 what was applied is on two servers, and what was not is applied after it."""
    trio = Trio(tmp_path / "trio")
    try:
        trio.start()
        fleet.tasks = trio.url
        one = fleet.start("one", "api,worker")
        fleet.ready()
        before = [execute(one, "once") for _ in range(8)]
        trio.master.kill()
        after = [execute(one, "once") for _ in range(8)]
        fleet.ready()
        for task in before + after:
            becomes(one, task, "succeeded")
        assert fleet.runs() >= 16
        fleet.stop()
    finally:
        trio.kill()


def test_tasks_of_another_journal_are_refused(fleet, redis):
    """And what the server's settings promise less is named."""
    redis.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        first = fleet.start("first", "api")
        assert wait_until(lambda: "maxmemory-policy" in first.stderr())
    finally:
        redis.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    fleet.ready().stop()
    fleet.journal = fleet.journal.replace("topic-prefix=", "topic-prefix=other-")
    wrong = fleet.start("wrong", "worker")
    assert wrong.process.wait(PATIENCE_S) == 1
    wrong.process = None
    assert "of another journal" in wrong.stderr()
