# SPDX-License-Identifier: Apache-2.0
"""--points qdrant://…: Millrace in front of a Qdrant, which the official client's stubs and local mode
play (qdrant_server.py). The model is a dict: every acknowledged write in effect, once."""
import contextlib
import json
import subprocess
import sys
import threading

import pytest
import requests
from qdrant_client import QdrantClient, models

from conftest import BINARY, PATIENCE_S, millrace, wait_until
from qdrant import FOUR, SERVER, Qdrant, Writer, point


@pytest.fixture
def server(server_factory, qdrant):
    return server_factory("--points", qdrant.points, "--checkpoint-interval", "1s").start()


def part(server):
    return server.get("/healthz").json()["parts"]["points"]


def put(server, name, *points, wait="false", ordering="weak"):
    return server.put(f"/collections/{name}/points?wait={wait}&ordering={ordering}",
                      json={"points": list(points)})


def settled(server):
    """What was appended is applied."""
    figures = {c["name"]: c for c in server.get("/status").json()["consumers"]}
    return figures["points"]["lag_records"] == 0


def test_official_client_writes_and_reads_through_millrace(server, qdrant):
    client = QdrantClient(server.url, timeout=PATIENCE_S)
    assert client.create_collection(
        "movie_collection", models.VectorParams(size=100, distance=models.Distance.COSINE),
        shard_number=6, replication_factor=2, write_consistency_factor=1)
    method, path, _, body = qdrant.told()["rest"][0]
    assert (method, path) == ("PUT", "/collections/movie_collection")
    assert (body["shard_number"], body["replication_factor"]) == (6, 2)
    assert body["write_consistency_factor"] == 1
    vectors = [[float(i == k) for k in range(100)] for i in range(40)]
    answer = client.upsert("movie_collection", wait=True, points=[
        models.PointStruct(id=i, vector=v, payload={"n": i}) for i, v in enumerate(vectors)])
    assert answer.status == models.UpdateStatus.COMPLETED
    assert client.count("movie_collection").count == 40
    assert client.query_points("movie_collection", query=vectors[7], limit=1).points[0].id == 7
    client.set_payload("movie_collection", {"seen": True}, points=[7])
    assert client.retrieve("movie_collection", [7])[0].payload == {"n": 7, "seen": True}
    client.delete("movie_collection", models.PointIdsList(points=[7]), wait=True)
    assert client.retrieve("movie_collection", [7]) == []
    assert client.collection_exists("movie_collection")
    assert client.delete_collection("movie_collection")
    assert not client.collection_exists("movie_collection")
    assert put(server, "movie_collection", point(1, 1)).status_code == 404


def test_every_api_of_points_goes_to_the_cluster(server, qdrant):
    assert server.post("/all", json={"collectionName": "a", "vectorSize": 4, "distance": "Dot",
                                     "shards": 3, "replicas": 1}).json()["result"] is True
    assert qdrant.told()["rest"][0][3]["shard_number"] == 3
    assert server.post("/upsert", json={"collectionName": "a", "id": 1, "vector": [1, 0, 0, 0],
                                        "v": "upsert"}).status_code == 200
    assert qdrant.content("a") == {1: {"v": "upsert"}}
    found = server.post("/data/id", json={"collectionName": "a", "id": 1}).json()["result"]
    assert (found["id"], found["payload"]) == (1, {"v": "upsert"})
    assert server.post("/data/id", json={"collectionName": "a", "id": 2}).status_code == 404
    assert server.get("/all").json()["result"] == [{"name": "a", "status": "green",
                                                    "points_count": 1}]
    batch = {"ids": [2], "vectors": [[0, 1, 0, 0]], "payloads": [{"v": "alioth"}]}
    assert server.post("/alioth/ingest", json={"collection_name": "a",
                                               "batch": batch}).status_code == 200
    assert server.post("/ingest/a", data=json.dumps(point(3, "ingest"))).status_code == 202
    assert wait_until(lambda: qdrant.content("a") == {1: {"v": "upsert"}, 2: {"v": "alioth"},
                                                      3: {"v": "ingest"}})
    assert server.delete("/collection/delete", json={"collectionName": "a"}).status_code == 200
    assert requests.get(f"{qdrant.url}/collections", timeout=PATIENCE_S).json()["result"] == {
        "collections": []}
    # What is no row of ours is Qdrant's to answer.
    for path in ("/cluster", "/snapshots", "/issues", "/collections/a/aliases"):
        assert server.get(path).json()["status"]["error"] == f"no route {path}"
    assert any('route="(Qdrant)"' in name for name in server.metrics())


def test_collections_that_were_there_before(server, qdrant):
    for name in ("first", "second", "third", "fourth", "a b+c%é"):
        requests.put(f"{qdrant.url}/collections/{requests.utils.quote(name)}", json=FOUR,
                     timeout=PATIENCE_S)
    assert put(server, "first", point(1, "x"), wait="true").json()["result"]["status"] == "completed"
    assert qdrant.content("first") == {1: {"v": "x"}}
    assert put(server, "nowhere", point(1, "x")).status_code == 404
    assert put(server, requests.utils.quote("a b+c%é"), point(1, "y"), wait="true").status_code == 200
    answer = server.post("/ingest/second?task=false", data=json.dumps(point(1, "z")))
    assert answer.json()["result"]["accepted"] == 1, answer.text
    assert server.post("/ingest/nowhere", data=json.dumps(point(1, "z"))).status_code == 404
    assert server.post("/upsert", json={"collectionName": "third", "id": 1, "vector": [1, 0, 0, 0],
                                        "v": "q"}).status_code == 200
    batch = {"ids": [1], "vectors": [[0, 1, 0, 0]], "payloads": [{"v": "a"}]}
    assert server.post("/alioth/ingest", json={"collection_name": "fourth",
                                               "batch": batch}).status_code == 200
    for name, value in (("second", "z"), ("third", "q"), ("fourth", "a")):
        assert wait_until(lambda: qdrant.content(name) == {1: {"v": value}})


def alias(url, name, collection):
    actions = [{"delete_alias": {"alias_name": name}},
               {"create_alias": {"alias_name": name, "collection_name": collection}}]
    answer = requests.post(f"{url}/collections/aliases", json={"actions": actions},
                           timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text


def test_aliases(server, qdrant):
    """Records go to the collection that an alias stands for, however it was switched."""
    three = {"id": 1, "vector": [1, 2, 3], "payload": {"v": 3}}
    for name, size in (("four", 4), ("three", 3)):
        server.put(f"/collections/{name}", json={"vectors": {"size": size, "distance": "Dot"}})
    alias(qdrant.url, "live", "four")
    assert server.get("/collections/live").status_code == 200
    assert put(server, "live", point(1, "by alias"), wait="true").status_code == 200
    assert put(server, "four", point(1, "by name"), wait="true").status_code == 200
    assert qdrant.content("four") == {1: {"v": "by name"}}
    assert server.metrics()["millrace_points_collections"] == 2
    # Through Millrace: at once.
    alias(server.url, "live", "three")
    assert put(server, "live", three, wait="true").status_code == 200
    assert qdrant.content("three") == {1: {"v": 3}}
    # Without an answer what was heard last holds on.
    qdrant.tell(rest_status=500)
    asked = qdrant.told()["gets"]["/aliases"]
    while qdrant.told()["gets"]["/aliases"] == asked:
        assert put(server, "live", three).status_code == 200
    qdrant.tell(rest_status=None)
    # Past Millrace: soon.
    alias(qdrant.url, "live", "four")
    assert wait_until(lambda: put(server, "live", point(2, "late"), wait="true").status_code == 200)
    assert qdrant.content("four") == {1: {"v": "by name"}, 2: {"v": "late"}}
    # And its end, with its collection.
    server.delete("/collections/four")
    assert put(server, "live", point(3, 3)).status_code == 404
    assert server.metrics()["millrace_points_collections"] == 1


def kept_through(server, qdrant, method, change, between=lambda: None):
    """Whether a point that was acknowledged is kept, if it came when the cluster had done the change
    and not yet answered."""
    qdrant.tell(hold_answers=method, fail="UNAVAILABLE")
    known = len(qdrant.told()["rest"])
    there = {"PUT": 200, "DELETE": 404}[method]
    thread = threading.Thread(target=change)
    thread.start()
    assert wait_until(lambda: len(qdrant.told()["rest"]) > known and requests.get(
        f"{qdrant.url}/collections/a", timeout=PATIENCE_S).status_code == there)
    between()
    assert put(server, "a", point(1, "kept")).status_code == 200
    qdrant.tell(hold_answers=None)
    thread.join(PATIENCE_S)
    qdrant.tell(fail=None)
    assert wait_until(lambda: settled(server))
    return qdrant.content("a") == {1: {"v": "kept"}}


def test_a_write_between_creation_and_its_answer(server, qdrant):
    assert kept_through(server, qdrant, "PUT", lambda: server.put("/collections/a", json=FOUR))


def test_a_write_between_a_drop_and_its_answer(server, qdrant):
    server.put("/collections/a", json=FOUR)
    assert kept_through(server, qdrant, "DELETE", lambda: server.delete("/collections/a"),
                        lambda: server.put("/collections/a", json=FOUR))


@pytest.mark.parametrize("status", [403, 429, 500])
def test_what_qdrant_refuses_is_not_missing(server, qdrant, status):
    qdrant.tell(rest_status=status)
    assert put(server, "a", point(1, 1)).status_code == 503
    for answer in (server.post("/data/id", json={"collectionName": "a", "id": 1}),
                   server.get("/all")):
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "engine_unreachable"
        assert f"Qdrant answers {status}" in answer.json()["error"]["message"]


def test_a_read_that_takes_too_long_does_not_refuse_the_others(server, qdrant):
    server.put("/collections/a", json=FOUR)
    qdrant.tell(hold=True)
    assert server.get("/collections/a?timeout=1").status_code == 503
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(server.get("/collections/a").status_code))
               for _ in range(2)]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: qdrant.told()["rest_held"] == 3)  # with the one that was given up
    qdrant.tell(hold=False)
    for thread in threads:
        thread.join(PATIENCE_S)
    assert answers == [200, 200]


def test_answers_on_their_way_are_counted(server_factory, qdrant):
    """--memory-limit 64M: 8 MiB of answers. Two of 3 MiB fit, a third does not."""
    server = server_factory("--points", qdrant.points, "--memory-limit", "64M").start()
    qdrant.tell(pad=3 << 20, hold_tail=True)

    def used():
        return server.metrics()['millrace_memory_used_bytes{kind="answers"}']
    sizes = []
    threads = [threading.Thread(target=lambda: sizes.append(len(server.get("/telemetry").content)))
               for _ in range(2)]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: used() > 2 * (3 << 20) - (256 << 10))
    answer = server.get("/telemetry")
    assert answer.status_code == 503 and answer.headers["Retry-After"]
    assert used() < 8 << 20 and sizes == []
    qdrant.tell(hold_tail=False)
    for thread in threads:
        thread.join(PATIENCE_S)
    assert min(sizes) > 3 << 20 and len(sizes) == 2
    assert wait_until(lambda: used() == 0)
    assert server.get("/telemetry").status_code == 200


def test_ordering_is_passed_on(server, qdrant):
    server.put("/collections/a", json=FOUR)
    for ordering in ("weak", "medium", "strong"):
        assert put(server, "a", point(1, ordering), wait="true", ordering=ordering).status_code == 200
        assert qdrant.told()["ordering"] == ordering
    assert put(server, "a", point(1, 1), ordering="none").status_code == 400


def test_a_poisoned_point_becomes_a_dead_letter_and_is_replayed(server, qdrant):
    server.put("/collections/a", json=FOUR)
    qdrant.tell(poison="bad")
    points = [point(i, "bad" if i == 17 else i) for i in range(40)]
    answer = put(server, "a", *points, wait="true")
    assert answer.status_code == 400 and "poison" in answer.text
    assert wait_until(lambda: settled(server))
    assert qdrant.content("a") == {i: {"v": i} for i in range(40) if i != 17}
    letters = server.get("/dead-letters").json()
    assert [letter["key"] for letter in letters["dead_letters"]] == ["a/17"]
    assert "Qdrant" in letters["dead_letters"][0]["reason"]
    number = letters["dead_letters"][0]["number"]
    qdrant.tell(poison=None)
    answer = server.post(f"/dead-letters/points/{number}/replay", json={})
    assert answer.status_code == 200, answer.text
    assert wait_until(lambda: qdrant.content("a").get(17) == {"v": "bad"})
    assert server.get("/dead-letters").json()["dead_letters"] == []


def test_dead_for_a_while_then_caught_up(server, qdrant):
    server.put("/collections/a", json=FOUR)
    writer = Writer(server, 1)
    writer.start()
    assert wait_until(lambda: writer.acknowledged >= 20)
    qdrant.die()
    assert wait_until(lambda: not part(server)["ready"])
    assert server.get("/readyz").status_code == 503 and part(server)["reachable"] is False
    assert server.metrics()["millrace_qdrant_reachable"] == 0
    assert part(server)["url"] == f"qdrant://127.0.0.1:{qdrant.port}"
    before = writer.acknowledged
    answer = server.get("/collections/a/points/1")
    assert answer.status_code == 503 and "Qdrant" in answer.json()["status"]["error"]
    answer = server.post("/data/id", json={"collectionName": "a", "id": 1})
    assert answer.json()["error"]["code"] == "engine_unreachable"
    assert wait_until(lambda: writer.acknowledged >= before + 20)  # writes go on
    writer.stop()
    qdrant.start()
    assert wait_until(lambda: part(server)["ready"] and settled(server))
    assert not writer.unsure
    assert writer.agrees(qdrant.content("a"))
    assert server.get("/readyz").status_code == 200


@pytest.mark.parametrize("failure", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "CUT"])
def test_refusals_are_tried_again(server, qdrant, failure):
    server.put("/collections/a", json=FOUR)
    qdrant.tell(fail=failure, times=5)
    assert put(server, "a", *[point(i, i) for i in range(20)], wait="true").json()["result"][
        "status"] == "completed"
    assert qdrant.content("a") == {i: {"v": i} for i in range(20)}
    assert server.get("/dead-letters").json()["dead_letters"] == []
    assert wait_until(lambda: server.metrics()["millrace_qdrant_reachable"] == 1)
    metrics, calls = server.metrics(), qdrant.told()["calls"]["Upsert"]
    assert metrics["millrace_qdrant_calls_total"] >= calls > 5
    assert calls > metrics["millrace_qdrant_failed_calls_total"] >= 5
    assert metrics["millrace_qdrant_sent_bytes_total"] > 20 * 4 * 4
    assert 0 < metrics["millrace_qdrant_latency_seconds"] < PATIENCE_S
    assert metrics["millrace_qdrant_connections"] >= 1
    assert metrics["millrace_qdrant_concurrency"] >= 1


def test_millrace_killed_in_mid_batch(server, qdrant):
    """The records above the persisted positions are sent again, in order."""
    server.put("/collections/a", json=FOUR)
    seen = Writer(server, 2)
    for _ in range(3):
        writer = Writer(server, len(seen.model))
        writer.model, writer.unsure = seen.model, seen.unsure
        writer.start()
        assert wait_until(lambda: writer.acknowledged >= 10)
        qdrant.tell(hold=True)  # calls are under way when it dies
        before = writer.acknowledged
        assert wait_until(lambda: writer.acknowledged >= before + 5)
        server.kill()
        writer.stop()
        qdrant.tell(hold=False)
        server.start()
        seen = writer
    assert wait_until(lambda: settled(server))
    assert seen.agrees(qdrant.content("a"))


def test_what_a_filter_deleted_is_not_there_again_after_a_replay(server_factory, qdrant):
    """delete where v=2, then set v=2 of another, then replay: nothing is persisted but what must be."""
    server = server_factory("--points", qdrant.points, "--checkpoint-interval", "1h").start()
    server.put("/collections/a", json=FOUR)
    assert put(server, "a", point(1, 2), point(2, 1), point(3, 3)).status_code == 200
    where = {"filter": {"must": [{"key": "v", "match": {"value": 2}}]}}
    assert server.post("/collections/a/points/delete?wait=true", json=where).status_code == 200
    assert server.post("/collections/a/points/payload?wait=true",
                       json={"payload": {"v": 2}, "points": [2]}).status_code == 200
    assert put(server, "a", point(3, 2), wait="true").status_code == 200
    expected = {2: {"v": 2}, 3: {"v": 2}}
    assert qdrant.content("a") == expected
    server.kill()
    upserts = qdrant.told()["calls"]["Upsert"]
    server.start()
    assert wait_until(lambda: settled(server) and qdrant.told()["calls"]["Upsert"] > upserts)
    assert qdrant.content("a") == expected


def test_down_at_start(server_factory, qdrant):
    server = server_factory("--points", qdrant.points).start()
    server.put("/collections/a", json=FOUR)
    qdrant.die()
    server.kill()  # no checkpoint has the collection
    server.spawn()

    def says_so():
        with contextlib.suppress(requests.RequestException):
            answer = server.get("/readyz")
            return answer.status_code == 503 and "does not answer" in answer.text
    assert wait_until(says_so)
    # What it knows of the collection is enough to take writes.
    assert wait_until(lambda: put(server, "a", point(1, "late")).status_code == 200)
    assert put(server, "unknown", point(1, 1)).status_code == 503
    assert server.put("/collections/b", json=FOUR).status_code == 503
    server.kill()  # and a collection is known after that, too
    server.spawn()
    assert wait_until(says_so)
    qdrant.start()
    assert wait_until(lambda: qdrant.content("a") == {1: {"v": "late"}})
    assert wait_until(lambda: server.get("/readyz").status_code == 200)


def test_pinned_journal_answers_429(server_factory, qdrant):
    server = server_factory("--points", qdrant.points, "--pin-max", "1M", "--segment-size", "256K",
                            "--checkpoint-interval", "1s").start()
    server.put("/collections/a", json=FOUR)
    qdrant.tell(hold=True)
    large = [{**point(i, i), "payload": {"v": "x" * 50000}} for i in range(8)]

    def refused():
        answer = put(server, "a", *large)
        assert answer.status_code in (200, 429)
        return answer.status_code == 429
    assert wait_until(refused)
    assert server.get("/user_profiles/nobody?time_range=2022-03-22T12:15:00.000_"
                      "2022-03-22T12:30:00.000").status_code != 429
    # Health has no answer either.
    assert wait_until(lambda: part(server)["reachable"] is False)
    qdrant.tell(hold=False)
    assert wait_until(lambda: put(server, "a", point(99, "again")).status_code == 200)
    assert wait_until(lambda: qdrant.content("a").get(99) == {"v": "again"})


def test_key_and_environment(server_factory, tmp_path):
    """QDRANT_ADDR as existing deployments set it; the cluster's key is not the client's."""
    key = tmp_path / "key"
    key.write_text("cluster-secret\n")
    fake = Qdrant(tmp_path / "with-key")
    fake.process = subprocess.Popen(
        [sys.executable, SERVER, "--port", str(fake.port), "--http-port", str(fake.rest),
         "--api-key", "cluster-secret"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert fake.process.stdout.readline()
    try:
        server = server_factory("--api-key", "ours", env={
            "QDRANT_ADDR": f"127.0.0.1:{fake.port}?rest={fake.rest}&api_key_file={key}"}).start()
        ours = {"api-key": "ours"}
        assert server.put("/collections/a", json=FOUR, headers=ours).status_code == 200
        assert server.get("/collections/a").status_code == 401
        answer = server.put("/collections/a/points?wait=true", json={"points": [point(1, 1)]},
                            headers=ours)
        assert answer.json()["result"]["status"] == "completed"
        assert fake.told()["rest_keys"] == ["cluster-secret"]
        assert "cluster-secret" not in server.get("/status", headers=ours).text
        shown = millrace("status", "--metrics-listen", f"127.0.0.1:{server.metrics_port}")
        assert f"qdrant://127.0.0.1:{fake.port} reachable" in shown.stdout
        cluster = server.get("/status", headers=ours).json()["qdrant"]
        assert cluster["reachable"] is True and cluster["calls"] > 0
    finally:
        fake.close()


def test_a_data_directory_keeps_to_one_kind(server_factory, qdrant, tmp_path):
    server = server_factory("--points", qdrant.points).start()
    server.put("/collections/a", json=FOUR)
    put(server, "a", point(1, 1), wait="true")
    server.stop()
    assert millrace("check", "--data-dir", str(server.directory)).returncode == 0
    refused = subprocess.run([BINARY, "serve", "--data-dir", str(server.directory), "--points",
                              "local:"], capture_output=True, text=True, timeout=PATIENCE_S)
    assert refused.returncode != 0 and "give --points again" in refused.stderr
    local = server_factory(name="local").start()
    local.stop()
    refused = subprocess.run([*local.command(), "--points", qdrant.points], capture_output=True,
                             text=True, timeout=PATIENCE_S)
    assert refused.returncode != 0 and "keeps its points itself" in refused.stderr


@pytest.mark.parametrize("url,why", [
    ("redis://host", "neither local: nor qdrant://"), ("qdrant://", "host"),
    ("qdrant://a,b", "more than one host"), ("qdrant://a?x=1", "a parameter x"),
    ("qdrant://a?rest=0", "REST"), ("qdrant://u:p@a", "user name"), ("qdrant://a/b", "path"),
    ("qdrant://a?api_key_file=/nowhere/key", "/nowhere/key")])
def test_urls_that_are_none(tmp_path, url, why):
    done = millrace("serve", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0",
                    "--metrics-listen", "127.0.0.1:0", "--points", url)
    assert done.returncode != 0 and why in done.stderr
