# SPDX-License-Identifier: Apache-2.0
"""The HTTP loop from outside: limits, malformed requests, slow clients, keys."""
import gzip
import json
import resource
import socket
import time
import zlib

import pytest
import zstandard

from conftest import PATIENCE_S, SANITIZED


def raw(server, data, timeout=PATIENCE_S, half_close=False):
    """Sends bytes, returns all that comes back until the server closes or timeout."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as s:
        s.sendall(data)
        out = b""
        try:
            if half_close:
                s.shutdown(socket.SHUT_WR)
            while True:
                piece = s.recv(65536)
                if not piece:
                    return out
                out += piece
                if b"Content-Length" in out and b"\r\n\r\n" in out and not half_close:
                    head, _, body = out.partition(b"\r\n\r\n")
                    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                    if len(body) >= length:
                        return out
        except OSError:  # silence, or a reset of what was too much
            return out


def test_unknown_path_and_wrong_method(server):
    answer = server.get("/no/such/path")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "unknown_path"
    answer = server.delete("/upsert")
    assert answer.status_code == 405 and "POST" in answer.headers["Allow"]
    answer = server.post("/collections/x/exists")
    assert answer.status_code == 405 and "GET" in answer.headers["Allow"]
    assert "Qdrant" in answer.json()["status"]["error"]


def test_every_answer_has_a_request_id(server):
    ids = {server.get(p).headers["X-Request-Id"] for p in ["/", "/nope", "/collections"]}
    assert len(ids) == 3


def test_head_is_answered_as_get_without_a_body(server):
    answer = server.request("HEAD", "/collections")
    assert answer.status_code == 200 and answer.content == b""


@pytest.mark.parametrize("encode", [gzip.compress, zstandard.compress])
def test_compressed_bodies(server, collection, encode):
    body = json.dumps({"points": [{"id": i, "vector": [1, 2, 3, 4]} for i in range(500)]}).encode()
    name = "gzip" if encode is gzip.compress else "zstd"
    answer = server.put(f"/collections/{collection}/points?wait=true", data=encode(body),
                        headers={"Content-Encoding": name})
    assert answer.status_code == 200, answer.text
    for broken in (encode(body)[:-20], encode(body)[:50] + b"\0" * 50, b"xx"):
        answer = server.put(f"/collections/{collection}/points", data=broken,
                            headers={"Content-Encoding": name})
        assert answer.status_code == 400, answer.text


def test_unknown_encoding(server, collection):
    answer = server.put(f"/collections/{collection}/points", data=b"x",
                        headers={"Content-Encoding": "br"})
    assert answer.status_code == 415


def test_body_limits(server_factory):
    server = server_factory("--max-body-size", "64K").start()
    config = {"vectors": {"size": 1, "distance": "Dot"}}
    assert server.put("/collections/c", json=config).status_code == 200
    large = json.dumps({"points": [{"id": i, "vector": [1]} for i in range(5000)]}).encode()
    assert len(large) > 65536
    assert server.put("/collections/c/points", data=large).status_code == 413
    chunks = (large[i:i + 1000] for i in range(0, len(large), 1000))
    assert server.put("/collections/c/points", data=chunks).status_code == 413
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 65536
    answer = server.put("/collections/c/points", data=bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 413
    head = (b"PUT /collections/c/points HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n"
            b"Expect: 100-continue\r\n\r\n")
    assert b" 413 " in raw(server, head).split(b"\r\n")[0]


def test_expect_100_continue(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as s:
        s.sendall(b"POST /data/id HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
                  b"Expect: 100-continue\r\n\r\n")
        assert b"100 Continue" in s.recv(1000)
        s.sendall(b"{}")
        assert s.recv(1000).split(b" ")[1] in (b"400", b"422")


def test_chunked_request(server, collection):
    body = json.dumps({"points": [{"id": 1, "vector": [1, 2, 3, 4]}]}).encode()
    answer = server.put(f"/collections/{collection}/points?wait=true", data=iter([body[:5], body[5:]]))
    assert answer.status_code == 200


@pytest.mark.parametrize("data", [
    b"\r\n\r\n", b"GET\r\n\r\n", b"NONSENSE / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 100 + b"\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: zz\r\n\r\n",
    b"POST /upsert HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    b"POST /upsert HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 20000 + b"\r\n",
    b"GET /%zz%00%ff HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_malformed_requests_never_hurt_others(server, data):
    answer = raw(server, data, timeout=2, half_close=True)  # silence is an answer, too
    if answer:
        assert answer[:9] in (b"HTTP/1.1 ", b"HTTP/1.0 ")
        assert answer[9:10] in b"245", answer[:100]
        assert not answer.startswith(b"HTTP/1.1 500"), answer[:200]
    assert server.get("/readyz").status_code == 200


def test_pipelined_requests_are_answered_in_order(server):
    data = b"".join(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % p
                    for p in (b"/collections", b"/nope", b"/readyz"))
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as s:
        s.sendall(data)
        out = b""
        while out.count(b"HTTP/1.1 ") < 3:
            out += s.recv(65536)
    statuses = [p[:3] for p in out.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404", b"200"]


def test_half_a_body_then_silence(server_factory):
    server = server_factory("--body-timeout", "1s", "--idle-timeout", "2s").start()
    begin = time.monotonic()
    answer = raw(server, b"POST /upsert HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"id\"")
    assert time.monotonic() - begin < 50  # by default it would be 60
    assert answer == b"" or b" 408 " in answer.split(b"\r\n")[0]
    # and a client that says nothing at all
    with socket.create_connection(("127.0.0.1", server.port), timeout=70) as s:  # the default: 75
        assert s.recv(100) == b""


def test_ten_thousand_idle_connections_do_not_stall_others(server_factory):
    """As many as the descriptors of this process and of the server allow, up to 10,000."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    n = min(2000 if SANITIZED else 10_000, hard - 1000)
    server = server_factory("--idle-timeout", "300s").start()
    idle = []
    try:
        for _ in range(n):
            idle.append(socket.create_connection(("127.0.0.1", server.port),
                                                 timeout=PATIENCE_S))
        begin = time.monotonic()
        for _ in range(50):
            assert server.get("/collections").status_code == 200
        assert time.monotonic() - begin < PATIENCE_S
        assert server.metrics()["millrace_http_connections"] >= n
    finally:
        for s in idle:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_api_key(server_factory):
    server = server_factory("--api-key", "secret").start()
    assert server.get("/healthz").status_code == 200
    answer = server.get("/collections")
    assert answer.status_code == 401
    assert server.get("/collections", headers={"api-key": "wrong"}).status_code in (401, 403)
    assert server.get("/collections", headers={"api-key": "secret"}).status_code == 200
    assert server.get("/collections", headers={"Authorization": "Bearer secret"}).status_code == 200


def test_cors_is_off_unless_asked_for(server, server_factory):
    assert "Access-Control-Allow-Origin" not in server.get(
        "/", headers={"Origin": "http://a.example"}).headers
    other = server_factory("--cors-origin", "http://a.example").start()
    answer = other.get("/", headers={"Origin": "http://a.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "http://a.example"


def test_deflate_bombs_and_garbage_do_not_leak(server):
    for _ in range(50):
        server.post("/upsert", data=zlib.compress(b"x" * 1000)[:-3],
                    headers={"Content-Encoding": "deflate"})
    assert server.get("/readyz").status_code == 200
