# SPDX-License-Identifier: Apache-2.0
"""Rows of the tables that no other suite reaches: each error by its code, each option in use, each
route called. tests/laws checks that no row is left out."""
import contextlib
import json
import os
import re
import signal
import shutil
import socket
import threading
import time

import pytest
import requests

from conftest import PATIENCE_S, millrace, wait_until

DOT1 = {"vectors": {"size": 1, "distance": "Dot"}}


def code(answer):
    return answer.json()["error"]["code"]


@pytest.mark.parametrize("method,path,body,status,expected", [
    ("POST", "/upsert", b"{", 400, "malformed_json"),
    ("POST", "/upsert", b'{"id":1,"collectionName":7}', 422, "invalid_field"),
    ("POST", "/upsert", b'{"collectionName":"rows"}', 422, "missing_field"),
    ("POST", "/upsert", b'{"id":1,"collectionName":"rows","vector":[1,2]}', 400, "wrong_dimension"),
    ("POST", "/upsert", b'{"id":1,"collectionName":"nowhere"}', 404, "unknown_collection"),
    ("PATCH", "/upsert", b"", 405, "wrong_method"),
])
def test_errors_have_stable_codes(server, method, path, body, status, expected):
    server.put("/collections/rows", json=DOT1)
    answer = server.request(method, path, data=body)
    assert (answer.status_code, code(answer)) == (status, expected)


def test_bad_request_and_unsupported_encoding(server):
    answer = server.post("/upsert", data=b"x", headers={"Content-Encoding": "br"})
    assert (answer.status_code, code(answer)) == (415, "unsupported_encoding")
    answer = server.get("/tasks?limit=many")
    assert answer.status_code in (400, 422) and code(answer) in ("bad_request", "invalid_field")


def test_headers_too_large(server_factory):
    server = server_factory("--max-header-size", "4K").start()
    answer = server.get("/tasks", headers={"X-Long": "x" * 3800})
    assert answer.status_code == 200  # and there is still room for the answer's own
    answer = server.get("/tasks", headers={"X-Long": "x" * 4500})
    assert (answer.status_code, code(answer)) == (431, "headers_too_large")
    assert server.get("/tasks", headers={"X-Long": "x" * 45000}).status_code == 431


def test_no_key_and_wrong_key(server_factory, tmp_path):
    """--api-key-file, read again at SIGHUP."""
    key = tmp_path / "key"
    key.write_text("first\n")
    server = server_factory("--api-key-file", str(key)).start()
    assert code(server.get("/tasks")) == "no_key"
    assert code(server.get("/tasks", headers={"api-key": "x"})) == "wrong_key"
    assert server.get("/tasks", headers={"api-key": "first"}).status_code == 200
    key.write_text("second\n")
    server.process.send_signal(signal.SIGHUP)
    assert wait_until(
        lambda: server.get("/tasks", headers={"api-key": "second"}).status_code == 200)
    assert server.get("/tasks", headers={"api-key": "first"}).status_code == 403


def test_every_serve_option_at_once(server_factory, tmp_path):
    options = {
        "--insecure": None, "--segment-size": "1M", "--keep-journal-size": "4M",
        "--keep-journal-time": "1m", "--pin-max": "64M", "--pin-max-time": "1h",
        "--threads": "3", "--query-threads": "2",
        "--min-workers": "1", "--max-workers": "3", "--memory-limit": "2G",
        "--max-header-size": "16K", "--max-connections": "100", "--commit-timeout": "30s",
        "--stop-timeout": "50s", "--log-level": "debug", "--lanes": "5", "--idle-timeout": "30s",
        "--body-timeout": "50s", "--checkpoint-interval": "2s", "--checkpoint-size": "1M",
        "--max-body-size": "8M", "--cors-origin": "*", "--sync": "always"}
    flags = [word for flag, value in options.items()
             for word in ([flag] if value is None else [flag, value])]
    server = server_factory(*flags).start()
    assert server.put("/collections/c", json=DOT1).status_code == 200
    for i in range(30):
        assert server.put("/collections/c/points?wait=true", json={
            "points": [{"id": i, "vector": [i]}]}).status_code == 200
    assert '"level":"debug"' in server.stderr() or "debug" in server.stderr()
    server.stop()
    server.start()
    assert server.post("/collections/c/points/count", json={}).json()["result"]["count"] == 30


def test_max_connections(server_factory):
    server = server_factory("--max-connections", "5").start()

    def connections():
        return server.metrics()["millrace_http_connections"]

    assert wait_until(lambda: connections() == 0)  # the one that asked whether it is ready is gone
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(5)]
    assert wait_until(lambda: connections() == 5)
    try:
        answer = requests.get(server.url + "/readyz", timeout=PATIENCE_S)
        assert answer.status_code == 503 and "Retry-After" in answer.headers
        assert code(answer) == "too_many_connections"
    finally:
        for s in held:
            s.close()


def test_stopping(server_factory):
    """A request that is sent while the server drains is refused or finds the door closed."""
    server = server_factory().start()
    server.put("/collections/c", json=DOT1)
    seen = set()
    running = threading.Event()

    def ask():
        session = requests.Session()
        while True:
            try:
                answer = session.put(server.url + "/collections/c/points", timeout=PATIENCE_S, json={
                    "points": [{"id": 1, "vector": [1]}]})
                seen.add(answer.status_code)
                running.set()
            except requests.RequestException:
                return

    thread = threading.Thread(target=ask)
    thread.start()
    assert running.wait(PATIENCE_S)
    server.stop()
    thread.join(2 * PATIENCE_S)
    assert not thread.is_alive() and seen <= {200, 503}, seen


def test_half_a_body_at_the_stop_is_answered(server_factory):
    server = server_factory("--stop-timeout", "1s").start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as s:
        s.sendall(b"POST /upsert HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
                  b"Expect: 100-continue\r\n\r\n")
        assert b" 100 " in s.recv(1000)  # the request is under way
        s.sendall(b"{")
        server.process.send_signal(signal.SIGTERM)
        out = b""
        while piece := s.recv(65536):
            out += piece
    assert b" 503 " in out.split(b"\r\n")[0] and b'"stopping"' in out
    assert server.process.wait(PATIENCE_S) == 0  # stop() would signal once more, which means: at once
    server.process = None


def break_checkpoints(server):
    """Where the manifest is written first there is a directory now."""
    manifest = server.directory / "points" / "MANIFEST.new"

    def in_its_place():
        try:
            manifest.mkdir()
            return True
        except FileExistsError:  # one is being written
            return False

    assert wait_until(in_its_place)
    (manifest / "x").touch()


def test_too_far_behind_in_time_is_429(server_factory):
    server = server_factory("--pin-max-time", "1s", "--checkpoint-interval", "1h").start()
    assert server.put("/collections/c", json=DOT1).status_code == 200
    record = {"id": 1, "collectionName": "c", "vector": [1]}

    def taken():
        return server.post("/upsert", json=record).status_code == 200

    for _ in range(10):  # it is persisted before that, whatever the interval; or soon
        assert wait_until(taken)
        time.sleep(0.3)
    break_checkpoints(server)
    assert wait_until(lambda: not taken())
    answer = server.post("/upsert", json=record)
    assert (answer.status_code, code(answer)) == (429, "too_far_behind")
    assert server.metrics()['millrace_consumer_pinned_seconds{consumer="points"}'] > 0.5
    shutil.rmtree(server.directory / "points" / "MANIFEST.new")
    assert wait_until(taken)


def test_too_far_behind_is_429(server_factory):
    """Invariant 6: a store that may not pin more journal than this, and cannot be persisted."""
    server = server_factory("--pin-max", "1M", "--checkpoint-interval", "1h", "--checkpoint-size",
                            "1G").start()
    break_checkpoints(server)
    assert server.put("/collections/c", json={
        "vectors": {"size": 1000, "distance": "Dot"}}).status_code == 200
    for i in range(1000):
        answer = server.post("/upsert", json={"id": i, "collectionName": "c", "vector": [1] * 1000})
        if answer.status_code != 200:
            break
    assert (answer.status_code, code(answer)) == (429, "too_far_behind")
    assert "Retry-After" in answer.headers
    # a delete, and what must still be written, has room (reserved first)
    assert server.delete("/collections/c").status_code == 200


def test_searches_and_queries_in_batches(server):
    server.put("/collections/batches", json=DOT1)
    server.put("/collections/batches/points?wait=true", json={
        "points": [{"id": i, "vector": [i]} for i in range(5)]})
    for path, search in [("/collections/batches/points/search/batch", {"vector": [1], "limit": 1}),
                         ("/collections/batches/points/query/batch", {"query": [1], "limit": 1})]:
        answer = server.post(path, json={"searches": [search, search]})
        assert answer.status_code == 200, answer.text
        results = answer.json()["result"]
        first = results[0]["points"] if isinstance(results[0], dict) else results[0]
        assert len(results) == 2 and first[0]["id"] == 4


def test_docs_need_nothing_from_outside(server):
    page = server.get("/docs").text
    for file in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert not file.startswith(("http:", "https:", "//")), file
    assert server.get("/docs/nothing.js").status_code == 404
    for file in re.findall(r'(?:src|href)="/?(docs/[^"]+)"', page):
        assert server.get("/" + file).status_code == 200, file


def test_load_options(server, tmp_path):
    done = millrace("load", "records", "--url", server.url, "--collection", "load_options",
                    "--count", "400", "--batch-size", "50", "--connections", "3", "--threads", "2",
                    "--rate", "4000", "--seed", "7", "--dimension", "8", "--wait", "--no-drain",
                    "--json")
    assert done.returncode == 0, done.stderr
    count = server.post("/collections/load_options/points/count", json={}).json()
    assert count["result"]["count"] == 400


def test_journal_tail_and_dead_letter_options(server_factory):
    server = server_factory().start()
    server.put("/collections/c", json=DOT1)
    for i in range(5):
        server.put("/collections/c/points", json={"points": [{"id": i, "vector": [1]}]})
    server.stop()
    directory = ["--data-dir", str(server.directory)]
    out = millrace("journal", "dump", "--from", "4", "--limit", "2", "--json", *directory)
    assert [json.loads(line)["lsn"] for line in out.stdout.splitlines()] == [4, 5]
    assert millrace("journal", "tail", "--json", *directory).returncode == 0
    refused = millrace("journal", "dead-letters", "replay", "1", "--force", *directory)
    assert refused.returncode != 0 and refused.stderr.strip()


def test_journal_tail_follows_in_small_bites(server_factory):
    """--limit is of each look; none is left out between them."""
    import subprocess
    from conftest import BINARY
    server = server_factory().start()
    server.put("/collections/c", json=DOT1)
    points = [{"id": i, "vector": [1]} for i in range(20)]
    server.put("/collections/c/points", json={"points": points})
    tail = subprocess.Popen([BINARY, "journal", "tail", "--follow", "--json", "--from", "1", "--limit",
                             "3", "--data-dir", str(server.directory)], stdout=subprocess.PIPE)
    try:
        shown = [json.loads(tail.stdout.readline())["lsn"] for _ in range(21)]
        assert shown == list(range(1, 22))
    finally:
        tail.terminate()
        tail.wait(PATIENCE_S)


def test_journal_tail_follows(server_factory):
    import subprocess
    from conftest import BINARY
    server = server_factory().start()
    server.put("/collections/c", json=DOT1)
    tail = subprocess.Popen([BINARY, "journal", "tail", "--follow", "--json", "--data-dir",
                             str(server.directory)], stdout=subprocess.PIPE)
    os.set_blocking(tail.stdout.fileno(), False)
    seen = bytearray()

    def has_shown(lsn):
        with contextlib.suppress(BlockingIOError):
            seen.extend(os.read(tail.stdout.fileno(), 65536))
        return lsn in [json.loads(line)["lsn"] for line in seen.split(b"\n")[:-1]]

    try:
        assert wait_until(lambda: has_shown(1))  # what there is; now it follows
        server.put("/collections/c/points", json={"points": [{"id": 77, "vector": [1]}]})
        assert wait_until(lambda: has_shown(2))
    finally:
        tail.terminate()
        tail.wait(PATIENCE_S)
