# SPDX-License-Identifier: Apache-2.0
"""The contract's section "Tasks": every route, every answer, every error, and what becomes of tasks whose
worker dies, sleeps or hangs."""
import concurrent.futures
import datetime
import json
import os
import signal
import time
import uuid

import pytest

from conftest import wait_until

FIELDS = {"id", "type", "status", "progress", "current", "total", "created_at", "started_at",
          "finished_at", "attempts", "worker", "result", "error"}
ENDS = ("succeeded", "failed", "cancelled")
HANG = 100_000 + os.getpid()  # seconds: by which its processes are known
QUICK = {"type": "long_task", "args": {"total": 1000, "step": 100}}


def slow(steps=600, **fields):
    """Lasts for `steps` times 50 ms."""
    return {"type": "long_task", "args": {"total": steps, "step": 1, "pace_ms": 50}, **fields}


def add(server, task, status=202):
    answer = server.post("/tasks", json=task)
    assert answer.status_code == status, answer.text
    return answer.json()


def get(server, task_id):
    answer = server.get(f"/tasks/{task_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def wait_for(server, task_id, wanted, timeout=60):
    """Polls until wanted(task), and returns the task."""
    deadline = time.monotonic() + timeout
    while True:
        task = get(server, task_id)
        if wanted(task):
            return task
        assert time.monotonic() < deadline, task
        time.sleep(0.02)


def wait_end(server, task_id, timeout=60):
    return wait_for(server, task_id, lambda task: task["status"] in ENDS, timeout)


def wait_running(server, task_id):
    return wait_for(server, task_id, lambda task: task["status"] == "running" and task["current"])


def pid_of(task):
    return int(task["worker"].rsplit(":", 1)[1])


# ---- One task ----
def test_a_task_runs_to_its_end(server):
    answer = server.post("/tasks", json=QUICK)
    assert answer.status_code == 202
    task = answer.json()
    assert FIELDS <= set(task)
    assert task["status"] == "queued" and task["type"] == "long_task" and task["attempts"] == 0
    assert uuid.UUID(task["id"]).version == 7
    assert answer.headers["Location"] == f"/tasks/{task['id']}"
    done = wait_end(server, task["id"])
    assert done["status"] == "succeeded" and done["progress"] == 1
    assert (done["current"], done["total"], done["attempts"]) == (1000, 1000, 1)
    assert done["error"] is None and done["result"] is not None
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]


def test_the_whole_count_of_a_long_task(server):
    """As it is asked for without arguments: 100,000,000 counted, 100 steps."""
    task = add(server, {"type": "long_task"})
    seen = set()
    done = wait_for(server, task["id"],
                    lambda t: seen.add(t["current"]) or t["status"] in ENDS, 300)
    assert done["status"] == "succeeded" and done["current"] == done["total"] == 100_000_000
    assert all(current % 1_000_000 == 0 for current in seen)


def test_progress_is_seen_while_it_runs(server):
    task = add(server, slow())
    first = wait_running(server, task["id"])
    later = wait_for(server, task["id"], lambda t: t["current"] > first["current"])
    assert 0 < later["progress"] < 1 and later["total"] == 600
    assert later["started_at"] and later["finished_at"] is None and pid_of(later) > 0
    assert server.delete(f"/tasks/{task['id']}").status_code == 200


def test_a_task_that_does_not_exist(server):
    for name in (str(uuid.uuid4()), "0", "x" * 200, "%00"):
        for method, path in (("GET", f"/tasks/{name}"), ("DELETE", f"/tasks/{name}"),
                             ("POST", f"/tasks/{name}/retry")):
            answer = server.request(method, path)
            assert answer.status_code == 404, (method, path)
            assert answer.json()["error"]["code"] == "not_found"


# ---- What is refused ----
@pytest.mark.parametrize("body, status, code, field", [
    ({}, 422, "missing_field", "type"),
    ({"type": "nothing_like_it"}, 422, "invalid_field", "type"),
    ({"type": 7}, 422, "invalid_field", "type"),
    ({**QUICK, "args": []}, 422, "invalid_field", "args"),
    ({**QUICK, "args": {"total": -1}}, 422, "invalid_field", "args"),
    ({**QUICK, "args": {"step": 0}}, 422, "invalid_field", "args"),
    ({**QUICK, "args": {"total": "many"}}, 422, "invalid_field", "args"),
    ({**QUICK, "args": {"pace_ms": 1.5}}, 422, "invalid_field", "args"),
    ({**QUICK, "priority": 10}, 422, "invalid_field", "priority"),
    ({**QUICK, "priority": -1}, 422, "invalid_field", "priority"),
    ({**QUICK, "max_retries": "3"}, 422, "invalid_field", "max_retries"),
    ({**QUICK, "timeout": 0}, 422, "invalid_field", "timeout"),
    ({**QUICK, "timeout": 1e9}, 422, "invalid_field", "timeout"),
    ({**QUICK, "run_at": "2020-01-01T00:00:00Z"}, 422, "invalid_field", "run_at"),
    ({**QUICK, "run_at": "tomorrow"}, 422, "invalid_field", "run_at"),
    ({**QUICK, "run_at": 5}, 422, "invalid_field", "run_at"),
    ({**QUICK, "idempotency_key": ""}, 422, "invalid_field", "idempotency_key"),
    ({**QUICK, "idempotency_key": "k" * 257}, 422, "invalid_field", "idempotency_key"),
    ([QUICK], 400, "bad_request", None),
])
def test_what_is_refused(server, body, status, code, field):
    answer = server.post("/tasks", json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error.get("field")) == (code, field) and error["message"]
    if field == "type":
        types = [row["type"] for row in server.get("/tasks/types").json()["types"]]
        assert error["message"].endswith(": " + ", ".join(types)), error


def test_arguments_of_10_MB_are_refused(server):
    answer = server.post("/tasks", json={**QUICK, "args": {"total": 1, "note": "x" * 10_000_000}})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"


def test_what_is_no_json_is_refused(server):
    for body in (b"", b"{", b'{"type":"long_task"} x', b"\xff"):
        answer = server.post("/tasks", data=body)
        assert answer.status_code == 400, body
        assert answer.json()["error"]["code"] == "malformed_json"


# ---- Batches ----
def test_a_batch_names_each(server):
    tasks = [QUICK, {"type": "nothing"}, {**QUICK, "priority": 9}, {**QUICK, "args": 3}]
    as_array = server.post("/tasks/batch", json={"tasks": tasks})
    as_lines = server.post("/tasks/batch", data="\n".join(map(json.dumps, tasks)) + "\n\n")
    for answer in (as_array, as_lines):
        assert answer.status_code == 202, answer.text
        entries = answer.json()["tasks"]
        assert ["error" in entry for entry in entries] == [False, True, False, True]
        assert entries[1]["error"]["field"] == "type"
        for entry in (entries[0], entries[2]):
            assert entry["status"] == "queued"
            assert wait_end(server, entry["id"])["status"] == "succeeded"


def test_a_batch_that_is_none(server):
    for body, code in ((b"", "missing_field"), (b'{"tasks":[]}', "missing_field"),
                       (b'{"tasks":{}}', "invalid_field"), (b'{"tasks":[{}', "malformed_json")):
        answer = server.post("/tasks/batch", data=body)
        if code == "malformed_json":  # a line that is broken is named in its place
            assert answer.json()["tasks"][0]["error"]["code"] == code, answer.text
        else:
            assert answer.status_code == 422 and answer.json()["error"]["code"] == code, body


def test_a_batch_that_is_refused_leaves_nothing(server):
    key = uuid.uuid4().hex
    task = {**QUICK, "idempotency_key": key}

    def newest():
        return [entry["id"] for entry in server.get("/tasks?limit=1").json()["tasks"]]

    before = newest()
    answer = server.post("/tasks/batch", data='{"tasks":[' + json.dumps(task) + ',,{}]}')
    assert answer.status_code == 400, answer.text
    assert newest() == before
    first = add(server, task)
    both = server.post("/tasks/batch", json={"tasks": [QUICK, task, QUICK]}).json()["tasks"]
    assert both[1]["id"] == first["id"] and len({entry["id"] for entry in both}) == 3
    assert all(wait_end(server, entry["id"])["status"] == "succeeded" for entry in both)


def test_a_thousand_at_once_all_end(server):
    answer = server.post("/tasks/batch",
                         json={"tasks": [{"type": "long_task", "args": {"total": 0}}] * 1000})
    ids = [entry["id"] for entry in answer.json()["tasks"]]
    assert len(set(ids)) == 1000 and ids == sorted(ids)
    for task_id in ids[::97] + ids[-1:]:
        assert wait_end(server, task_id)["status"] == "succeeded"


# ---- The list ----
def test_pages_newest_first(server):
    made = [add(server, QUICK)["id"] for _ in range(7)]
    seen, cursor = [], None
    while len(seen) < 7:
        page = server.get("/tasks", params={"limit": 3, **({"cursor": cursor} if cursor else {})})
        seen += [task["id"] for task in page.json()["tasks"]]
        cursor = page.json()["next"]
    assert seen[:7] == made[::-1]


def test_the_list_filters(server):
    task = add(server, slow())
    wait_running(server, task["id"])
    running = server.get("/tasks?status=running&type=long_task").json()["tasks"]
    assert task["id"] in [t["id"] for t in running]
    assert all(t["status"] == "running" for t in running)
    assert server.get("/tasks?type=nothing").json() == {"tasks": [], "next": None}
    server.delete(f"/tasks/{task['id']}")
    cancelled = server.get("/tasks?status=cancelled&limit=1").json()["tasks"]
    assert [t["id"] for t in cancelled] == [task["id"]]
    for query in ("status=lost", "limit=0", "limit=1001", "cursor=x"):
        assert server.get("/tasks?" + query).status_code == 422, query


def test_bulk_uploads_are_among_the_tasks(server, collection):
    lines = "\n".join(json.dumps({"id": i, "vector": [1, 2, 3, 4]}) for i in range(10))
    task = server.post(f"/ingest/{collection}", data=lines).json()
    upload = wait_end(server, task["task_id"] if "task_id" in task else task["id"])
    assert upload["status"] == "succeeded" and FIELDS <= set(upload)
    newer = add(server, QUICK)["id"]
    listed = [t["id"] for t in server.get("/tasks?limit=2").json()["tasks"]]
    assert listed == [newer, upload["id"]]


# ---- When ----
def test_run_at_delays(server):
    for seconds in (1, 30):  # a busy machine may let the time pass before it is asked: 422
        at = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
        answer = server.post("/tasks", json={**QUICK, "run_at": at.isoformat()})
        if answer.status_code == 202:
            break
    done = wait_end(server, answer.json()["id"])
    assert done["status"] == "succeeded"
    assert done["started_at"] >= at.isoformat(timespec="milliseconds")[:23]


def test_priorities_go_first(server_factory):
    server = server_factory("--max-workers", "1").start()
    blocker = add(server, slow())
    wait_running(server, blocker["id"])
    low = [add(server, {**QUICK, "priority": 1})["id"] for _ in range(3)]
    high = [add(server, {**QUICK, "priority": 9})["id"] for _ in range(3)]
    server.delete(f"/tasks/{blocker['id']}")
    started = [wait_end(server, task)["started_at"] for task in high + low]
    assert started == sorted(started)


# ---- Idempotency ----
def test_a_key_starts_one_task(server):
    key = uuid.uuid4().hex
    task = {**QUICK, "idempotency_key": key}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        ids = {t["id"] for t in pool.map(lambda _: add(server, task), range(32))}
    assert len(ids) == 1
    done = wait_end(server, ids.pop())
    again = add(server, task)
    assert again["id"] == done["id"] and again["status"] == "succeeded"
    batch = server.post("/tasks/batch", json={"tasks": [task, task]}).json()["tasks"]
    assert {entry["id"] for entry in batch} == {done["id"]}


def test_a_key_survives_a_restart(server_factory):
    server = server_factory().start()
    task = {**QUICK, "idempotency_key": "once"}
    first = add(server, task)["id"]
    wait_end(server, first)
    for end in (server.kill, server.stop):
        end()
        server.start()
        assert add(server, task)["id"] == first


# ---- Cancelling and retrying ----
def test_cancel_a_queued_one(server):
    task = add(server, {**QUICK, "run_at": time.time() + 3600})
    answer = server.delete(f"/tasks/{task['id']}")
    assert answer.status_code == 200 and answer.json()["status"] == "cancelled"
    assert answer.json()["started_at"] is None
    assert server.delete(f"/tasks/{task['id']}").status_code == 409


def test_cancel_a_running_one(server):
    task = add(server, slow())
    pid = pid_of(wait_running(server, task["id"]))
    answer = server.delete(f"/tasks/{task['id']}")
    assert answer.json()["status"] == "cancelled"
    current = answer.json()["current"]
    # The worker is free again, or gone: another task runs, and this one counts no further.
    assert wait_end(server, add(server, QUICK)["id"])["status"] == "succeeded"
    assert get(server, task["id"])["current"] <= current + 20
    assert pid


def test_cancel_an_ended_one(server):
    task = wait_end(server, add(server, QUICK)["id"])
    answer = server.delete(f"/tasks/{task['id']}")
    assert answer.status_code == 409 and answer.json()["error"]["code"] == "conflict"
    assert get(server, task["id"])["status"] == "succeeded"


def test_retry(server):
    task = add(server, {**slow(40), "timeout": 0.2})
    failed = wait_end(server, task["id"])
    assert failed["status"] == "failed" and "timed out after 200 ms" in failed["error"]
    answer = server.post(f"/tasks/{task['id']}/retry")
    assert answer.status_code == 202 and answer.json()["status"] in ("queued", "running")
    again = wait_for(server, task["id"], lambda t: t["attempts"] == 2 and t["status"] in ENDS)
    assert again["status"] in ("failed", "succeeded")
    done = wait_end(server, add(server, QUICK)["id"])
    assert server.post(f"/tasks/{done['id']}/retry").status_code == 409


def test_retries_with_backoff(server):
    task = add(server, {**slow(1000), "timeout": 0.1, "max_retries": 2})
    failed = wait_end(server, task["id"])
    assert failed["status"] == "failed" and failed["attempts"] == 3


# ---- Workers ----
def test_a_worker_that_dies_is_replaced(server):
    task = add(server, slow(100))
    running = wait_for(server, task["id"], lambda t: t["status"] == "running" and t["current"] > 3)
    os.kill(pid_of(running), signal.SIGKILL)
    again = wait_for(server, task["id"], lambda t: t["attempts"] == 2)
    assert again["worker"] != running["worker"]
    done = wait_end(server, task["id"])
    assert done["status"] == "succeeded" and done["current"] == 100


def test_what_others_started_is_spared(server_factory, tmp_path):
    """A sidecar of an entry point that became the server; and that ignores the end of children."""
    script = f"trap '' CHLD; sleep {HANG + 1} & echo $! >{tmp_path}/sidecar; exec \"$@\""
    server = server_factory(wrapper=("sh", "-c", script, "sh")).start()
    sidecar = int((tmp_path / "sidecar").read_text())
    try:
        task = add(server, slow(100))
        os.kill(pid_of(wait_running(server, task["id"])), signal.SIGKILL)
        assert wait_end(server, task["id"])["attempts"] == 2
        server.stop()
        os.kill(sidecar, 0)
    finally:
        os.kill(sidecar, signal.SIGKILL)


def test_tasks_are_forgotten_though_nothing_is_written(server_factory):
    server = server_factory("--tasks-keep", "1s", "--checkpoint-interval", "200ms").start()
    task = add(server, QUICK)
    assert wait_until(lambda: server.get(f"/tasks/{task['id']}").status_code == 404)
    assert server.metrics()['millrace_tasks_ended_total{status="succeeded"}'] == 1
    server.stop()


def test_a_task_that_kills_three_workers_has_failed(server):
    task = add(server, slow())
    killed = set()
    deadline = time.monotonic() + 60
    while get(server, task["id"])["status"] not in ENDS:
        assert time.monotonic() < deadline
        running = get(server, task["id"])
        if running["status"] == "running" and running["attempts"] not in killed:
            killed.add(running["attempts"])
            os.kill(pid_of(running), signal.SIGKILL)
        time.sleep(0.02)
    failed = get(server, task["id"])
    assert failed["status"] == "failed" and failed["attempts"] == 3
    assert "worker" in failed["error"]


def test_tasks_survive_a_kill_of_the_server(server_factory):
    server = server_factory("--max-workers", "2").start()
    running = add(server, slow(60))
    waiting = [add(server, QUICK)["id"] for _ in range(20)]
    later = add(server, {**QUICK, "run_at": time.time() + 3600})
    wait_for(server, running["id"], lambda task: task["current"])
    server.kill()
    server.start()
    assert wait_end(server, running["id"])["status"] == "succeeded"
    assert all(wait_end(server, task)["status"] == "succeeded" for task in waiting)
    assert get(server, later["id"])["status"] == "queued"


def test_a_stop_gives_running_tasks_back(server_factory):
    server = server_factory().start()
    task = add(server, slow(80))
    running = wait_for(server, task["id"], lambda t: t["status"] == "running" and t["current"] > 5)
    server.stop()
    server.start()
    done = wait_end(server, task["id"])
    assert done["status"] == "succeeded" and done["error"] is None
    assert running["attempts"] < done["attempts"]


# ---- exec ----
def test_without_commands_there_is_no_exec(server):
    task = {"type": "exec", "args": {"command": "count"}}
    answer = server.post("/tasks", json=task)
    assert answer.status_code == 422 and "--task-commands" in answer.json()["error"]["message"]
    answer = server.post("/tasks/batch", json={"tasks": [task, QUICK]})
    refused, taken = answer.json()["tasks"]
    assert "--task-commands" in refused["error"]["message"] and taken["status"] == "queued"


@pytest.fixture
def commands(tmp_path, server_factory):
    """A server that may run a few commands."""
    file = tmp_path / "commands.json"
    script = ("import json, sys\nargs = json.load(sys.stdin)\n"
              "for i in range(args['n']):\n"
              "    print(json.dumps({'current': i + 1, 'total': args['n']}), flush=True)\n"
              "print(json.dumps({'twice': 2 * args['n']}))\n")
    file.write_text(json.dumps({"commands": {
        "count": {"argv": ["/usr/bin/python3", "-c", script]},
        "fail": {"argv": ["/bin/sh", "-c", "echo no such thing >&2; exit 3"]},
        "die": {"argv": ["/bin/sh", "-c", "kill -9 $$"]},
        "hang": {"argv": ["/bin/sh", "-c", f"sleep {HANG} & sleep {HANG}"]},
        "large": {"argv": ["/bin/sh", "-c", "printf '{\"x\":\"%030000d\"}' 0"]},
        "flood": {"argv": ["/bin/sh", "-c", "yes | head -c 50000000"]}}}))
    return server_factory("--task-commands", str(file), "--memory-limit", "64M").start()


def execute(server, command, **fields):
    args = {"command": command, **fields.pop("more", {})}
    return add(server, {"type": "exec", "args": args, **fields})["id"]


def test_a_command_runs(commands):
    done = wait_end(commands, execute(commands, "count", more={"args": {"n": 5}}))
    assert done["status"] == "succeeded" and done["result"]["result"] == {"twice": 10}
    assert done["result"]["status"] == 0
    assert (done["current"], done["total"]) == (5, 5)


@pytest.mark.one_thread  # all of the work is the worker's
def test_commands_that_fail(commands):
    failed = wait_end(commands, execute(commands, "fail"))
    assert failed["status"] == "failed"
    assert "3" in failed["error"] and "no such thing" in failed["error"]
    assert "SIGKILL" in wait_end(commands, execute(commands, "die"))["error"]
    unknown = wait_end(commands, execute(commands, "rm -rf"))
    assert unknown["status"] == "failed" and "no command of that name" in unknown["error"]
    assert wait_end(commands, execute(commands, "flood"))["status"] == "succeeded"


def test_a_command_that_hangs_is_ended_with_its_children(commands):
    hanging = execute(commands, "hang", timeout=0.5)
    failed = wait_end(commands, hanging)
    assert failed["status"] == "failed" and "timed out" in failed["error"]
    cancelled = execute(commands, "hang")
    wait_for(commands, cancelled, lambda task: task["status"] == "running")
    assert commands.delete(f"/tasks/{cancelled}").json()["status"] == "cancelled"

    def left():
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as line:
                    if line.read() == f"sleep\0{HANG}\0".encode():
                        found.append(pid)
            except OSError:
                pass
        return found

    assert wait_until(lambda: not left()), left()


def test_a_page_that_takes_too_much_memory_is_refused(commands):
    """Which is given back: smaller pages show all of them."""
    made = commands.post("/tasks/batch", json={
        "tasks": [{"type": "exec", "args": {"command": "large"}}] * 100}).json()["tasks"]
    assert all(wait_end(commands, task["id"])["status"] == "succeeded" for task in made)
    for _ in range(10):
        answer = commands.get("/tasks?limit=1000")
        assert answer.status_code == 503 and "ask for fewer tasks" in answer.text, answer.text[:1000]
        assert answer.json()["error"]["field"] == "limit" and "Retry-After" in answer.headers
    seen, query = [], "/tasks?limit=20"
    while query:
        page = commands.get(query).json()
        seen += [task["id"] for task in page["tasks"]]
        query = page["next"] and "/tasks?limit=20&cursor=" + page["next"]
    assert seen == [task["id"] for task in made[::-1]]
    assert wait_until(lambda: commands.metrics()['millrace_memory_used_bytes{kind="answers"}'] < 1 << 20)


# ---- What operators see ----
def test_the_queue_for_autoscalers(server):
    later = add(server, {**QUICK, "run_at": time.time() + 3600})
    queue = server.get("/tasks/queue").json()
    assert set(queue) == {"queued", "running", "oldest_seconds", "workers", "busy"}
    assert queue["queued"] >= 1 and queue["workers"] >= 1
    server.delete(f"/tasks/{later['id']}")


def test_the_types(server):
    types = {t["type"]: t for t in server.get("/tasks/types").json()["types"]}
    assert set(types) == {"long_task", "exec", "import"}
    assert types["exec"]["args"]["required"] == ["command"]
    assert "total" in types["long_task"]["args"]["properties"]


def test_metrics_of_tasks(server):
    wait_end(server, add(server, QUICK)["id"])
    metrics = server.metrics()
    assert metrics['millrace_tasks_ended_total{status="succeeded"}'] >= 1
    assert metrics['millrace_tasks{status="succeeded"}'] >= 1
    assert "millrace_tasks_oldest_seconds" in metrics
    assert metrics["millrace_tasks_memory_bytes"] > 0
    assert metrics["millrace_task_workers"] >= metrics["millrace_task_workers_busy"] >= 0
    assert metrics["millrace_task_worker_starts_total"] >= 1
    assert metrics["millrace_task_worker_deaths_total"] >= 0
    assert metrics['millrace_task_run_seconds_count{type="long_task"}'] >= 1
    assert "millrace_tasks_disk_bytes" in metrics
    assert metrics["millrace_tasks_damages_total"] == 0
    assert metrics['millrace_compactions_failed_total{store="tasks"}'] == 0


def test_more_than_may_be_queued(server_factory):
    server = server_factory("--tasks-queued-max", "3", "--tasks-keep", "1h").start()
    later = {**QUICK, "run_at": time.time() + 3600}
    for _ in range(3):
        add(server, later)
    answer = server.post("/tasks", json=later)
    assert answer.status_code == 429 and answer.json()["error"]["code"] == "full"
    assert "Retry-After" in answer.headers


# ---- Server-sent events ----
def events_of(answer):
    """(event, data) as they come."""
    event, data = None, []
    for line in answer.iter_lines(decode_unicode=True):
        if line.startswith("event:"):
            event = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].strip())
        elif not line and data:
            yield event, json.loads("\n".join(data))
            event, data = None, []


def test_events_of_progress(server):
    task_id = add(server, slow(10**6))["id"]
    seen = []
    with server.get(f"/tasks/{task_id}/events", stream=True) as answer:
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        for event in events_of(answer):  # until the server ends it
            seen.append(event)
            if len({task["current"] for _, task in seen}) == 4:
                server.delete(f"/tasks/{task_id}")
    assert [event for event, _ in seen] == ["progress"] * (len(seen) - 1) + ["end"]
    currents = [task["current"] for _, task in seen[:-1]]
    assert currents == sorted(currents)
    assert seen[-1][1]["status"] == "cancelled"


def test_events_of_what_has_ended_or_is_not(server):
    task = wait_end(server, add(server, QUICK)["id"])
    with server.get(f"/tasks/{task['id']}/events", stream=True) as answer:
        assert list(events_of(answer)) == [("end", task)]
    assert server.get(f"/tasks/{uuid.uuid4()}/events").status_code == 404
