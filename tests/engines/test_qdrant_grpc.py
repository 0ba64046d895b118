# SPDX-License-Identifier: Apache-2.0
"""The client of Qdrant's gRPC API, as a program (qdrant_call.c), against the official stubs
(qdrant_server.py), and against a server that does what no good one does (h2_server.py)."""
import contextlib
import json
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import threading
import time
import uuid

import h2.errors
import pytest
import requests
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor
from qdrant_client import grpc as messages  # noqa: F401: brings the descriptors

from conftest import BINARY, PATIENCE_S, ROOT, free_port, wait_until
from h2_server import GRPC, H2Server

CALL = pathlib.Path(BINARY).resolve().parent / "tests" / "engines" / "qdrant-call"
if not CALL.exists():  # a build without tests
    CALL = ROOT / "build-debug" / "tests" / "engines" / "qdrant-call"
PROTO = ROOT / "src" / "points" / "qdrant" / "messages.proto"
HEALTH = messages.HealthCheckReply(title="q", version="1").SerializeToString()


class QdrantServer:
    """One process of qdrant_server.py."""

    def __init__(self, *options):
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "engines" / "qdrant_server.py"),
             "--port", str(self.port), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        ports = json.loads(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{ports['http_port']}"
        self.tls_port = ports.get("tls_port")

    def tell(self, **what):
        return requests.post(f"{self.url}/admin", json=what, timeout=PATIENCE_S).json()

    def counts(self):
        return requests.get(f"{self.url}/admin", timeout=PATIENCE_S).json()

    def create(self, name, vectors):
        response = requests.put(f"{self.url}/collections/{name}", json={"vectors": vectors},
                                timeout=PATIENCE_S)
        assert response.status_code == 200, response.text

    def points(self, name):
        response = requests.post(f"{self.url}/collections/{name}/points/scroll",
                                 json={"limit": 100000, "with_vector": True}, timeout=PATIENCE_S)
        return {p["id"]: p for p in response.json()["result"]["points"]}

    def die(self):
        with contextlib.suppress(requests.ConnectionError):
            self.tell(die=True)
        self.process.wait(PATIENCE_S)

    def stop(self):
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)


class Client:
    """One qdrant-call."""

    def __init__(self, port, host="127.0.0.1", **options):
        told = {"host": host, "port": port, "timeout_ms": PATIENCE_S * 1000, **options}
        self.process = subprocess.Popen([str(CALL), json.dumps(told)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def call(self, op, **more):
        self.process.stdin.write(json.dumps({"op": op, **more}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, *args, **more):
        """A call in the background: join() gives its result."""
        result = []
        thread = threading.Thread(target=lambda: result.append(self.call(*args, **more)))
        thread.start()

        def join():
            thread.join(PATIENCE_S)
            return result[0]
        return join

    def outcome(self, *args, **more):
        outcome, status, _ = self.call(*args, **more)["answers"][0]
        return outcome, status

    def stop(self):
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0 and not errors, errors


@contextlib.contextmanager
def client_of(port, **options):
    client = Client(port, **options)
    try:
        yield client
        client.stop()
    finally:
        client.process.kill()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """(certificate, its key), for localhost alone, which signed itself."""
    directory = tmp_path_factory.mktemp("tls")
    key, cert = directory / "key.pem", directory / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key),
                    "-out", str(cert), "-days", "2", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    return str(cert), str(key)


@pytest.fixture(scope="module")
def server(certificates):
    cert, key = certificates
    server = QdrantServer("--tls-cert", cert, "--tls-key", key)
    yield server
    server.stop()


@pytest.fixture
def client(server):
    server.tell(reset=True)
    with client_of(server.port) as client:
        yield client


# ---- Messages ----
SCALARS = {"string": "STRING", "bool": "BOOL", "uint64": "UINT64", "int64": "INT64", "double": "DOUBLE",
           "float": "FLOAT"}


def fields_of(text):
    """(message, label, type, name, number) of each field of a .proto, oneofs flattened; and of enums."""
    text = re.sub(r"//[^\n]*", "", text)
    for kind, name, body in re.findall(r"(message|enum) (\w+) \{((?:[^{}]|\{[^{}]*\})*)\}", text):
        if kind == "enum":
            for value, number in re.findall(r"(\w+) = (\d+);", body):
                yield name, "enum", None, value, int(number)
        for label, type_, field, number in re.findall(
                r"(repeated )?(map<string, \w+>|\w+) (\w+) = (\d+);", body if kind == "message" else ""):
            yield name, label.strip(), type_, field, int(number)


def test_every_message_is_as_the_official_client_has_it():
    pool = descriptor_pool.Default()
    rows = list(fields_of(PROTO.read_text()))
    assert len(rows) > 40 and len({row[0] for row in rows}) > 15  # it was really read
    for message, label, type_, name, number in rows:
        if label == "enum":
            values = pool.FindEnumTypeByName(f"qdrant.{message}").values_by_name
            assert values[name].number == number, (message, name)
            continue
        field = pool.FindMessageTypeByName(f"qdrant.{message}").fields_by_name[name]
        assert field.number == number, (message, name)
        repeated = label == "repeated" or type_.startswith("map")
        assert getattr(field, "is_repeated", None) is repeated, (message, name)
        if type_.startswith("map"):
            entry = field.message_type
            assert entry.GetOptions().map_entry
            assert entry.fields_by_name["key"].number == 1
            value = entry.fields_by_name["value"]
            assert value.number == 2 and value.message_type.name == type_.split()[1].rstrip(">")
        elif type_ in SCALARS:
            assert field.type == getattr(FieldDescriptor, "TYPE_" + SCALARS[type_]), (message, name)
        else:
            assert (field.message_type or field.enum_type).full_name == f"qdrant.{type_}"


def float32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def random_json(r, depth=0):
    kinds = [lambda: None, lambda: r.random() < 0.5, lambda: r.randint(-2**63, 2**63 - 1),
             lambda: r.uniform(-1e9, 1e9), lambda: "".join(r.choices("aé\u20ac\n\"\\😀", k=r.randint(0, 200)))]
    if depth < 4:
        kinds += [lambda: [random_json(r, depth + 1) for _ in range(r.randint(0, 4))],
                  lambda: {f"k{i}": random_json(r, depth + 1) for i in range(r.randint(0, 4))}]
    return r.choice(kinds)()


def random_point(r, vectors, number):
    names = [name for name in vectors if vectors == {"": 3} or r.random() < 0.7]
    return {"id": number if r.random() < 0.5 else str(uuid.UUID(int=r.getrandbits(128))),
            "vectors": {name: [float32(r.uniform(-1, 1)) for _ in range(vectors[name])] for name in names},
            "payload": {f"k{i}": random_json(r) for i in range(r.randint(0, 5))}}


@pytest.mark.parametrize("name, vectors", [("unnamed", {"": 3}), ("named", {"a": 1, "b": 50, "é": 4})])
def test_points_arrive_as_they_were_sent(server, client, name, vectors):
    r = random.Random(5)
    config = {n: {"size": size, "distance": "Dot"} for n, size in vectors.items()}
    server.create(name, config.get("", config))
    points = [random_point(r, vectors, i) for i in range(200)]
    sent = [{**p, "payload": json.dumps(p["payload"])} for p in points]
    assert client.outcome("upsert", collection=name, vectors=vectors, points=sent) == ("ok", 0)
    found = server.points(name)
    assert len(found) == len(points)
    for p in points:
        vector = found[p["id"]]["vector"]
        assert (vector if name == "named" else {"": vector}) == p["vectors"]
        assert (found[p["id"]]["payload"] or {}) == p["payload"]
    gone = [p["id"] for p in points[::2]]
    assert client.outcome("delete", collection=name, ids=gone) == ("ok", 0)
    assert set(server.points(name)) == {p["id"] for p in points[1::2]}


def test_ordering_key_and_time_are_passed_on(server):
    server.create("ordering", {"size": 1, "distance": "Dot"})
    with client_of(server.port, api_key="secret") as client:
        for number, ordering in enumerate(["weak", "medium", "strong"]):
            for op, more in [("upsert", {"points": [{"id": 1, "vectors": {"": [1]}}], "vectors": {"": 1}}),
                             ("delete", {"ids": [1]})]:
                assert client.outcome(op, collection="ordering", ordering=number, **more) == ("ok", 0)
                counts = server.counts()
                assert counts["ordering"] == ordering
                assert counts["metadata"]["api-key"] == "secret"
                assert 0 < counts["metadata"]["time_remaining"] <= PATIENCE_S


def test_many_large_points_in_one_call(server, client):
    server.create("large", {"size": 100, "distance": "Dot"})
    points = [{"id": i, "vectors": {"": [float(i)] * 100}, "payload": "{}"} for i in range(3000)]
    assert client.outcome("upsert", collection="large", vectors={"": 100}, points=points) == ("ok", 0)
    assert len(server.points("large")) == len(points)


def test_a_payload_as_deep_as_allowed_is_read(server, client):
    server.create("deep", {"size": 1, "distance": "Dot"})

    def upsert(levels):
        payload = '{"a":' * levels + "1" + "}" * levels
        return client.outcome("upsert", collection="deep", vectors={"": 1},
                              points=[{"id": 1, "vectors": {"": [1]}, "payload": payload}])
    assert upsert(32) == ("ok", 0)
    calls = server.counts()["calls"]
    assert upsert(33) == ("reject", 3)
    assert server.counts()["calls"] == calls


# ---- Outcomes ----
OUTCOMES = {"CANCELLED": ("retry", 1), "UNKNOWN": ("retry", 2), "INVALID_ARGUMENT": ("reject", 3),
            "DEADLINE_EXCEEDED": ("retry", 4), "NOT_FOUND": ("reject", 5), "ALREADY_EXISTS": ("reject", 6),
            "PERMISSION_DENIED": ("down", 7), "RESOURCE_EXHAUSTED": ("retry", 8),
            "FAILED_PRECONDITION": ("retry", 9), "ABORTED": ("retry", 10), "OUT_OF_RANGE": ("reject", 11),
            "UNIMPLEMENTED": ("down", 12), "INTERNAL": ("retry", 13), "UNAVAILABLE": ("retry", 14),
            "DATA_LOSS": ("retry", 15), "UNAUTHENTICATED": ("down", 16)}


def test_each_status_has_its_outcome(server, client):
    for name, outcome in OUTCOMES.items():
        server.tell(fail=name, times=1, sentence=f"{name}: 100 % of \u20ac\n")
        result = client.call("health")["answers"][0]
        assert (*result[:2],) == outcome
        assert result[2] == f"{name}: 100 % of \u20ac\n"
    assert client.call("health")["connections"] == 1


def test_what_the_server_says_of_a_collection_is_passed_on(server, client):
    answer = client.call("upsert", collection="nowhere", vectors={"": 1},
                         points=[{"id": 1, "vectors": {"": [1]}}])["answers"][0]
    assert answer == ["reject", 5, "Collection nowhere not found"]


def test_a_call_ends_at_its_deadline(server):
    with client_of(server.port, timeout_ms=300) as client:
        server.tell(hold=True)
        assert client.outcome("health") == ("retry", 4)
        server.tell(hold=False)
        assert wait_until(lambda: client.outcome("health") == ("ok", 0))


def test_a_wrong_key_is_down(server):
    server.tell(api_key="right")
    for key, outcome in [("right", ("ok", 0)), ("wrong", ("down", 16)), (None, ("down", 16))]:
        with client_of(server.port, api_key=key) as client:
            assert client.outcome("health") == outcome
    server.tell(api_key=None)


def test_a_server_that_dies_and_comes_back():
    server = QdrantServer()
    with client_of(server.port) as client:
        assert client.outcome("health") == ("ok", 0)
        server.tell(hold=True)
        answer = client.start("health")
        assert wait_until(lambda: server.counts()["open"] == 1)
        server.die()
        outcome, status, sentence = answer()["answers"][0]
        assert (outcome, status) == ("retry", 14) and "lost" in sentence
        assert client.outcome("health") == ("down", 14)
        with H2Server(lambda connection, stream, call: connection.answer(stream, HEALTH),
                      port=server.port) as another:
            assert client.outcome("health") == ("ok", 0)
            another.connections[0].close()  # while it is idle: the next call sees that
            result = client.call("health")
            assert result["answers"][0][0] == "ok" and result["connections"] == 1
            assert len(another.connections) == 2


# ---- Concurrency ----
def test_calls_share_few_connections(server):
    with client_of(server.port, connections=3) as client:
        before = server.counts()["calls"].get("HealthCheck", 0)
        result = client.call("health", threads=40)
        assert [a[0] for a in result["answers"]] == ["ok"] * 40
        assert result["connections"] <= 3
        assert server.counts()["calls"]["HealthCheck"] == before + 40


def test_refusals_reduce_what_is_under_way_and_success_brings_it_back(server):
    with client_of(server.port, connections=8) as client:
        # A delay, beside which noise is nothing: as many as there may be.
        server.tell(delay_s=0.02)
        assert wait_until(lambda: client.call("health", threads=16)["concurrency"] > 4)
        server.tell(delay_s=0, fail="UNAVAILABLE")
        assert wait_until(lambda: client.call("health", threads=4)["concurrency"] == 1)
        server.tell(fail=None, delay_s=0.02)
        assert wait_until(lambda: client.call("health", threads=16)["concurrency"] > 4)
        server.tell(delay_s=0)


def test_a_call_that_gets_no_turn_ends_at_its_deadline(server):
    with client_of(server.port, connections=1, timeout_ms=300) as client:
        server.tell(hold=True)
        result = client.call("health", threads=3)
        assert [a[:2] for a in result["answers"]] == [["retry", 4]] * 3
        server.tell(hold=False)


# ---- TLS ----
def test_tls_verifies_the_server(server, certificates):
    server.create("tls", {"size": 100, "distance": "Dot"})
    with client_of(server.tls_port, host="localhost", tls=True, ca_file=certificates[0]) as client:
        points = [{"id": i, "vectors": {"": [1.0] * 100}} for i in range(500)]
        for _ in range(3):
            assert client.outcome("upsert", collection="tls", vectors={"": 100}, points=points) == ("ok", 0)
        assert client.call("health")["connections"] == 1
    for options, word in [({"host": "localhost"}, "NOT trusted"),
                          ({"host": "127.0.0.1", "ca_file": certificates[0]}, "does not match")]:
        with client_of(server.tls_port, tls=True, **options) as client:
            outcome, status, sentence = client.call("health")["answers"][0]
            assert (outcome, status) == ("down", 14) and word in sentence, sentence
    with client_of(server.tls_port, tls=False) as client:  # neither does it speak to who does not
        assert client.outcome("health")[0] == "retry"


def test_tls_with_a_server_that_does_not_speak_it(server):
    with client_of(server.port, host="localhost", tls=True) as client:
        assert client.outcome("health") == ("down", 14)


# ---- Frames ----
def test_what_was_not_looked_at_is_sent_again():
    def refused(connection, stream, call):
        if call == 1:
            connection.reset(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
        else:
            connection.answer(stream, HEALTH)

    def leaving(connection, stream, call):
        connection.go_away(0) if call == 1 else connection.answer(stream, HEALTH)

    for script in (refused, leaving):
        with H2Server(script) as server, client_of(server.port) as client:
            result = client.call("health")
            assert result["answers"][0][0] == "ok"
            assert len(server.calls) == 2 and len(server.connections) == 2


def test_what_is_refused_twice_is_the_callers_to_judge():
    def refused(connection, stream, call):
        connection.reset(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
    with H2Server(refused) as server, client_of(server.port) as client:
        assert client.outcome("health") == ("retry", 14)
        assert len(server.calls) == 2


def test_what_may_have_been_done_is_never_sent_again():
    def reset(connection, stream, call):
        connection.reset(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)

    def closed(connection, stream, call):
        connection.close()

    def leaving(connection, stream, call):
        connection.go_away(stream)
        connection.close()

    def nonsense(connection, stream, call):
        connection.sock.sendall(b"\xff" * 64)

    def endless(connection, stream, call):
        connection.h2.send_headers(stream, GRPC)
        connection.h2.send_data(stream, bytes(16000))
        connection.h2.send_data(stream, bytes(16000))
        connection.flush()

    for script in (reset, closed, leaving, nonsense, endless):
        with H2Server(script) as server, client_of(server.port) as client:
            assert client.outcome("health") == ("retry", 14), script
            assert len(server.calls) == 1


def test_a_server_that_leaves_between_calls():
    def then_leave(connection, stream, call):
        connection.answer(stream, HEALTH)
        connection.go_away(stream)
    with H2Server(then_leave) as server, client_of(server.port) as client:
        for _ in range(3):
            assert client.outcome("health") == ("ok", 0)
        assert len(server.connections) >= 3


def test_answers_that_are_not_grpc():
    for status, outcome in [("401", ("down", 16)), ("404", ("down", 12)), ("503", ("retry", 14)),
                            ("200", ("retry", 2)), ("400", ("retry", 13))]:
        with H2Server(lambda connection, stream, call, status=status: connection.end(
                stream, (":status", status))) as server, client_of(server.port) as client:
            assert client.outcome("health") == outcome


def test_an_answer_without_a_message():
    def short(connection, stream, call):
        connection.end(stream, *GRPC, ("grpc-status", "0"))
    with H2Server(short) as server, client_of(server.port) as client:
        assert client.outcome("delete", collection="c", ids=[1]) == ("retry", 0)


UPSERT = {"collection": "c", "vectors": {"": 100},
          "points": [{"id": i, "vectors": {"": [1.0] * 100}} for i in range(1000)]}
DONE = messages.PointsOperationResponse(
    result=messages.UpdateResult(status=messages.UpdateStatus.Completed)).SerializeToString()


def test_a_request_larger_than_the_servers_window():
    with H2Server(lambda connection, stream, call: connection.answer(stream, DONE)) as server, client_of(server.port) as client:
        assert client.outcome("upsert", **UPSERT) == ("ok", 0)
        request = messages.UpsertPoints.FromString(server.bodies[0][5:])
        assert [p.id.num for p in request.points] == list(range(1000))
        headers = {k.decode(): v.decode() for k, v in server.calls[0].items()}
        assert headers[":path"] == "/qdrant.Points/Upsert"
        assert headers["te"] == "trailers" and headers["content-type"] == "application/grpc"


def test_what_is_somebody_elses_to_send_by_then_never_becomes_whole():
    """The window opens after the time that the call may be sent in."""
    late_s, opens = 0.5, threading.Event()
    with H2Server(lambda connection, stream, call: opens.wait(PATIENCE_S), early=True) as server, client_of(server.port) as client:
        begun = time.monotonic()
        ended = client.start("upsert", late_ms=int(late_s * 1000), **UPSERT)
        assert wait_until(lambda: time.monotonic() > begun + 2 * late_s)
        opens.set()
        outcome, _, sentence = ended()["answers"][0]
        assert outcome == "retry" and "not all sent" in sentence
        for connection in server.connections:
            assert wait_until(lambda connection=connection: connection.sock.fileno() < 0)
            assert all(len(body) < 200_000 for body in connection.bodies.values())


def test_a_verdict_before_the_request_is_all_there():
    def early(connection, stream, call):
        connection.end(stream, *GRPC, ("grpc-status", "8"), ("grpc-message", "too%20much"))
    with H2Server(early, early=True) as server, client_of(server.port) as client:
        for _ in range(2):
            assert client.call("upsert", **UPSERT)["answers"][0] == ["retry", 8, "too much"]
