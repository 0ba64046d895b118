# SPDX-License-Identifier: Apache-2.0
"""The qdapi and Alioth routes, as the existing services' clients call them."""
import random
import time

import pytest


def wait_task(server, task_id, timeout=120):
    deadline = time.monotonic() + timeout
    while True:
        answer = server.get(f"/tasks/{task_id}")
        assert answer.status_code == 200, answer.text
        task = answer.json()
        if task["status"] not in ("queued", "running") or time.monotonic() > deadline:
            return task
        time.sleep(0.01)


def test_a_session(server):
    made = server.post("/all", json={"collectionName": "qdapi_session"})
    assert made.status_code == 200 and made.json()["status"] == "ok", made.text
    assert server.post("/all", json={"collectionName": "qdapi_session"}).status_code == 409
    assert "qdapi_session" in server.get("/all").text
    config = server.get("/collections/qdapi_session").json()["result"]["config"]
    assert config["params"]["vectors"] == pytest.approx(
        {"size": 100, "distance": "Cosine"}) or config["params"]["vectors"]["size"] == 100
    vector = [random.random() for _ in range(100)]
    written = server.post("/upsert", json={
        "id": 5, "collectionName": "qdapi_session", "city": "Kraków",
        "location": {"lat": 50.06, "lon": 19.94}, "tags": ["a"], "vector": vector})
    assert written.status_code == 200 and written.json()["status"] == "ok", written.text
    # visible at once: writes of these routes wait
    found = server.post("/data/id", json={"id": 5, "collectionName": "qdapi_session"})
    assert found.status_code == 200
    payload = found.json()["result"]["payload"]
    assert payload["city"] == "Kraków" and payload["tags"] == ["a"]
    assert payload["location"] == {"lat": 50.06, "lon": 19.94}
    assert "id" not in payload and "vector" not in payload and "collectionName" not in payload
    assert server.post("/data/id", json={"id": 6, "collectionName": "qdapi_session"}
                       ).status_code == 404
    # without a vector
    assert server.post("/upsert", json={"id": 6, "collectionName": "qdapi_session", "city": "x",
                                        "location": "y"}).status_code == 200
    gone = server.delete("/collection/delete", json={"collectionName": "qdapi_session"})
    assert gone.status_code == 200 and gone.json()["status"] == "ok"
    assert server.post("/data/id", json={"id": 5, "collectionName": "qdapi_session"}
                       ).status_code == 404


@pytest.mark.parametrize("path,body,field", [
    ("/upsert", {"collectionName": "c", "city": "x"}, "id"),
    ("/upsert", {"id": 1, "city": "x"}, "collectionName"),
    ("/upsert", {"id": "x", "collectionName": "qdapi_errors"}, "id"),
    ("/upsert", {"id": 1, "collectionName": "qdapi_errors", "vector": [1, 2]}, "vector"),
    ("/upsert", {"id": 1, "collectionName": 7}, "collectionName"),
    ("/data/id", {"collectionName": "qdapi_errors"}, "id"),
    ("/all", {}, "collectionName"),
    ("/all", {"collectionName": ""}, "collectionName"),
    ("/all", {"collectionName": "new", "vectorSize": 0}, "vectorSize"),
    ("/all", {"collectionName": "new", "distance": "far"}, "distance"),
])
def test_errors_name_the_field(server, path, body, field):
    server.post("/all", json={"collectionName": "qdapi_errors"})
    answer = server.post(path, json=body)
    assert answer.status_code in (400, 422), answer.text
    error = answer.json()["error"]
    assert error["field"] == field and error["code"] and error["message"]


def test_unknown_collection(server):
    for path, body in [("/upsert", {"id": 1, "collectionName": "nowhere", "city": "x"}),
                       ("/data/id", {"id": 1, "collectionName": "nowhere"})]:
        assert server.post(path, json=body).status_code == 404
    assert server.delete("/collection/delete", json={"collectionName": "nowhere"}
                         ).status_code == 404


def test_alioth_ingest(server):
    about = server.get("/alioth/").json()
    assert {"name", "description", "version"} <= set(about)
    server.post("/all", json={"collectionName": "alioth", "vectorSize": 3})
    answer = server.post("/alioth/ingest", json={"collection_name": "alioth", "batch": {
        "ids": [1, 2, 3], "vectors": [[1, 2, 3]] * 3, "payloads": [{"t": 1}, {"t": 2}, {"t": 3}]}})
    assert answer.ok, answer.text
    body = answer.json()
    assert body["status_code"] == answer.status_code or body["status_code"] in (200, 202)
    task = wait_task(server, body["task_id"])
    assert task["status"] == "succeeded" and task["progress"] == 1 and task["total"] == 3
    count = server.post("/collections/alioth/points/count", json={}).json()["result"]["count"]
    assert count == 3


@pytest.mark.parametrize("body", [
    {}, {"collection_name": "alioth_bad"}, {"batch": {}}, {"collection_name": 1, "batch": {}},
    {"collection_name": "alioth_bad", "batch": {"ids": [1], "vectors": [[1, 2]], "payloads": [{}]}},
    {"collection_name": "alioth_bad", "batch": {"ids": [1], "vectors": [], "payloads": [{}]}},
    {"collection_name": "alioth_bad", "batch": {"ids": 1, "vectors": [], "payloads": []}}])
def test_alioth_refuses(server, body):
    server.post("/all", json={"collectionName": "alioth_bad", "vectorSize": 3})
    assert server.post("/alioth/ingest", json=body).status_code in (400, 422)
    count = server.post("/collections/alioth_bad/points/count", json={}).json()["result"]["count"]
    assert count == 0


def test_unknown_task(server):
    for name in ["nothing", "00000000-0000-0000-0000-000000000000"]:
        answer = server.get(f"/tasks/{name}")
        assert answer.status_code == 404 and answer.json()["error"]["code"]
