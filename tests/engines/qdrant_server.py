# SPDX-License-Identifier: Apache-2.0
"""A Qdrant for tests: its gRPC API from the official stubs, in front of the official client's local
mode, and as much of REST as tests ask for. It does what it is told to: be slow, refuse, cut calls off,
die.

    python qdrant_server.py --port N [--http-port M] [--path DIR] [--api-key KEY]
                            [--tls-cert F --tls-key F]

--path: what it holds outlives it.

Prints one line of JSON once it listens: {"port": …, "http_port": …}, with a certificate also
"tls_port"; 0 takes free ports. Ends when its
standard input does, so that no test leaves it behind.

How to tell it, on the HTTP port:

    POST /admin  {"delay_s": 0.5}                        each call of gRPC takes so long first
                 {"fail": "UNAVAILABLE", "times": 3,     the next 3 calls end so (default: all, until
                  "sentence": "…"}                       {"fail": null})
                 {"fail": "CUT", "times": 1}             … cut off by the server: CANCELLED
                 {"hold": true}                          calls wait until {"hold": false}
                 {"hold_answers": "PUT"}                 what REST asks for with this method is done, and
                                                         not answered until {"hold_answers": null}
                 {"rest_status": 503}                    what REST asks for is answered so; null: not
                 {"api_key": "secret"}                   asked for by gRPC from now on; null: none
                 {"pad": bytes, "hold_tail": true}       GET /telemetry answers so much; its last byte
                                                         comes after {"hold_tail": false}
                 {"poison": "text"}                      an upsert with a payload whose v is this is
                                                         refused: INVALID_ARGUMENT
                 {"reset": true}                         nothing is told, counted or held any more,
                                                         and there are no collections
                 {"die": true}                           as by kill -9
    GET  /admin  {"calls": {"Upsert": n, …}, "points": written, "open": calls under way,
                  "most_open": at once so far, "metadata": of the last call, "ordering": of the last
                  write,
                  "rest": [[method, path, query, body] of each request that changes something],
                  "gets": {path: how often GET asked for it by REST},
                  "rest_keys": the api-keys that came by REST,
                  "rest_held": requests of REST that are held}

"hold" holds REST up too.
"""
import argparse
import concurrent.futures
import http.server
import json
import os
import re
import sys
import threading
import time
import urllib.parse

import grpc
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as messages
from qdrant_client.conversions.conversion import GrpcToRest
from qdrant_client.grpc import points_service_pb2_grpc, qdrant_pb2_grpc

THREADS = 64


class Admin:
    """What the server was told, and what it counted."""

    def __init__(self, api_key):
        self.api_key = api_key
        self.changed = threading.Condition()
        self.reset()

    def reset(self):
        self.told = {"delay_s": 0, "fail": None, "times": None, "sentence": "as told", "hold": False,
                     "poison": None, "api_key": self.api_key, "hold_answers": None,
                     "rest_status": None, "pad": 0, "hold_tail": False}
        self.calls = {}
        self.points = 0
        self.open = getattr(self, "open", 0)
        self.most_open = 0
        self.rest_held = getattr(self, "rest_held", 0)
        self.metadata = {}
        self.ordering = "weak"
        self.rest = []
        self.rest_keys = set()
        self.gets = {}

    def tell(self, told):
        if told.get("die"):
            os._exit(137)
        with self.changed:
            if told.pop("reset", None):
                self.reset()
            if "fail" in told:
                self.told["times"] = None
            self.told.update(told)
            self.changed.notify_all()

    def counts(self):
        with self.changed:
            return {"calls": dict(self.calls), "points": self.points, "open": self.open,
                    "most_open": self.most_open, "metadata": self.metadata, "rest": list(self.rest),
                    "ordering": self.ordering, "rest_keys": sorted(self.rest_keys),
                    "rest_held": self.rest_held, "gets": dict(self.gets)}

    def enter_rest(self, method, path, query, body, key):
        with self.changed:
            if key:
                self.rest_keys.add(key)
            if method != "GET" and not path.endswith(("/scroll", "/count", "/query", "/points")):
                self.rest.append([method, path, query, body])
            if method == "GET":
                self.gets[path] = self.gets.get(path, 0) + 1
            self.rest_held += 1
            self.changed.wait_for(lambda: not self.told["hold"])
            self.rest_held -= 1

    def before_tail(self):
        with self.changed:
            self.changed.wait_for(lambda: not self.told["hold_tail"])

    def leave_rest(self, method):
        with self.changed:
            self.changed.wait_for(lambda: self.told["hold_answers"] != method)

    def _failure(self):
        """The status the call shall end with, or None."""
        fail, times = self.told["fail"], self.told["times"]
        if fail is None or times == 0:
            return None
        if times is not None:
            self.told["times"] = times - 1
        return fail

    def enter(self, name, context):
        """Every call passes here first; returns how it shall fail, or None."""
        with self.changed:
            self.calls[name] = self.calls.get(name, 0) + 1
            self.metadata = {key: value for key, value in context.invocation_metadata()
                             if isinstance(value, str)}
            self.metadata["time_remaining"] = context.time_remaining()
            self.open += 1
            self.most_open = max(self.most_open, self.open)
            delay_s, failure = self.told["delay_s"], self._failure()
        time.sleep(delay_s)
        with self.changed:
            self.changed.wait_for(lambda: not self.told["hold"])
        return failure

    def leave(self):
        with self.changed:
            self.open -= 1


class Store:
    """The local mode, for one at a time: it is not made for threads."""

    def __init__(self, path):
        self.lock = threading.Lock()
        self.client = QdrantClient(path=path, force_disable_check_same_thread=True) if path \
            else QdrantClient(":memory:")

    def call(self, do):
        """do(client), with its errors as gRPC statuses: (result, None) or (None, (code, why))."""
        with self.lock:
            try:
                return do(self.client), None
            except ValueError as error:
                missing = "not found" in str(error).lower()
                code = grpc.StatusCode.NOT_FOUND if missing else grpc.StatusCode.INVALID_ARGUMENT
                return None, (code, str(error))


class Servicer(points_service_pb2_grpc.PointsServicer, qdrant_pb2_grpc.QdrantServicer):
    def __init__(self, store, admin):
        self.store, self.admin = store, admin

    def _call(self, name, context, do):
        failure = self.admin.enter(name, context)
        try:
            key = self.admin.told["api_key"]
            if key and self.admin.metadata.get("api-key") != key:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "Must provide an API key")
            if failure == "CUT":
                context.cancel()
                return None
            if failure:
                context.abort(grpc.StatusCode[failure], self.admin.told["sentence"])
            result, problem = self.store.call(do)
            if problem:
                context.abort(*problem)
            return result
        finally:
            self.admin.leave()

    def _note_ordering(self, request):
        kind = request.ordering.type if request.HasField("ordering") else 0
        self.admin.ordering = messages.WriteOrderingType.Name(kind).lower()

    def _done(self, wait):
        status = messages.UpdateStatus.Completed if wait else messages.UpdateStatus.Acknowledged
        return messages.PointsOperationResponse(
            result=messages.UpdateResult(operation_id=1, status=status), time=0.001)

    def Upsert(self, request, context):
        def do(client):
            points = [GrpcToRest.convert_point_struct(p) for p in request.points]
            self._note_ordering(request)
            if any(self.admin.told["poison"] and (p.payload or {}).get("v") == self.admin.told["poison"]
                   for p in points):
                raise ValueError("there is poison in it")
            client.upsert(request.collection_name, points)
            self.admin.points += len(points)
            return self._done(request.wait)
        return self._call("Upsert", context, do)

    def Delete(self, request, context):
        def do(client):
            ids = [GrpcToRest.convert_point_id(i) for i in request.points.points.ids]
            self._note_ordering(request)
            client.delete(request.collection_name, models.PointIdsList(points=ids))
            return self._done(request.wait)
        return self._call("Delete", context, do)

    def HealthCheck(self, request, context):
        return self._call("HealthCheck", context, lambda client: messages.HealthCheckReply(
            title="qdrant - vector search engine", version="1.18.0"))


# ---- REST ----
def create_collection(client, name, body):
    vectors = body["vectors"]
    if "size" in vectors:
        config = models.VectorParams(**vectors)
    else:
        config = {key: models.VectorParams(**value) for key, value in vectors.items()}
    return client.create_collection(name, vectors_config=config)


def points_of(client, name, body):
    found, offset = client.scroll(name, limit=body.get("limit", 10), offset=body.get("offset"),
                                  with_vectors=body.get("with_vector", False),
                                  with_payload=body.get("with_payload", True))
    return {"points": [json.loads(p.model_dump_json()) for p in found], "next_page_offset": offset}


def as_json(model):
    return json.loads(model.model_dump_json())


def change_aliases(client, body):
    changes = models.ChangeAliasesOperation(**body)
    return client.update_collection_aliases(changes.actions)


def info_of(client, name, body):
    return as_json(client.get_collection(name))


def point_of(client, name, id, body):
    found = client.retrieve(name, [int(id) if id.isdigit() else id], with_vectors=True)
    if not found:
        raise ValueError(f"Point with id {id} not found")
    return as_json(found[0])


def retrieve(client, name, body):
    found = client.retrieve(name, body["ids"], with_payload=body.get("with_payload", True),
                            with_vectors=body.get("with_vector", False))
    return [as_json(p) for p in found]


def query(client, name, body):
    wanted = body.get("query")
    if isinstance(wanted, dict):
        wanted = wanted["nearest"]
    return as_json(client.query_points(name, query=wanted, limit=body.get("limit", 10),
                                       with_payload=body.get("with_payload", False),
                                       with_vectors=body.get("with_vector", False)))


def upsert(client, name, body):
    points = [models.PointStruct(**p) for p in body["points"]]
    return as_json(client.upsert(name, points))


def delete(client, name, body):
    chosen = models.Filter(**body["filter"]) if "filter" in body else body["points"]
    return as_json(client.delete(name, chosen))


def set_payload(client, name, body):
    return as_json(client.set_payload(name, body["payload"], body["points"]))


def drop_all(client):
    for collection in client.get_collections().collections:
        client.delete_collection(collection.name)


def exists(client, name, body):
    return {"exists": client.collection_exists(name)}


ROUTES = [  # method, path, what it does with (client, *parts of the path, body)
    ("PUT", r"/collections/([^/]+)", create_collection),
    ("DELETE", r"/collections/([^/]+)", lambda client, name, body: client.delete_collection(name)),
    ("GET", r"/collections", lambda client, body: json.loads(
        client.get_collections().model_dump_json())),
    ("GET", r"/aliases", lambda client, body: as_json(client.get_aliases())),
    ("POST", r"/collections/aliases", change_aliases),
    ("GET", r"/collections/([^/]+)", info_of),
    ("GET", r"/collections/([^/]+)/exists", exists),
    ("GET", r"/collections/([^/]+)/points/([^/]+)", point_of),
    ("POST", r"/collections/([^/]+)/points", retrieve),
    ("PUT", r"/collections/([^/]+)/points", upsert),
    ("POST", r"/collections/([^/]+)/points/delete", delete),
    ("POST", r"/collections/([^/]+)/points/payload", set_payload),
    ("POST", r"/collections/([^/]+)/points/query", query),
    ("POST", r"/collections/([^/]+)/points/scroll", points_of),
    ("POST", r"/collections/([^/]+)/points/count", lambda client, name, body: json.loads(
        client.count(name).model_dump_json())),
]
HTTP_STATUS = {grpc.StatusCode.NOT_FOUND: 404, grpc.StatusCode.INVALID_ARGUMENT: 400}


def rest_handler(store, admin):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self, status, document):
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:-1])
            self.wfile.flush()
            if self.path == "/telemetry":
                admin.before_tail()
            self.wfile.write(body[-1:])

        def _serve(self):
            path, _, query_text = self.path.partition("?")
            path = urllib.parse.unquote(path)
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
            if path == "/admin":
                if self.command == "POST":
                    if body.get("reset"):
                        store.call(drop_all)
                    admin.tell(body)
                return self._answer(200, admin.counts())
            admin.enter_rest(self.command, path, query_text, body, self.headers.get("api-key"))
            if admin.told["rest_status"]:
                return self._answer(admin.told["rest_status"], {"status": {"error": "as told"}})
            if path == "/telemetry":
                return self._answer(200, {"pad": "x" * admin.told["pad"]})
            if path == "/":
                return self._answer(200, {"title": "qdrant - vector search engine",
                                          "version": "1.18.0"})
            for method, pattern, do in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and method == self.command:
                    result, problem = store.call(
                        lambda client: do(client, *match.groups(), body))
                    admin.leave_rest(self.command)
                    if problem:
                        return self._answer(HTTP_STATUS[problem[0]],
                                            {"status": {"error": problem[1]}, "time": 0})
                    return self._answer(200, {"result": result, "status": "ok", "time": 0})
            return self._answer(404, {"status": {"error": f"no route {path}"}, "time": 0})

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve

        def log_message(self, *args):
            pass

    return Handler


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--http-port", type=int, default=0)
    parser.add_argument("--path")
    parser.add_argument("--api-key")
    parser.add_argument("--tls-cert")
    parser.add_argument("--tls-key")
    args = parser.parse_args()
    store, admin = Store(args.path), Admin(args.api_key)
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(THREADS),
                         options=[("grpc.so_reuseport", 0),
                                  ("grpc.max_receive_message_length", -1)])
    servicer = Servicer(store, admin)
    points_service_pb2_grpc.add_PointsServicer_to_server(servicer, server)
    qdrant_pb2_grpc.add_QdrantServicer_to_server(servicer, server)
    ports = {"port": server.add_insecure_port(f"127.0.0.1:{args.port}")}
    if args.tls_cert:
        with open(args.tls_key, "rb") as key, open(args.tls_cert, "rb") as cert:
            credentials = grpc.ssl_server_credentials([(key.read(), cert.read())])
        ports["tls_port"] = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    rest = http.server.ThreadingHTTPServer(("127.0.0.1", args.http_port),
                                           rest_handler(store, admin))
    rest.daemon_threads = True
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    print(json.dumps({**ports, "http_port": rest.server_address[1]}), flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
