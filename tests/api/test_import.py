# SPDX-License-Identifier: Apache-2.0
"""Tasks of the type import: files and URLs into collections and the events; what they may not read; what
becomes of them when the source, the worker or the server fails. And what is so for tasks of every type."""
import contextlib
import gzip
import http.server
import io
import json
import os
import pathlib
import signal
import ssl
import subprocess
import threading
import uuid

import numpy as np
import pytest
import zstandard

from conftest import PATIENCE_S, SANITIZED, TINY, Server, wait_until
from test_events import RANGE, a_tag
from test_tasks import ENDS, HANG, slow

pytestmark = pytest.mark.long

KEY = {"api-key": "import-key"}
SEVERAL_CHUNKS = 100 if TINY else 12000  # tags, or points: of which a chunk holds a part
MEMORY_MAX_KB = 200 << 10


# ---- Sources ----
def points(n, first=0):
    return [{"id": i, "vector": [i, 1, 2], "payload": {"i": i, "pad": "x" * 200}}
            for i in range(first, first + n)]


def tags(n, origin):
    return [a_tag(cookie=f"{origin}-{i % 50}", origin=origin) for i in range(n)]


def ndjson(records):
    return b"".join(json.dumps(r).encode() + b"\n" for r in records)


def npy(vectors):
    out = io.BytesIO()
    np.save(out, vectors)
    return out.getvalue()


def twice_in_a_file(compress):
    """Two members, as concatenated files have them."""
    return lambda body: compress(body[:1000]) + compress(body[1000:])


class Files(http.server.BaseHTTPRequestHandler):
    """/name is what FILES says: a body, or a function that answers."""
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        entry = self.server.files.get(self.path)
        self.server.asked.append(self.path)
        if entry is None:
            self.send_error(404)
        elif callable(entry):
            self.close_connection = True
            try:
                entry(self)
            except (BrokenPipeError, ConnectionResetError):
                pass
        else:
            self.head(200, len(entry))
            self.wfile.write(entry)

    def head(self, status, length=None, **headers):
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, *arguments):
        pass


class FileServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, context=None):
        super().__init__(("127.0.0.1", 0), Files)
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.files = {}
        self.asked = []
        self.authority = f"127.0.0.1:{self.server_address[1]}"
        self.url = f"http{'s' if context else ''}://{self.authority}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass  # a client that goes away


@pytest.fixture(scope="module")
def files():
    server = FileServer()
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def secure_files(tmp_path_factory):
    """With a certificate that nobody has signed."""
    directory = tmp_path_factory.mktemp("tls")
    pem = directory / "both.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout",
                    directory / "key.pem", "-out", directory / "cert.pem", "-days", "2", "-subj",
                    "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
                   check=True, capture_output=True)
    pem.write_bytes((directory / "key.pem").read_bytes() + (directory / "cert.pem").read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = FileServer(context)
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def inside(tmp_path_factory):
    """The directory of imports."""
    return tmp_path_factory.mktemp("imports")


class KeyServer(Server):
    def request(self, method, path, **options):
        return super().request(method, path, headers={**KEY, **options.pop("headers", {})},
                               **options)


@pytest.fixture(scope="module")
def server(tmp_path_factory, files, secure_files, inside):
    commands = tmp_path_factory.mktemp("commands") / "commands.json"
    commands.write_text(json.dumps({"commands": {
        "end": {"argv": ["/bin/true"]}, "fail": {"argv": ["/bin/false"]},
        "hang": {"argv": ["/bin/sleep", str(HANG)]}}}))
    server = KeyServer(tmp_path_factory.mktemp("server") / "data", "--import-dir", str(inside),
                       "--import-hosts", f"{files.authority}, {secure_files.authority}",
                       "--import-max-size", "100M", "--api-key", KEY["api-key"],
                       "--task-commands", str(commands),
                       "--min-workers", "1", "--max-workers", "2").start()
    yield server
    server.stop()


@pytest.fixture
def into(server):
    """An empty collection."""
    return new_collection(server)


def new_collection(server):
    name = "c" + uuid.uuid4().hex
    assert server.put(f"/collections/{name}", json={
        "vectors": {"size": 3, "distance": "Dot"}}).status_code == 200
    return name


@pytest.fixture
def origin():
    return "o" + uuid.uuid4().hex


# ---- Tasks ----
def add(server, task=None, **args):
    answer = server.post("/tasks", json={"type": "import", "args": args, **(task or {})})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def get(server, task_id):
    return server.get(f"/tasks/{task_id}").json()


def wait_end(server, task_id):
    assert wait_until(lambda: get(server, task_id)["status"] in ENDS), get(server, task_id)
    return get(server, task_id)


def succeed(server, **args):
    task = wait_end(server, add(server, **args))
    assert task["status"] == "succeeded", task
    return task


def fail(server, **args):
    task = wait_end(server, add(server, **args))
    assert task["status"] == "failed" and task["attempts"] == 1, task
    return task["error"]


def wait_taken(server, task_id):
    """Until a part of it is, and known to be."""
    assert wait_until(lambda: get(server, task_id)["current"] or
                      get(server, task_id)["status"] in ENDS)
    task = get(server, task_id)
    assert task["status"] == "running", task
    return task


def worker_of(task):
    return pathlib.Path("/proc") / task["worker"].rsplit(":", 1)[1]


def peak_kb(task):
    status = (worker_of(task) / "status").read_text()
    return int(next(line for line in status.splitlines() if "VmHWM" in line).split()[1])


def settle(server, kind):
    assert wait_until(
        lambda: server.metrics()[f'millrace_consumer_lag_records{{consumer="{kind}"}}'] == 0)


def count_points(server, name):
    settle(server, "points")
    return server.post(f"/collections/{name}/points/count", json={}).json()["result"]["count"]


def count_tags(server, origin):
    settle(server, "events")
    answer = server.post("/aggregates", params={"time_range": RANGE, "action": "VIEW",
                                                "aggregates": "COUNT", "origin": origin})
    return sum(int(row[-1]) for row in answer.json()["rows"])


def write(inside, name, body):
    (inside / name).write_bytes(body)
    return name


# ---- What is taken ----
@pytest.mark.parametrize("suffix, compress", [
    ("", lambda body: body), (".gz", gzip.compress), (".zst", zstandard.compress),
    (".two.gz", twice_in_a_file(gzip.compress)), ("", zstandard.compress)])
@pytest.mark.parametrize("form", ["ndjson", "array"])
def test_points_from_a_file(server, inside, into, form, suffix, compress):
    n = SEVERAL_CHUNKS
    records = points(n)
    body = ndjson(records) if form == "ndjson" else json.dumps(records, indent=1).encode()
    name = write(inside, "points" + suffix, compress(body))
    task = succeed(server, path=name, collection=into)
    assert task["result"] == {"accepted": n, "rejected": 0, "errors": []}
    assert task["current"] == task["total"] == (inside / name).stat().st_size
    assert count_points(server, into) == n
    point = server.get(f"/collections/{into}/points/{n - 1}").json()["result"]
    assert point["payload"]["i"] == n - 1 and point["vector"] == [n - 1, 1, 2]


def test_an_array_from_a_url(server, files, into):
    n = 5 * SEVERAL_CHUNKS
    files.files["/array"] = npy(np.arange(3 * n, dtype=np.float32).reshape(n, 3))
    task = succeed(server, url=files.url + "/array", collection=into)
    assert task["result"]["accepted"] == n and task["total"] == len(files.files["/array"])
    assert count_points(server, into) == n
    for i in (0, n // 2, n - 1):
        point = server.get(f"/collections/{into}/points/{i}").json()["result"]
        assert point["vector"] == [3 * i, 3 * i + 1, 3 * i + 2]


@pytest.mark.parametrize("headers, body", [
    ({}, gzip.compress), ({"Content_Encoding": "gzip"}, gzip.compress),
    ({"Content_Encoding": "zstd"}, zstandard.compress),
    ({"Content_Type": "application/json"}, lambda body: body)])
def test_events_from_a_url(server, files, origin, headers, body):
    n = SEVERAL_CHUNKS
    source = body(ndjson(tags(n, origin)))

    def answer(request):
        request.head(200, len(source), **headers)
        request.wfile.write(source)

    files.files["/tags"] = answer
    task = succeed(server, url=files.url + "/tags", events=True)
    assert task["result"]["accepted"] == n
    assert count_tags(server, origin) == n


def test_a_source_of_unknown_length(server, files, origin):
    def answer(request):
        request.head(200, Transfer_Encoding="chunked")
        for line in ndjson(tags(40, origin)).splitlines(keepends=True):
            request.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        request.wfile.write(b"0\r\n\r\n")

    files.files["/chunked"] = answer
    task = succeed(server, url=files.url + "/chunked", events=True)
    assert task["result"]["accepted"] == 40 and task["progress"] == 1
    assert count_tags(server, origin) == 40


def test_bad_records_are_named_and_the_good_ones_taken(server, inside, into, origin):
    lines = ndjson(points(SEVERAL_CHUNKS)).splitlines(keepends=True)
    bad = {3: b'{"id":1,"vector":[1]}\n', 50: b"no json\n", len(lines) - 1: b'{"id":-5}\n'}
    for at, line in bad.items():
        lines[at] = b"\n \n" + line  # whose number is then two higher, as of all that follow
    expected = [at + 1 + 2 * (i + 1) for i, at in enumerate(bad)]
    result = succeed(server, path=write(inside, "bad", b"".join(lines)), collection=into)["result"]
    assert (result["accepted"], result["rejected"]) == (len(lines) - 3, 3)
    assert [e["line"] for e in result["errors"]] == expected
    assert all(e["error"] for e in result["errors"])
    mixed = ndjson(tags(1, origin)) + b"{}\n" * 150 + ndjson(tags(1, origin))
    result = succeed(server, path=write(inside, "mixed", mixed), events=True)["result"]
    assert (result["accepted"], result["rejected"]) == (2, 150)
    assert [e["line"] for e in result["errors"]] == list(range(2, 102))


def test_a_redirect_to_an_allowed_host(server, files, into):
    files.files["/points"] = ndjson(points(5))
    files.files["/from"] = lambda r: r.head(302, 0, Location="/to")
    files.files["/to"] = lambda r: r.head(307, 0, Location=files.url + "/points")
    assert succeed(server, url=files.url + "/from", collection=into)["result"]["accepted"] == 5


# ---- What may not be read ----
def test_nothing_outside_the_directory(server, inside, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(ndjson(tags(1, "secret")))
    (inside / "link").symlink_to(secret)
    (inside / "way").symlink_to(tmp_path)
    for path in (f"../{tmp_path.name}/secret", str(secret), "link", "way/secret", "a/../../x"):
        (inside / "a").mkdir(exist_ok=True)
        error = fail(server, path=path, events=True)
        assert "leads out of --import-dir" in error, (path, error)
    assert count_tags(server, "secret") == 0
    (inside / "near").symlink_to("a/good")
    (inside / "a" / "good").write_bytes(ndjson(tags(2, "near")))
    assert succeed(server, path="near", events=True)["result"]["accepted"] == 2


def test_only_regular_files(server, inside):
    os.mkfifo(inside / "fifo")
    (inside / "folder").mkdir()
    paths = ["fifo", "folder", "."]
    if os.geteuid() == 0:
        os.mknod(inside / "device", 0o600 | 0o020000, os.makedev(1, 5))  # zeros without end
        paths.append("device")
    for path in paths:
        assert "no regular file" in fail(server, path=path, events=True), path


def test_only_configured_hosts(server, files):
    """Whatever is meant by it: the address that it leads to is not asked."""
    port = files.authority.split(":")[1]
    files.files["/out"] = lambda r: r.head(302, 0, Location=f"http://localhost:{port}/inner")
    files.files["/file"] = lambda r: r.head(302, 0, Location="file:///etc/passwd")
    files.files["/nowhere"] = lambda r: r.head(302, 0)
    files.files["/loop"] = lambda r: r.head(301, 0, Location="/loop")
    for url, word in ((f"http://localhost:{port}/inner", "--import-hosts"),
                      (f"http://127.0.0.2:{port}/inner", "--import-hosts"),
                      (f"http://[::1]:{port}/inner", "--import-hosts"),
                      ("http://127.0.0.1/inner", "--import-hosts"),
                      ("http://169.254.169.254/latest", "--import-hosts"),
                      (f"http://{files.authority}@evil.example/inner", "user name"),
                      (f"http://me:pass@{files.authority}/inner", "user name"),
                      (f"http://evil.example#@{files.authority}/inner", "--import-hosts"),
                      (f"ftp://{files.authority}/inner", "only http and https"),
                      ("file:///etc/passwd", "only http and https"),
                      ("gopher://x", "only http and https"), ("/inner", "no URL"), ("http://", "no URL"),
                      (files.url + "/out", "--import-hosts"),
                      (files.url + "/file", "only http and https"),
                      (files.url + "/nowhere", "without a place"),
                      (files.url + "/loop", "more than 5 times")):
        error = fail(server, url=url, events=True)
        assert word in error or "no host" in error, (url, error)
    assert "/inner" not in files.asked


def test_without_the_options_nothing_is_imported(server_factory):
    """And a list of hosts that is none is refused at the start."""
    server = server_factory().start()
    for source, option in (("path", "--import-dir"), ("url", "--import-hosts")):
        answer = server.post("/tasks", json={"type": "import", "args": {
            source: "http://127.0.0.1/x", "events": True}})
        assert answer.status_code == 422, answer.text
        error = answer.json()["error"]
        assert error["field"] == "args" and option in error["message"], error
    assert server.get("/tasks").json()["tasks"] == []
    server.stop()
    wrong = server_factory("--import-hosts", "good,http://bad/", name="wrong").spawn()
    assert wrong.process.wait(PATIENCE_S) == 2 and "http://bad/" in wrong.stderr()
    wrong.process = None


@pytest.mark.parametrize("args, word", [
    ({}, "path and url"), ({"path": "a", "url": "b", "events": True}, "path and url"),
    ({"path": "a"}, "collection and events"), ({"path": "a", "events": False}, "collection and"),
    ({"path": "a", "events": True, "collection": "c"}, "collection and events"),
    ({"path": 5, "events": True}, "args.path"), ({"path": "", "events": True}, "args.path"),
    ({"path": "a\0b", "events": True}, "args.path"), ({"url": "", "events": True}, "args.url"),
    ({"url": "x" * 8193, "events": True}, "args.url"),
    ({"path": "a", "collection": "c" * 256}, "args.collection"),
    ({"path": "a", "events": True, "stall_s": 0}, "args.stall_s"),
    ({"path": "a", "events": 1}, "args.events"), ({"file": "a"}, "args.file")])
def test_arguments_that_are_refused(server, args, word):
    answer = server.post("/tasks", json={"type": "import", "args": args})
    assert answer.status_code == 422 and word in answer.json()["error"]["message"], answer.text


# ---- What fails ----
def test_what_is_not_there(server, files, inside):
    name = write(inside, "lone", ndjson(points(1)))
    assert "there is no file nowhere" in fail(server, path="nowhere", events=True)
    assert "answers 404" in fail(server, url=files.url + "/missing", events=True)
    error = fail(server, path=name, collection="no/such collection")
    assert "404" in error and "no/such collection" in error


def test_what_is_no_source(server, inside, into, origin):
    good = ndjson(tags(3, origin))
    for name, body, word in (
            ("empty", b"", "no records"), ("blank", b"\n \n\n", "no records"),
            ("csv", b"a,b\n1,2\n", "none of 2 records was good"),
            ("many.csv", b"a,b\n" * (2000 if TINY else 300000), "none of "),
            ("npy", npy(np.zeros((4, 3), np.float32)), "holds no events"),
            ("cut", b"[" + good.replace(b"\n", b",\n"), "ends too early"),
            ("broken", b"[{}}", "no JSON array"),
            ("cut.gz", gzip.compress(good)[:-12], "ends too early"),
            ("damaged.zst", zstandard.compress(good * 99)[:-9] + b"123456789", "damaged")):
        assert word in fail(server, path=write(inside, name, body), events=True), name
    for name, array, word in (
            ("wide", npy(np.zeros((4, 2), np.float32)), "dimension"),
            ("double", npy(np.zeros((4, 3), np.float64)), "float32"),
            ("npy.cut", npy(np.zeros((4, 3), np.float32))[:-4], "ends before its last row")):
        assert word in fail(server, path=write(inside, name, array), collection=into), name


def test_a_length_that_is_wrong(server, files, origin):
    """What came before is taken; the rest is not made up."""
    def short(request):
        body = ndjson(tags(2, origin))
        request.head(200, len(body) + 100)
        request.wfile.write(body)

    files.files["/short"] = short
    assert "cannot be read" in fail(server, url=files.url + "/short", events=True)


def test_a_source_that_says_nothing_more(server, files):
    held = threading.Event()

    def hang(request):
        request.head(200, 1000)
        request.wfile.write(b"\n")
        held.wait(PATIENCE_S)

    files.files["/hang"] = hang
    try:
        error = fail(server, url=files.url + "/hang", events=True, stall_s=1)
        assert "nothing came from the source for 1 s" in error
    finally:
        held.set()


@pytest.mark.one_thread  # all of the work is the worker's
@pytest.mark.parametrize("compressed", [False, True])
def test_a_source_without_an_end(server, files, compressed):
    def endless(request):
        request.head(200)
        block = b"\n" * (1 << 20)
        while True:
            request.wfile.write(gzip.compress(block) if compressed else block)

    files.files["/endless"] = endless
    assert "--import-max-size" in fail(server, url=files.url + "/endless", events=True)


def test_a_certificate_that_nobody_signed(server, secure_files):
    secure_files.files["/x"] = ndjson(tags(1, "tls"))
    error = fail(server, url=secure_files.url + "/x", events=True)
    assert "certificate" in error
    assert "/x" not in secure_files.asked


def test_a_source_that_fails_is_tried_again(server, files, origin):
    asked = []

    def flaky(request):
        asked.append(1)
        if len(asked) < 3:
            request.head(503, 0)
        else:
            body = ndjson(tags(2, origin))
            request.head(200, len(body))
            request.wfile.write(body)

    files.files["/flaky"] = flaky
    task = wait_end(server, add(server, {"max_retries": 5}, url=files.url + "/flaky", events=True))
    assert (task["status"], task["attempts"]) == ("succeeded", 3), task
    assert count_tags(server, origin) == 2


def test_memory_is_bounded(server, inside, into):
    """Also by a record that is larger than any may be, which is named and skipped."""
    with open(inside / "giant", "wb") as out:
        out.write(ndjson(points(1)))
        out.truncate(90 << 20)
        out.seek(0, io.SEEK_END)
        out.write(b"\n" + ndjson(points(1, first=1)))
    task = succeed(server, path="giant", collection=into)
    assert (task["result"]["accepted"], task["result"]["rejected"]) == (2, 1)
    assert task["result"]["errors"] == [{"line": 2, "error": "the record is longer than one may be"}]
    assert SANITIZED or peak_kb(task) < MEMORY_MAX_KB


# ---- In the middle of it ----
class Halved:
    """A source that gives a half, and the other once it is told to."""

    def __init__(self, files, body):
        self.path = "/" + uuid.uuid4().hex
        self.url = files.url + self.path
        self.body = body
        self.go_on = threading.Event()
        self.etag = None
        files.files[self.path] = self.answer

    def answer(self, request):
        half = len(self.body) // 2
        request.head(200, len(self.body), **({"ETag": self.etag} if self.etag else {}))
        request.wfile.write(self.body[:half])
        request.wfile.flush()
        self.go_on.wait(2 * PATIENCE_S)
        request.wfile.write(self.body[half:])


def kill_worker(server, task):
    os.kill(int(worker_of(task).name), signal.SIGKILL)
    assert wait_until(lambda: get(server, task["id"])["attempts"] > task["attempts"])


def test_events_are_once_in_effect_when_the_worker_is_killed(server, files, origin):
    n = 4 * SEVERAL_CHUNKS
    source = Halved(files, ndjson(tags(n, origin)))
    task_id = add(server, url=source.url, events=True, stall_s=3600)
    kill_worker(server, wait_taken(server, task_id))
    source.go_on.set()
    task = wait_end(server, task_id)
    assert (task["status"], task["attempts"]) == ("succeeded", 2), task
    assert task["result"] == {"accepted": n, "rejected": 0, "errors": []}
    assert count_tags(server, origin) == n


def test_points_are_there_when_the_worker_is_killed(server, files, into):
    n = 4 * SEVERAL_CHUNKS
    source = Halved(files, ndjson(points(n)))
    task_id = add(server, url=source.url, collection=into, stall_s=3600)
    kill_worker(server, wait_taken(server, task_id))
    source.go_on.set()
    assert wait_end(server, task_id)["status"] == "succeeded"
    assert count_points(server, into) == n


def test_events_are_once_in_effect_when_the_server_is_killed(server_factory, files, origin):
    """--import-hosts alone; the task goes on by itself."""
    n = 4 * SEVERAL_CHUNKS
    source = Halved(files, ndjson(tags(n, origin)))
    server = server_factory("--import-hosts", files.authority).start()
    task_id = add(server, url=source.url, events=True, stall_s=3600)
    wait_taken(server, task_id)
    server.kill()
    source.go_on.set()
    server.start()
    task = wait_end(server, task_id)
    assert task["status"] == "succeeded" and task["result"]["accepted"] == n, task
    assert count_tags(server, origin) == n


def test_another_source_is_not_gone_on_with(server, files, origin):
    source = Halved(files, ndjson(tags(4 * SEVERAL_CHUNKS, origin)))
    task_id = add(server, url=source.url, events=True, stall_s=3600)
    task = wait_taken(server, task_id)
    source.etag = '"another"'
    kill_worker(server, task)
    source.go_on.set()
    task = wait_end(server, task_id)
    assert task["status"] == "failed" and "not the one that the task began with" in task["error"]
    assert count_tags(server, origin) < 4 * SEVERAL_CHUNKS


def test_a_cancelled_import_stops(server, files, origin):
    source = Halved(files, ndjson(tags(4 * SEVERAL_CHUNKS, origin)))
    task_id = add(server, url=source.url, events=True, stall_s=3600)
    wait_taken(server, task_id)
    assert server.delete(f"/tasks/{task_id}").status_code == 200
    assert wait_end(server, task_id)["status"] == "cancelled"
    source.go_on.set()
    before = count_tags(server, origin)
    assert before < 4 * SEVERAL_CHUNKS
    assert succeed(server, url=source.url, events=True)["result"]["accepted"] == 4 * SEVERAL_CHUNKS
    assert count_tags(server, origin) == before + 4 * SEVERAL_CHUNKS  # another task, another key


def busy(server):
    return server.get("/tasks/queue").json()["busy"]


@pytest.mark.parametrize("type_of_task", ["long_task", "exec", "import"])
def test_cancel_in_every_state(server, files, inside, type_of_task):
    """Whatever a task waits for, its worker is free soon, and what has ended stays as it is."""
    hanging = Halved(files, b"\n\n")
    hang, end, fail = {
        "long_task": (slow(10**6)["args"], {"total": 1}, slow(10**6)["args"]),
        "exec": ({"command": "hang"}, {"command": "end"}, {"command": "fail"}),
        "import": ({"url": hanging.url, "events": True, "stall_s": 3600},
                   {"path": write(inside, "few", ndjson(tags(1, "few"))), "events": True},
                   {"path": "nowhere", "events": True})}[type_of_task]

    def make(args, **task):
        answer = server.post("/tasks", json={"type": type_of_task, "args": args, **task})
        assert answer.status_code == 202, answer.text
        return answer.json()["id"]

    def cancel(task_id):
        answer = server.delete(f"/tasks/{task_id}")
        assert answer.status_code == 200 and answer.json()["status"] == "cancelled", answer.text
        assert wait_until(lambda: busy(server) == 0, 10)  # a second, and for a busy machine
        return get(server, task_id)

    def refused(task_id):
        before = get(server, task_id)
        answer = server.delete(f"/tasks/{task_id}")
        assert answer.status_code == 409 and answer.json()["error"]["code"] == "conflict", answer.text
        assert get(server, task_id) == before

    queued = cancel(make(hang, run_at="2100-01-01T00:00:00Z"))
    assert (queued["attempts"], queued["started_at"]) == (0, None)
    running = make(hang)
    assert wait_until(lambda: get(server, running)["status"] == "running")
    assert type_of_task != "import" or wait_until(lambda: hanging.path in files.asked)
    assert cancel(running)["attempts"] == 1
    again = make(hang, timeout=0.1, max_retries=1000)  # it waits for longer and longer
    assert wait_until(lambda: get(server, again)["attempts"] >= 2)
    cancel(again)
    succeeded, failed = make(end), make(fail, timeout=0.2 if type_of_task == "long_task" else 3600)
    assert wait_end(server, succeeded)["status"] == "succeeded"
    assert wait_end(server, failed)["status"] == "failed"
    for ended in (queued["id"], running, again, succeeded, failed):
        refused(ended)
    hanging.go_on.set()


def test_a_worker_that_sleeps_past_its_lease_is_fenced(server, files, origin):
    """Woken, it neither makes progress nor ends its task, though all that it waited for is there."""
    n = 4 * SEVERAL_CHUNKS
    source = Halved(files, ndjson(tags(n, origin)))
    counting = server.post("/tasks", json=slow(10**6)).json()["id"]
    reading = add(server, url=source.url, events=True, stall_s=3600)
    asleep = {task_id: wait_taken(server, task_id) for task_id in (counting, reading)}
    pids = [int(worker_of(task).name) for task in asleep.values()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    source.go_on.set()
    try:
        for task_id, task in asleep.items():
            assert wait_until(lambda: get(server, task_id)["attempts"] == 2)
            assert get(server, task_id)["worker"] != task["worker"]
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    task = wait_end(server, reading)
    assert (task["status"], task["attempts"]) == ("succeeded", 2), task
    assert task["result"] == {"accepted": n, "rejected": 0, "errors": []}
    assert count_tags(server, origin) == n
    assert get(server, counting)["attempts"] == 2
    assert server.delete(f"/tasks/{counting}").json()["status"] == "cancelled"


def test_a_server_that_takes_no_more_for_now_is_waited_for(server_factory, files, origin):
    """Its idempotency keys are used up: 429, until the import is cancelled. Nothing is failed for it,
    and the source, which has no end, waits too."""
    sent = []
    block = ndjson(tags(SEVERAL_CHUNKS, origin))

    def endless(request):
        request.head(200)
        while True:
            request.wfile.write(block)
            sent.append(len(block))

    files.files["/waits"] = endless
    server = server_factory("--import-hosts", files.authority, "--idempotency-max", "1").start()
    task_id = add(server, url=files.url + "/waits", events=True)

    def refused():
        return sum(value for name, value in server.metrics().items()
                   if name.startswith("millrace_http_requests_total") and '"429"' in name)

    assert wait_until(lambda: refused() >= 4)
    task = get(server, task_id)
    assert task["status"] == "running"
    assert SANITIZED or peak_kb(task) < MEMORY_MAX_KB
    assert sum(sent) < 64 << 20
    assert server.delete(f"/tasks/{task_id}").status_code == 200
    assert wait_end(server, task_id)["status"] == "cancelled"
    assert 0 < count_tags(server, origin) < sum(sent)


def test_a_change_of_the_api_key_stops_no_import(server_factory, files, tmp_path, origin):
    n = 4 * SEVERAL_CHUNKS
    key = tmp_path / "key"
    key.write_text("first\n")
    source = Halved(files, ndjson(tags(n, origin)))
    server = server_factory("--api-key-file", str(key), "--import-hosts", files.authority).start()

    def ask(method, path, key, **options):
        return server.request(method, path, headers={"api-key": key}, **options)

    task_id = ask("POST", "/tasks", "first", json={"type": "import", "args": {
        "url": source.url, "events": True, "stall_s": 3600}}).json()["id"]
    assert wait_until(lambda: ask("GET", f"/tasks/{task_id}", "first").json()["current"])
    key.write_text("second\n")
    server.process.send_signal(signal.SIGHUP)
    assert wait_until(lambda: ask("GET", "/tasks", "second").status_code == 200)
    source.go_on.set()
    assert wait_until(lambda: ask("GET", f"/tasks/{task_id}", "second").json()["status"] in ENDS)
    assert ask("GET", f"/tasks/{task_id}", "second").json()["result"]["accepted"] == n


def test_the_key_of_imports_is_no_users(server, inside, into):
    """Nothing tells it: not the list of processes, nor the worker's environment."""
    succeed(server, path=write(inside, "one", ndjson(points(1))), collection=into)
    task = succeed(server, path="one", collection=into)
    worker = worker_of(task)
    assert (worker / "cmdline").read_bytes() == b"millrace\0task-worker\0"
    assert KEY["api-key"].encode() not in (worker / "environ").read_bytes()
