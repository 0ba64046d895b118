# SPDX-License-Identifier: Apache-2.0
"""What Qdrant's routes refuse, and how: 4xx in Qdrant's own form, and never a partial effect."""
import json

import pytest

pytestmark = pytest.mark.one_thread

POINT = {"id": 1, "vector": [1, 0, 0, 0]}


def refused(answer, status, *words):
    assert answer.status_code in (status if isinstance(status, tuple) else (status,)), answer.text
    body = answer.json()
    assert isinstance(body["status"]["error"], str) and "time" in body, body
    for word in words:
        assert word.lower() in body["status"]["error"].lower(), body


def count(server, collection):
    return server.post(f"/collections/{collection}/points/count", json={}).json()["result"]["count"]


@pytest.mark.parametrize("method,path,body", [
    ("GET", "", None), ("PUT", "/points", {"points": [POINT]}), ("POST", "/points", {"ids": [1]}),
    ("POST", "/points/scroll", {}), ("POST", "/points/count", {}),
    ("POST", "/points/search", {"vector": [1], "limit": 1}),
    ("POST", "/points/query", {"query": [1]}), ("GET", "/points/1", None),
    ("POST", "/points/delete", {"points": [1]})])
def test_unknown_collection_is_404(server, method, path, body):
    refused(server.request(method, "/collections/never_made" + path, json=body), 404, "never_made")


@pytest.mark.parametrize("method,path,status", [
    ("PUT", "/index", 404), ("PUT", "/points/payload", 405), ("POST", "/points/facet", 405),
    ("POST", "/snapshots", 404), ("GET", "/a/b/c/d", 404)])
def test_routes_that_only_qdrant_has(server, collection, method, path, status):
    answer = server.request(method, f"/collections/{collection}{path}", json={})
    refused(answer, status, "does not support this route of Qdrant's yet")
    assert (status == 405) == ("Allow" in answer.headers)


@pytest.mark.parametrize("body", [{"points": []}, {"batch": {"ids": [], "vectors": []}}])
def test_writes_of_nothing(server, collection, body):
    """As in Qdrant, which finds no shard to write to."""
    refused(server.put(f"/collections/{collection}/points", json=body), 400, "empty update")
    if "points" in body:
        refused(server.post(f"/collections/{collection}/points/delete", json=body), 400,
                "empty update")


@pytest.mark.parametrize("vectors", [
    {"size": 0, "distance": "Cosine"}, {"size": 4}, {"size": "4", "distance": "Cosine"},
    {"size": 4, "distance": "cosmic"}, {"size": -4, "distance": "Dot"},
    {"size": 70000, "distance": "Dot"}, {"size": 1.5, "distance": "Dot"}, [], 7,
    {"a": {"size": 4}}])
def test_bad_collection_configurations(server, vectors):
    refused(server.put("/collections/bad_configuration", json={"vectors": vectors}), (400, 422))
    assert server.get("/collections/bad_configuration").status_code == 404


@pytest.mark.parametrize("name", ["%ff", "a%c3", "%ed%a0%80", "a%00b", "a%2Fb"])
def test_a_name_that_no_answer_could_hold(server, name):
    vectors = {"size": 4, "distance": "Dot"}
    refused(server.put(f"/collections/{name}", json={"vectors": vectors}), (400, 422))


BAD_POINTS = [
    ({"points": [{"id": 1, "vector": [1, 0, 0]}]}, "dimension"),
    ({"points": [{"id": 1, "vector": [1, 0, 0, 0, 0]}]}, "dimension"),
    ({"points": [{"id": 1, "vector": {"nope": [1, 0, 0, 0]}}]}, "nope"),
    ({"points": [{"id": -1, "vector": [1, 0, 0, 0]}]}, "id"),
    ({"points": [{"id": 1.5, "vector": [1, 0, 0, 0]}]}, "id"),
    ({"points": [{"id": "not-a-uuid", "vector": [1, 0, 0, 0]}]}, "id"),
    ({"points": [{"id": None, "vector": [1, 0, 0, 0]}]}, "id"),
    ({"points": [{"vector": [1, 0, 0, 0]}]}, "id"),
    ({"points": [{"id": 1}]}, "vector"),
    ({"points": [{"id": 1, "vector": "1,0,0,0"}]}, "vector"),
    ({"points": [{"id": 1, "vector": [1, 0, "x", 0]}]}, "vector"),
    ({"points": [{"id": 1, "vector": [1, 0, None, 0]}]}, "vector"),
    ({"points": [{"id": 1, "vector": [1, 0, 0, 0], "payload": []}]}, "payload"),
    ({"points": [{"id": 1, "vector": [1, 0, 0, 0], "payload": "x"}]}, "payload"),
    ({"points": POINT}, ""),
    ({"points": [7]}, ""),
    ({"dots": []}, ""),
    ([], ""),
    ({"batch": {"ids": [1, 2], "vectors": [[1, 0, 0, 0]]}}, ""),
    ({"batch": {"ids": [1], "vectors": [[1, 0, 0, 0]], "payloads": [{}, {}]}}, ""),
    ({"batch": {"vectors": [[1, 0, 0, 0]]}}, "ids"),
]


@pytest.mark.parametrize("body,word", BAD_POINTS, ids=range(len(BAD_POINTS)))
def test_bad_points_have_no_partial_effect(server, collection, body, word):
    if isinstance(body, dict) and isinstance(body.get("points"), list):
        body = {"points": [{"id": 100, "vector": [1, 1, 1, 1]}] + body["points"]}
    refused(server.put(f"/collections/{collection}/points?wait=true", json=body), (400, 422), word)
    assert count(server, collection) == 0


BAD_JSON = [
    b"", b"{", b"{}}", b'{"points":[}', b'{"points":[{"id":1,"vector":[1,0,0,NaN]}]}',
    b'{"points":[{"id":1,"vector":[1,0,0,1e999]}]}', b'{"points":[{"id":1,"vector":[1,0,0,0]},]}',
    b'{"points":[{"id":1,"vector":[1,0,0,0]} {"id":2,"vector":[1,0,0,0]}]}',
    b'{"points":[{"id":1,"vector":[1,0,0,0],"payload":{"a":"\xff\xfe"}}]}',
    b'{"points":[{"id":1,"vector":[01,0,0,0]}]}', b"\xef\xbb\xbf", b"nonsense",
    b'{"points":' + b"[" * 100000,
    b'{"points":[' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"]}",
    b'{"points":[{"id":1,"vector":[1,0,0,0],"payload":{"a":' + b"[" * 2000 + b"]" * 2000 + b"}}]}",
    b'{"points":[{"id":1,"vector":[1,0,0,1e39]}]}',
    b'{"points":[{"id":18446744073709551616,"vector":[1,0,0,0]}]}',
    b'{"points":[{"id":1,"vector":[1,0,0,0]}]', b'{"points":[{"id":1,"vector":[1,0,0,0]}]}x']


@pytest.mark.parametrize("body", BAD_JSON, ids=range(len(BAD_JSON)))
def test_malformed_json(server, collection, body):
    refused(server.put(f"/collections/{collection}/points?wait=true", data=body,
                       headers={"Content-Type": "application/json"}), (400, 422))
    assert count(server, collection) == 0


def test_duplicate_keys_are_harmless(server, collection):
    body = (b'{"points":[{"id":1,"id":2,"vector":[1,0,0,0],"vector":[0,1,0,0],'
            b'"payload":{"a":1,"a":2}}]}')
    answer = server.put(f"/collections/{collection}/points?wait=true", data=body)
    if answer.status_code != 200:
        refused(answer, (400, 422))
        return
    points = server.post(f"/collections/{collection}/points/scroll",
                         json={"with_vector": True}).json()["result"]["points"]
    assert [(p["id"], p["vector"], p["payload"]) for p in points] == [(2, [0, 1, 0, 0], {"a": 2})]


@pytest.mark.parametrize("path,body", [
    ("/points/search", {"vector": [1, 0, 0], "limit": 1}),
    ("/points/query", {"query": {"nearest": [1, 0, 0, 0], "mmr": {"diversity": 0.5}}}),
    ("/points/search", {"vector": [1, 0, 0, 0], "limit": 0}),
    ("/points/search", {"vector": [1, 0, 0, 0], "limit": -1}),
    ("/points/search", {"vector": [1, 0, 0, 0]}),
    ("/points/search", {"limit": 1}),
    ("/points/query", {"query": [1, 0, 0]}),
    ("/points/query", {"query": [1, 0, 0, 0], "using": "nope"}),
    ("/points/query", {"query": {"unknown": 1}}),
    ("/points/query", {"query": [1, 0, 0, 0], "limit": "ten"}),
    ("/points/scroll", {"limit": 0}), ("/points/scroll", {"limit": "x"}),
    ("/points/scroll", {"offset": -4}), ("/points/scroll", {"offset": "zz"}),
    ("/points", {"ids": "1"}), ("/points", {"ids": [1.5]}), ("/points", {}),
    ("/points", {"ids": [1], "with_payload": 7}),
    ("/points/delete", {}), ("/points/delete", {"points": 1}), ("/points/delete", {"points": ["x"]}),
])
def test_bad_queries(server, collection, path, body):
    refused(server.post(f"/collections/{collection}{path}", json=body), (400, 422))


def test_a_missing_point_is_404(server, collection):
    refused(server.get(f"/collections/{collection}/points/12345"), 404)
    refused(server.get(f"/collections/{collection}/points/abc"), (400, 404, 422))


@pytest.mark.parametrize("name", ["with%20space", "%C5%BC%C3%B3%C5%82w", "a.b-c_d~e"])
def test_names_that_a_collection_may_have(server, name):
    config = {"vectors": {"size": 1, "distance": "Dot"}}
    answer = server.put(f"/collections/{name}", json=config)
    assert answer.status_code == 200, answer.text
    assert server.get(f"/collections/{name}").status_code == 200
    assert server.delete(f"/collections/{name}").json()["result"] is True


@pytest.mark.parametrize("name", ["x" * 256, "a%2Fb", "%00", "..%2F..%2Fetc"])
def test_names_that_it_may_not_have(server, name):
    refused(server.put(f"/collections/{name}", json={"vectors": {"size": 1, "distance": "Dot"}}),
            (400, 404, 422))


def test_deleting_what_is_not_there(server):
    answer = server.delete("/collections/never_there")
    assert answer.status_code == 200 and answer.json()["result"] is False
    assert server.get("/collections/never_there/exists").json()["result"] == {"exists": False}


def test_update_status_says_what_was_waited_for(server, collection):
    body = json.dumps({"points": [POINT]})
    path = f"/collections/{collection}/points"
    assert server.put(path, data=body).json()["result"]["status"] == "acknowledged"
    done = server.put(path + "?wait=true", data=body).json()
    assert done["result"]["status"] == "completed" and done["status"] == "ok"
    assert done["result"]["operation_id"] > 0 and isinstance(done["time"], float)


def test_invariant_9_wait_answers_once_it_is_visible(server, collection):
    path = f"/collections/{collection}/points"
    for n in range(50):
        point = {**POINT, "payload": {"n": n}}
        answer = server.put(f"{path}?wait=true&timeout=60", json={"points": [point]}).json()
        assert answer["result"]["status"] == "completed"
        assert server.get(f"{path}/1").json()["result"]["payload"] == {"n": n}
