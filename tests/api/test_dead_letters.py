# SPDX-License-Identifier: Apache-2.0
"""Dead letters of each kind, by the routes and by the command line. Records that no route lets
through are put into the journal of a stopped server; tasks die of their workers."""
import concurrent.futures
import json
import os
import re
import signal
import struct
import subprocess

import pytest
import requests

from conftest import BINARY, TINY, millrace, wait_until
from journal_file import JournalFile

FIELDS = {"kind", "number", "key", "at", "reason", "bytes", "changed"}
TAG = {"time": "2022-03-22T12:15:00.000Z", "cookie": "a cookie/ö", "country": "PL", "device": "PC",
       "action": "VIEW", "origin": "camp",
       "product_info": {"product_id": "p1", "brand_id": "b", "category_id": "c", "price": 7}}
POINT_LETTERS_MAX = 50 if TINY else 10000
POINTS = [{"id": i, "vector": [1.0, 0.0], "payload": {"n": i}} for i in range(1, 6)]


def letters(server, **query):
    answer = server.get("/dead-letters", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["dead_letters"]


def error_of(answer, status, code):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code and error["message"], error
    return error["message"]


def tool(directory, *arguments, text=None, status=0):
    done = subprocess.run([BINARY, "journal", "dead-letters", *arguments, "--data-dir",
                           str(directory)], input=text, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done
    return done.stdout if status == 0 else done.stderr


def write_points(server):
    assert server.put("/collections/movies", json={
        "vectors": {"size": 2, "distance": "Dot"}}).status_code == 200
    assert server.put("/collections/movies/points?wait=true",
                      json={"points": POINTS}).status_code == 200


def short_vector(record):
    """The same upsert, with a vector of one number."""
    payload = bytearray(record.payload)
    struct.pack_into("<I", payload, 4, 1)
    return bytes(payload[:44] + payload[48:])


def poison(server):
    """Stops the server; puts a letter for each of the points, and two for the tag, into its
    journal. Returns their numbers."""
    server.stop()
    journal = JournalFile(server.directory)
    points = [r for r in journal.records if r.kind == 1 and r.payload[1] == 1][-len(POINTS):]
    tag = [r for r in journal.records if r.kind == 2 and r.payload[1] == 1][-1]
    numbers = [journal.append("points", r.key_hash, short_vector(r)) for r in points]
    for _ in range(2):
        numbers.append(journal.append("events", tag.key_hash, b"\xff" + tag.payload[1:]))
    return numbers


@pytest.fixture
def poisoned(server_factory):
    server = server_factory().start()
    write_points(server)
    assert server.post("/user_tags", json=TAG).status_code == 204
    server.numbers = poison(server)
    return server


def shown_by_status(server):
    done = millrace("status", "--metrics-listen", f"127.0.0.1:{server.metrics_port}")
    return int(re.search(r"^dead letters +(\d+)$", done.stdout, re.M).group(1))


def views(server):
    answer = server.post("/user_profiles/a%20cookie%2F%C3%B6",
                         params={"time_range": "2022-03-22T12:00:00_2022-03-22T13:00:00"})
    return answer.json()["views"]


def point(server, number):
    return server.get(f"/collections/movies/points/{number}").json().get("result")


def test_points_and_events_by_the_routes(poisoned):
    server = poisoned.start()
    first, events = server.numbers[:5], server.numbers[5:]

    # Pages, newest first, of all kinds and of one.
    every = letters(server)
    assert [letter["number"] for letter in every] == sorted(server.numbers, reverse=True)
    assert all(set(letter) == FIELDS and not letter["changed"] for letter in every)
    assert {letter["key"] for letter in letters(server, kind="points")} == {
        f"movies/{i}" for i in range(1, 6)}
    assert all("do not fit" in letter["reason"] for letter in letters(server, kind="points"))
    assert [letter["kind"] for letter in letters(server, kind="events")] == ["events"] * 2
    assert letters(server, kind="tasks") == []
    seen, cursor = [], ""
    while cursor is not None:
        page = server.get("/dead-letters", params={"limit": 3, "cursor": cursor}).json()
        assert 1 <= len(page["dead_letters"]) <= 3
        seen += page["dead_letters"]
        cursor = page["next_cursor"]
    assert seen == every
    metrics = server.metrics()
    assert metrics['millrace_consumer_dead_letters{consumer="points"}'] == 5
    assert metrics['millrace_consumer_dead_letters{consumer="events"}'] == 2
    assert metrics['millrace_consumer_dead_letters{consumer="tasks"}'] == 0
    assert shown_by_status(server) == 7

    # What is wrong with a request.
    error_of(server.get("/dead-letters?kind=x"), 422, "invalid_field")
    error_of(server.get("/dead-letters?limit=0"), 422, "invalid_field")
    error_of(server.get("/dead-letters?limit=1001"), 422, "invalid_field")
    error_of(server.get("/dead-letters?cursor=x"), 422, "invalid_field")
    error_of(server.get("/dead-letters/points/999999"), 404, "not_found")
    error_of(server.get("/dead-letters/points/x"), 404, "not_found")
    error_of(server.get(f"/dead-letters/things/{first[0]}"), 404, "not_found")
    error_of(server.get(f"/dead-letters/events/{first[0]}"), 404, "not_found")
    error_of(server.delete("/dead-letters/points/999999"), 404, "not_found")
    error_of(server.post("/dead-letters/points/999999/replay"), 404, "not_found")
    at = f"/dead-letters/points/{first[0]}"
    error_of(server.post(at + "/replay", data="{"), 400, "malformed_json")
    error_of(server.post(at + "/replay", json=[]), 400, "bad_request")
    error_of(server.post(at + "/replay", json={"force": 1}), 422, "invalid_field")
    error_of(server.post(at + "/replay", json={"record": 1}), 422, "invalid_field")

    # A point: refused as it is, mended, gone.
    whole = server.get(at).json()
    assert set(whole) == FIELDS | {"record"}
    assert whole["record"] == {"id": 1, "vector": [1.0], "payload": {"n": 1}}
    assert "do not fit" in error_of(server.post(at + "/replay"), 422, "invalid_field")
    error_of(server.post(at + "/replay", json={"record": {"id": 9, "vector": [0, 1]}}), 422,
             "invalid_field")
    mended = {**whole["record"], "vector": [0.0, 2.0]}
    answer = server.post(at + "/replay", json={"record": mended})
    assert answer.status_code == 200 and answer.json()["lsn"] > max(server.numbers)
    assert point(server, 1)["vector"] == [0.0, 2.0]
    error_of(server.get(at), 404, "not_found")
    error_of(server.post(at + "/replay", json={"record": mended}), 404, "not_found")

    # A point that was written since, and one that was deleted.
    for i, path, body in ((2, "", {"points": [{"id": 2, "vector": [5, 5]}]}),
                          (3, "/delete", {"points": [3]})):
        at = f"/dead-letters/points/{first[i - 1]}"
        server.request("POST" if path else "PUT", f"/collections/movies/points{path}?wait=true",
                       json=body).raise_for_status()
        assert server.get(at).json()["changed"]
        mended = {"record": {"id": i, "vector": [3.0, 4.0]}}
        error_of(server.post(at + "/replay", json=mended), 409, "conflict")
        assert point(server, i) is None if path else point(server, i)["vector"] == [5.0, 5.0]
        assert server.post(at + "/replay", json={**mended, "force": True}).status_code == 200
        assert point(server, i)["vector"] == [3.0, 4.0]

    # Dropped.
    at = f"/dead-letters/points/{first[3]}"
    assert server.delete(at).status_code == 204
    error_of(server.delete(at), 404, "not_found")

    # A tag that does not decode, replaced; and one that goes with its user.
    at = f"/dead-letters/events/{events[0]}"
    whole = server.get(at).json()
    assert whole["record"] is None and "does not decode" in whole["record_error"]
    error_of(server.post(at + "/replay"), 422, "invalid_field")
    error_of(server.post(at + "/replay", json={"record": {**TAG, "cookie": "b"}}), 422,
             "invalid_field")
    new = {**TAG, "origin": "never seen before"}
    assert server.post(at + "/replay", json={"record": new}).status_code == 200
    assert sorted(tag["origin"] for tag in views(server)) == ["camp", "never seen before"]
    assert server.delete("/user_profiles/a%20cookie%2F%C3%B6").status_code == 204
    assert wait_until(lambda: letters(server, kind="events") == [])

    # What is left is left after a kill too, and what is gone stays gone.
    left = letters(server)
    assert [letter["number"] for letter in left] == [first[4]]
    assert shown_by_status(server) == 1
    server.kill()
    server.start()
    assert letters(server) == left and point(server, 1)["vector"] == [0.0, 2.0]
    assert views(server) == []


def test_so_many_that_no_points_are_taken(server_factory):
    """Until one of them is gone; deletes go on."""
    server = server_factory().start()
    write_points(server)
    server.stop()
    journal = JournalFile(server.directory)
    record = [r for r in journal.records if r.kind == 1 and r.payload[1] == 1][-1]
    numbers = [journal.append("points", record.key_hash, short_vector(record))
               for _ in range(POINT_LETTERS_MAX)]
    server.start()
    points = "/collections/movies/points"
    for method, path, body in (("PUT", points, {"points": POINTS}),
                               ("POST", "/ingest/movies", POINTS), ("POST", "/upsert", {
                                   "id": 1, "collectionName": "movies", "vector": [1, 2]})):
        answer = server.request(method, path, json=body)
        assert answer.status_code == 429 and "see /dead-letters" in answer.text, answer.text
        assert "Retry-After" in answer.headers
    assert server.post(points + "/delete", json={"points": [2]}).status_code == 200
    assert server.delete(f"/dead-letters/points/{numbers[0]}").status_code == 204
    assert server.put(points + "?wait=true", json={"points": POINTS}).status_code == 200


def test_the_key_is_asked_for(server_factory):
    server = server_factory("--api-key", "secret").start()
    for method, path in (("GET", ""), ("GET", "/points/1"), ("POST", "/points/1/replay"),
                         ("DELETE", "/points/1")):
        error_of(server.request(method, "/dead-letters" + path), 401, "no_key")


def test_points_and_events_by_the_command_line(poisoned):
    directory, numbers = poisoned.directory, poisoned.numbers
    lines = [json.loads(line) for line in tool(directory, "list", "--json").splitlines()]
    assert [line["number"] for line in lines] == sorted(numbers, reverse=True)
    assert len(tool(directory, "list", "--kind", "events", "--json").splitlines()) == 2

    record = json.loads(tool(directory, "show", str(numbers[0])))
    tool(directory, "edit", str(numbers[0]), text=json.dumps({**record, "vector": [8, 9]}))
    tool(directory, "drop", str(numbers[1]))
    assert "does not decode" in tool(directory, "replay", str(numbers[5]), status=1)
    tool(directory, "edit", str(numbers[5]), text=json.dumps(TAG))
    tool(directory, "drop", str(numbers[6]), "--kind", "events")

    server = poisoned.start()
    assert "GET /dead-letters" in tool(directory, "list", status=2)
    assert [letter["number"] for letter in letters(server)] == sorted(numbers[2:5], reverse=True)
    assert point(server, 1)["vector"] == [8.0, 9.0]
    assert views(server) == [TAG, TAG]


def test_a_replay_has_one_effect_whatever_dies_when(server_factory):
    """Each letter is replayed twice at the same time, and the server is killed under it: a letter is
    there, or its tag is, never both or neither."""
    count = 40
    server = server_factory().start()
    assert server.post("/user_tags", json=TAG).status_code == 204
    server.stop()
    journal = JournalFile(server.directory)
    tag = [r for r in journal.records if r.kind == 2 and r.payload[1] == 1][-1]
    numbers = [journal.append("events", tag.key_hash, b"\xff" + tag.payload[1:])
               for _ in range(count)]
    server.start()
    answered = []

    def replay(number):
        try:
            answer = server.post(f"/dead-letters/events/{number}/replay", json={"record": TAG})
        except requests.RequestException:
            return
        assert answer.status_code in (200, 404), answer.text
        answered.append(number)

    for enough in (1, count // 2, 2 * count):
        left = [letter["number"] for letter in letters(server, kind="events")]
        answered.clear()
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(replay, number) for number in left for _ in range(2)]
            assert wait_until(lambda: len(answered) >= min(enough, 2 * len(left)))
            server.kill()
            for future in futures:
                future.result()
        server.start()
        gone = set(numbers) - {letter["number"] for letter in letters(server, kind="events")}
        assert gone >= set(answered)
        assert wait_until(lambda: len(views(server)) == 1 + len(gone)), (len(views(server)), gone)
    assert len(gone) == count


def kill_three_workers(server, **task):
    made = server.post("/tasks", json={"type": "long_task", "args": {
        "total": 1000000, "step": 1, "pace_ms": 50}, **task}).json()
    killed = set()

    def failed():
        now = server.get(f"/tasks/{made['id']}").json()
        if now["status"] == "running" and now["attempts"] not in killed:
            killed.add(now["attempts"])
            os.kill(int(now["worker"].rsplit(":", 1)[1]), signal.SIGKILL)
        return now["status"] == "failed"

    assert wait_until(failed)
    assert len(killed) == 3
    return made["id"]


def test_tasks_that_took_three_workers(server_factory):
    server = server_factory("--max-workers", "2").start()
    ids = [kill_three_workers(server, priority=3) for _ in range(4)]
    found = letters(server, kind="tasks")
    assert [letter["key"] for letter in found] == ids[::-1]
    assert all("it took 3 workers with it" in letter["reason"] for letter in found)
    numbers = [letter["number"] for letter in found[::-1]]
    server.kill()
    server.start()
    assert letters(server) == found

    # Tried again, from where it had got to; edited, it is a new task; dropped, it stays failed.
    at = f"/dead-letters/tasks/{numbers[0]}"
    record = server.get(at).json()["record"]
    assert record["type"] == "long_task" and record["priority"] == 3
    assert record["args"] == {"total": 1000000, "step": 1, "pace_ms": 50}
    assert server.post(at + "/replay").status_code == 200
    again = server.get(f"/tasks/{ids[0]}").json()
    assert again["status"] in ("queued", "running") and again["error"] is None
    error_of(server.post(at + "/replay"), 404, "not_found")
    assert server.delete(f"/tasks/{ids[0]}").status_code == 200

    at = f"/dead-letters/tasks/{numbers[1]}"
    error_of(server.post(at + "/replay", json={"record": {"type": "xyzzy"}}), 422, "invalid_field")
    error_of(server.post(at + "/replay", json={"record": {**record, "idempotency_key": "k"}}), 422,
             "invalid_field")
    quick = {**record, "args": {"total": 10, "step": 5}}
    assert server.post(at + "/replay", json={"record": quick}).status_code == 200
    newest = server.get("/tasks", params={"limit": 1}).json()["tasks"][0]
    assert wait_until(
        lambda: server.get(f"/tasks/{newest['id']}").json()["status"] == "succeeded")
    assert server.get(f"/tasks/{ids[1]}").json()["status"] == "failed"

    assert server.delete(f"/dead-letters/tasks/{numbers[2]}").status_code == 204
    assert server.get(f"/tasks/{ids[2]}").json()["status"] == "failed"

    # To have a task tried again takes its letter away.
    assert server.post(f"/tasks/{ids[3]}/retry").status_code == 202
    assert letters(server) == []
    assert server.delete(f"/tasks/{ids[3]}").status_code == 200
    server.stop()
    assert "no dead letters" in tool(server.directory, "list")
