# SPDX-License-Identifier: Apache-2.0
"""Bulk ingest: NDJSON, a JSON array, .npy; whole, compressed, in pieces, broken."""
import gzip
import io
import json
import socket

import numpy as np
import pytest
import zstandard

from conftest import wait_until
from test_qdapi_alioth import wait_task


@pytest.fixture
def bulk(server, request):
    name = "bulk_" + "".join(c if c.isalnum() else "_" for c in request.node.name)[:80]
    assert server.put(f"/collections/{name}", json={
        "vectors": {"size": 3, "distance": "Dot"}}).status_code == 200
    return name


def count(server, name):
    return server.post(f"/collections/{name}/points/count", json={}).json()["result"]["count"]


def lines(n):
    return b"".join(json.dumps({"id": i, "vector": [i, 1, 2], "payload": {"i": i}}).encode()
                    + b"\n" for i in range(n))


def array(n):
    return b"[" + b",".join(lines(n).splitlines()) + b"]"


def npy(vectors):
    out = io.BytesIO()
    np.save(out, vectors)
    return out.getvalue()


def ingest(server, name, body, **headers):
    return server.post(f"/ingest/{name}", data=body, headers={
        k.replace("_", "-"): v for k, v in headers.items()})


@pytest.mark.parametrize("encode", [None, "gzip", "zstd"])
@pytest.mark.parametrize("form,content_type", [
    (lines, "application/x-ndjson"), (array, "application/json"), (lines, None), (array, None)])
def test_forms_and_encodings(server, bulk, form, content_type, encode):
    body, headers = form(1000), {}
    if content_type:
        headers["Content_Type"] = content_type
    if encode:
        headers["Content_Encoding"] = encode
        body = gzip.compress(body) if encode == "gzip" else zstandard.compress(body)
    answer = ingest(server, bulk, body, **headers)
    assert answer.status_code == 202, answer.text
    task = wait_task(server, answer.json()["task_id"])
    assert task["status"] == "succeeded" and task["total"] == 1000 and task["progress"] == 1
    assert count(server, bulk) == 1000
    point = server.get(f"/collections/{bulk}/points/999").json()["result"]
    assert point["payload"] == {"i": 999} and point["vector"] == [999, 1, 2]


def test_npy(server, bulk):
    vectors = np.arange(30, dtype=np.float32).reshape(10, 3)
    answer = ingest(server, bulk, npy(vectors), Content_Type="application/x-npy")
    assert answer.status_code == 202, answer.text
    assert wait_task(server, answer.json()["task_id"])["status"] == "succeeded"
    assert count(server, bulk) == 10
    assert server.get(f"/collections/{bulk}/points/9").json()["result"]["vector"] == [27, 28, 29]


@pytest.mark.parametrize("vectors", [
    np.zeros((4, 2), np.float32), np.zeros((4, 3), np.float64), np.zeros(3, np.float32),
    np.asfortranarray(np.zeros((4, 3), np.float32))])
def test_npy_of_another_shape_is_refused(server, bulk, vectors):
    answer = ingest(server, bulk, npy(vectors), Content_Type="application/x-npy")
    assert answer.status_code in (400, 422), answer.text
    assert count(server, bulk) == 0


def test_without_a_task_the_answer_says_it_all(server, bulk):
    body = lines(3000) + b'{"id":1,"vector":[1]}\n'
    answer = server.post(f"/ingest/{bulk}?task=false", data=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["error"] is None
    result = answer.json()["result"]
    assert (result["accepted"], result["rejected"]) == (3000, 1)
    assert [e["line"] for e in result["errors"]] == [3001]
    assert bulk not in server.get("/tasks?limit=1000").text
    assert wait_until(lambda: count(server, bulk) == 3000)
    answer = server.post(f"/ingest/{bulk}?task=false", data=b"{}\nx\n").json()
    assert answer["result"]["rejected"] == 2 and "none of the 2" in answer["error"]
    assert server.post(f"/ingest/{bulk}?task=false", data=b"\n").status_code == 400


def test_rows_of_an_array_count_from_first_id(server, bulk):
    body = npy(np.arange(9, dtype=np.float32).reshape(3, 3))
    answer = server.post(f"/ingest/{bulk}?first_id=70&task=false", data=body)
    assert answer.status_code == 200, answer.text
    assert wait_until(lambda: count(server, bulk) == 3)
    assert server.get(f"/collections/{bulk}/points/72").json()["result"]["vector"] == [6, 7, 8]
    for bad in ("x", "-1", "", "1e3", str(2**63)):
        assert server.post(f"/ingest/{bulk}?first_id={bad}", data=body).status_code == 422, bad


def test_bad_lines_are_named_and_the_good_ones_taken(server, bulk):
    body = (b'{"id":1,"vector":[1,2,3]}\n' b'{"id":2,"vector":[1,2]}\n' b"not json\n" b"\n"
            b'{"id":-5,"vector":[1,2,3]}\n' b'{"id":3,"vector":[1,2,3],"payload":{"a":1}}\n')
    answer = ingest(server, bulk, body, Content_Type="application/x-ndjson")
    assert answer.status_code == 202
    task = wait_task(server, answer.json()["task_id"])
    assert count(server, bulk) == 2
    text = json.dumps(task)
    errors = task["result"]["errors"] if task.get("result") else task["error"]
    assert [e["line"] for e in errors] == [2, 3, 5], text


def test_what_is_said_to_be_lines_is(server, bulk):
    """However the first one begins: as an array does, or a .npy."""
    for first in (b"[1,2]", b"\x93NUMPY"):
        answer = server.post(f"/ingest/{bulk}?task=false", data=first + b"\n" + lines(1),
                             headers={"Content-Type": "application/x-ndjson"})
        result = answer.json()["result"]
        assert (result["accepted"], result["rejected"]) == (1, 1), (first, answer.text)


def test_an_upload_that_breaks_keeps_what_was_durable(server, bulk):
    def mine():
        tasks = server.get("/tasks?limit=1000").json()["tasks"]
        return next((t for t in tasks if bulk in json.dumps(t)), None)

    with socket.create_connection(("127.0.0.1", server.port)) as s:
        s.sendall(f"POST /ingest/{bulk} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson"
                  "\r\nContent-Length: 10000000\r\n\r\n".encode())
        s.sendall(lines(5000))
        assert wait_until(lambda: mine() is not None)
    assert wait_until(lambda: mine()["status"] == "failed"), mine()
    kept = mine()["total"]
    assert 0 < kept <= 5000
    assert wait_until(lambda: count(server, bulk) == kept), kept


def test_chunked_upload(server, bulk):
    body = lines(3000)
    pieces = (body[i:i + 777] for i in range(0, len(body), 777))
    answer = server.post(f"/ingest/{bulk}", data=pieces,
                         headers={"Content-Type": "application/x-ndjson"})
    assert answer.status_code == 202, answer.text
    wait_task(server, answer.json()["task_id"])
    assert count(server, bulk) == 3000


@pytest.mark.parametrize("body,headers", [
    (b"garbage", {"Content_Encoding": "gzip"}), (b"garbage", {"Content_Encoding": "zstd"}),
    (b"{}", {"Content_Encoding": "br"}), (b"", {}), (b"[{}", {"Content_Type": "application/json"})])
def test_what_cannot_be_read_is_refused_or_fails(server, bulk, body, headers):
    answer = ingest(server, bulk, body, **headers)
    assert answer.status_code in (202, 400, 415, 422), answer.text
    if answer.status_code == 202:
        task = wait_task(server, answer.json()["task_id"])
        assert task["status"] in ("failed", "succeeded")
    assert count(server, bulk) == 0


def test_unknown_collection(server):
    assert ingest(server, "nowhere_at_all", lines(1)).status_code == 404
