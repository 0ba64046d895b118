# SPDX-License-Identifier: Apache-2.0
"""Many processes for one flow of points: APIs that write a journal of several partitions on Kafka,
workers that divide it and send to a Qdrant. Whatever dies, freezes or comes to them, each point ends
as the last acknowledged write left it, and what was written before a drop is not in the collection
made after it."""
import concurrent.futures
import contextlib
import itertools
import json
import signal

import pytest
import requests
from qdrant_client import QdrantClient, models

from conftest import PATIENCE_S, TINY, wait_until
from fleet import Fleet, answers
from letters import at, by_pages, counted, listed, tool
from qdrant import FOUR, Writer, point

LETTERS_MAX = 50 if TINY else 10000
PARTITIONS = 4


@pytest.fixture
def fleet(broker, qdrant, unique, tmp_path):
    fleet = Fleet(tmp_path, f"kafka://{broker.servers}/?topic-prefix={unique}"
                  f"&partitions={PARTITIONS}&session-timeout=2000", "--points", qdrant.points)
    yield fleet
    fleet.stop()


def partitions(member):
    try:
        return member.metrics().get('millrace_consumer_partitions{consumer="points"}', 0)
    except requests.RequestException:
        return 0


def orphaned(fleet):
    return sum(member.metrics().get("millrace_points_orphaned_records_total", 0)
               for member in fleet.members.values())


def try_again(worker, times=3):
    """Waits for so many more tries of a worker whose Qdrant refuses."""
    def retries():
        return worker.metrics().get('millrace_consumer_retries_total{consumer="points"}', 0)
    wanted = retries() + times
    assert wait_until(lambda: retries() >= wanted)


def writes(qdrant):
    calls = qdrant.told()["calls"]
    return calls.get("Upsert", 0) + calls.get("Delete", 0)


def put(server, *points, **query):
    return server.put("/collections/a/points", params=query, json={"points": list(points)})


def create(server):
    answer = server.put("/collections/a", json=FOUR)
    assert answer.status_code == 200, answer.text


@contextlib.contextmanager
def in_background(call):
    """A call that is under way; it has ended behind the block."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        yield pool.submit(call)


class Either:
    """One API after the other."""

    def __init__(self, *apis):
        self.turns = itertools.cycle(apis)

    def request(self, *arguments, **options):
        return next(self.turns).request(*arguments, **options)


class Load:
    """Writes at random by either API; check() compares what Qdrant has with what was acknowledged."""

    def __init__(self, qdrant, *apis):
        self.qdrant, self.writer = qdrant, Writer(Either(*apis), seed=1)

    def __enter__(self):
        self.writer.start()
        return self

    def __exit__(self, *_):
        self.writer.stop()

    def progress(self, n=15):
        wanted = self.writer.acknowledged + n
        assert wait_until(lambda: self.writer.acknowledged >= wanted)

    def check(self):
        assert self.writer.model
        assert wait_until(lambda: self.writer.agrees(self.qdrant.content("a")))


def test_another_qdrant_is_refused(fleet, qdrant):
    """By its address, as there is nothing else that it is known by."""
    one = fleet.start("api", "api")
    fleet.ready()
    create(one)
    assert put(one, point(1, 1)).status_code == 200
    right = fleet.stores[-1]
    fleet.stores[-1] = right.replace("127.0.0.1", "localhost")
    for roles in ("worker", "api"):
        said = fleet.refused(roles)
        assert f"belongs to the store qdrant://127.0.0.1:{qdrant.port}," in said, said
        assert f"is another: qdrant://localhost:{qdrant.port}." in said, said
    fleet.stores[-1] = right
    fleet.start("worker", "worker")
    fleet.ready()
    assert wait_until(lambda: 1 in qdrant.content("a"))


def test_points_go_through_any_api_and_worker(fleet, qdrant):
    one, two = fleet.start("api-1", "api"), fleet.start("api-2", "api")
    fleet.start("worker-1", "worker"), fleet.start("worker-2", "worker")
    fleet.ready()
    first, second = QdrantClient(one.url, timeout=PATIENCE_S), QdrantClient(two.url, timeout=PATIENCE_S)
    assert first.create_collection("a", {
        "text": models.VectorParams(size=3, distance=models.Distance.DOT),
        "image": models.VectorParams(size=2, distance=models.Distance.COSINE)})
    done = second.upsert("a", wait=True, points=[
        models.PointStruct(id=i, vector={"text": [i, 2, 3]}, payload={"v": i}) for i in range(40)])
    assert done.status == models.UpdateStatus.COMPLETED
    assert qdrant.content("a") == {i: {"v": i} for i in range(40)}
    done = first.delete("a", models.PointIdsList(points=[1, 2, 3]), wait=True)
    assert done.status == models.UpdateStatus.COMPLETED
    assert {p.id for p in second.scroll("a", limit=100)[0]} == {0, *range(4, 40)}
    assert second.retrieve("a", [7], with_vectors=True)[0].vector == {"text": [7, 2, 3]}
    assert first.delete_collection("a")
    assert wait_until(lambda: two.put("/collections/a/points", json={"points": [point(1, 1)]})
                      .status_code == 404)


def test_workers_come_go_and_die(fleet, qdrant):
    """A rebalance under load, a worker killed in mid-batch, and a Qdrant that dies and comes back."""
    one, two = fleet.start("api-1", "api"), fleet.start("api-2", "api")
    first = fleet.start("worker-1", "worker")
    fleet.ready()
    create(one)
    with Load(qdrant, one, two) as load:
        load.progress()
        second = fleet.start("worker-2", "worker")
        assert wait_until(lambda: partitions(second) == PARTITIONS / 2)
        load.progress()
    load.check()
    qdrant.tell(fail="UNAVAILABLE")
    ids = range(100, 140)
    assert put(one, *[point(i, "in its hands") for i in ids]).status_code == 200
    try_again(first)
    first.kill()
    del fleet.members["worker-1"]
    qdrant.tell(fail=None)
    assert wait_until(lambda: set(ids) <= set(qdrant.content("a")))
    qdrant.die()
    assert put(two, *[point(i, "kept") for i in ids]).status_code == 200
    assert wait_until(lambda: answers(second, 503))
    qdrant.start()
    assert wait_until(lambda: all(qdrant.content("a")[i] == {"v": "kept"} for i in ids))
    fleet.ready()


def test_who_wakes_when_others_have_its_partitions_sends_nothing(fleet, qdrant):
    """A worker stopped with records in its hands, for longer than its session lasts."""
    api, sleeper = fleet.start("api", "api"), fleet.start("sleeper", "worker")
    fleet.ready()
    create(api)
    qdrant.tell(fail="UNAVAILABLE")
    for i in range(16):  # a call each, as they cannot go together
        assert put(api, point(i, "old")).status_code == 200
        assert api.post("/collections/a/points/delete", json={"points": [100 + i]}).status_code == 200
    try_again(sleeper)
    calls = writes(qdrant)
    qdrant.tell(fail=None, delay_s=0.4)
    assert wait_until(lambda: writes(qdrant) >= calls + 4)
    sleeper.process.send_signal(signal.SIGSTOP)
    qdrant.tell(delay_s=0)
    heir = fleet.start("heir", "worker")
    assert wait_until(lambda: partitions(heir) == PARTITIONS)
    answer = put(api, *[point(i, "new") for i in range(16)], wait="true")
    assert answer.json()["result"]["status"] == "completed"
    calls = writes(qdrant)
    sleeper.process.send_signal(signal.SIGCONT)
    assert wait_until(lambda: partitions(sleeper) == PARTITIONS / 2)
    assert qdrant.content("a") == {i: {"v": "new"} for i in range(16)}
    assert writes(qdrant) == calls


def test_changes_come_behind_what_any_api_has_taken(fleet, qdrant):
    """A delete by filter, a drop and a create: what was acknowledged before, by whomever, is applied
    before, and nothing of it comes after. Those who wait are answered by the workers' positions."""
    one, two = fleet.start("api-1", "api,worker"), fleet.start("api-2", "api")
    fleet.ready()
    create(one)
    qdrant.tell(fail="UNAVAILABLE")
    answer = put(one, *[point(i, "kept" if i % 2 else "gone") for i in range(20)], wait="true", timeout=1)
    assert answer.json()["result"]["status"] == "acknowledged"
    match = {"filter": {"must": [{"key": "v", "match": {"value": "gone"}}]}}
    with in_background(lambda: two.post("/collections/a/points/delete", json=match)) as deleted:
        try_again(one)
        qdrant.tell(fail=None)
    assert deleted.result().status_code == 200
    assert qdrant.content("a") == {i: {"v": "kept"} for i in range(1, 20, 2)}

    qdrant.tell(fail="UNAVAILABLE")
    assert put(one, point(1, "before the drop")).status_code == 200
    with in_background(lambda: [two.delete("/collections/a"), two.put("/collections/a", json=FOUR)]) as made:
        try_again(one)
        qdrant.tell(fail=None)
    assert [answer.status_code for answer in made.result()] == [200, 200]
    assert put(one, point(2, "after"), wait="true").json()["result"]["status"] == "completed"
    assert qdrant.content("a") == {2: {"v": "after"}}


def test_what_was_written_to_a_collection_that_is_gone_is_dropped(fleet, qdrant):
    one, two = fleet.start("api-1", "api,worker"), fleet.start("api-2", "api")
    fleet.ready()
    create(one)
    qdrant.tell(fail="UNAVAILABLE")
    assert put(one, point(1, "of no use")).status_code == 200
    requests.delete(f"{qdrant.url}/collections/a", timeout=PATIENCE_S)  # by somebody else
    qdrant.tell(fail=None)
    assert wait_until(lambda: orphaned(fleet) == 1)
    create(two)
    assert put(two, point(2, "new"), wait="true").json()["result"]["status"] == "completed"
    assert qdrant.content("a") == {2: {"v": "new"}}
    assert one.get("/dead-letters").json()["dead_letters"] == []


def test_a_rejected_record_is_mended_by_any_api(fleet, qdrant):
    one, two = fleet.start("api-1", "api,worker"), fleet.start("api-2", "api")
    fleet.ready()
    create(one)
    qdrant.tell(poison="bad")
    assert put(one, *[point(i, "bad" if i in (3, 5, 9) else "good") for i in range(10)],
               wait="true").status_code == 200
    assert set(qdrant.content("a")) == {0, 1, 2, 4, 6, 7, 8}
    letters = two.get("/dead-letters", params={"kind": "points"}).json()["dead_letters"]
    assert {letter["key"] for letter in letters} == {"a/3", "a/5", "a/9"}
    assert {letter["changed"] for letter in letters} == {None}, "nobody knows"
    assert by_pages(one, 1) == letters
    assert wait_until(lambda: counted(one, "points") == counted(two, "points") == 3)
    assert "poison" in letters[0]["reason"]
    paths = {letter["key"]: f"/dead-letters/points/{letter['number']}" for letter in letters}
    record = two.get(paths["a/3"]).json()["record"]
    assert record == {"id": 3, "vector": [1, 2, 3, 3], "payload": {"v": "bad"}}
    assert two.post(paths["a/3"] + "/replay").status_code == 409
    mended = {"record": {**record, "payload": {"v": "mended"}}, "force": True}
    assert two.post(paths["a/3"] + "/replay", json=mended).status_code == 200
    assert qdrant.content("a")[3] == {"v": "mended"}
    assert one.delete(paths["a/5"]).status_code == 204
    number = paths["a/9"].rsplit("/", 1)[1]
    assert json.loads(tool(fleet, "list", "--json"))["key"] == "a/9"
    record = json.loads(tool(fleet, "show", number))
    assert "known to nobody" in tool(fleet, "replay", number, status=1)
    mended = json.dumps({**record, "payload": {"v": "mended"}})
    assert "written again" in tool(fleet, "edit", number, "--force", given=mended)
    assert wait_until(lambda: qdrant.content("a").get(9) == {"v": "mended"})
    assert one.get("/dead-letters").json()["dead_letters"] == []
    assert one.get(paths["a/3"]).status_code == 404


def test_letters_that_lie_far_apart_are_on_one_page(fleet, broker, qdrant):
    """With many that are gone between them, and with what is nobody's."""
    from confluent_kafka import Producer
    api = fleet.start("api", "api")
    fleet.start("worker", "worker")
    fleet.ready()
    create(api)
    qdrant.tell(poison="bad")
    topic = fleet.journal.split("topic-prefix=")[1].split("&")[0] + "points-dead-letters"
    producer = Producer({"bootstrap.servers": broker.servers, "log_level": 0})
    for i in range(3):
        assert put(api, point(i, "bad")).status_code == 200
        assert wait_until(lambda i=i: len(listed(api, "points")) == i + 1)
        for gone in range(200):
            producer.produce(topic, b"strange" if gone % 2 else None, key=bytes([gone % 256] * (7 + gone % 2)))
        assert producer.flush(PATIENCE_S) == 0
    letters = listed(api, "points")
    assert {letter["key"] for letter in letters} == {"a/0", "a/1", "a/2"}
    assert by_pages(api, 2) == letters
    assert api.delete(at(letters[1])).status_code == 204
    assert listed(api, "points") == [letters[0], letters[2]]


def test_the_topic_of_dead_letters_is_made_anew(fleet, broker, qdrant):
    """Somebody removes it: what it had is gone, and the rest goes on."""
    from confluent_kafka.admin import AdminClient
    api = fleet.start("api", "api")
    fleet.start("worker", "worker")
    fleet.ready()
    create(api)
    qdrant.tell(poison="bad")
    assert put(api, *[point(i, "bad") for i in range(5)]).status_code == 200
    assert wait_until(lambda: len(listed(api, "points")) == 5)
    topic = fleet.journal.split("topic-prefix=")[1].split("&")[0] + "points-dead-letters"
    admin = AdminClient({"bootstrap.servers": broker.servers, "log_level": 0})
    admin.delete_topics([topic])[topic].result(PATIENCE_S)
    assert wait_until(lambda: api.get("/dead-letters").json().get("dead_letters") == [])
    assert put(api, point(7, "bad"), wait="true").status_code == 200
    assert wait_until(lambda: [letter["key"] for letter in listed(api, "points")] == ["a/7"])
    [letter] = listed(api, "points")
    assert api.get(at(letter)).json()["record"]["id"] == 7
    assert api.delete(at(letter)).status_code == 204
    assert listed(api, "points") == []


@pytest.mark.skipif(not TINY, reason="there are too many letters of another build")
def test_dead_letters_have_a_bound(fleet, qdrant):
    """Who would have to keep more waits, and says so; it goes on when there is room, and nothing is lost."""
    api, worker = fleet.start("api", "api"), fleet.start("worker", "worker")
    fleet.ready()
    create(api)
    qdrant.tell(poison="bad")
    n = LETTERS_MAX + 5
    assert put(api, *[point(i, "bad") for i in range(n)]).status_code == 200
    assert put(api, *[point(n + i, "good") for i in range(20)]).status_code == 200

    def reason():
        return requests.get(worker.metrics_url + "/readyz", timeout=PATIENCE_S).json()["parts"]["points"].get(
            "reason", "")

    assert wait_until(lambda: "as many dead letters as may be kept" in reason())
    letters = by_pages(api, 20)
    assert len(letters) == LETTERS_MAX
    for letter in letters[:5]:
        assert api.delete(at(letter)).status_code == 204
    assert wait_until(lambda: set(qdrant.content("a")) == set(range(n, n + 20)))
    assert wait_until(lambda: len(listed(api, "points", limit=1000)) == LETTERS_MAX)
    assert wait_until(lambda: answers(worker, 200)), reason()
    keys = {letter["key"] for letter in letters[:5] + by_pages(api, 20)}
    assert keys == {f"a/{i}" for i in range(n)}


def test_every_api_of_points_and_what_a_process_shows(fleet, qdrant):
    api, worker = fleet.start("api", "api"), fleet.start("worker", "worker")
    fleet.ready()
    assert api.post("/all", json={"collectionName": "a", "vectorSize": 4,
                                  "distance": "Dot"}).json()["result"] is True
    assert api.post("/upsert", json={"collectionName": "a", "id": 1, "vector": [1, 0, 0, 0],
                                     "v": "upsert"}).json()["result"]["status"] == "completed"
    batch = {"ids": [2], "vectors": [[0, 1, 0, 0]], "payloads": [{"v": "alioth"}]}
    answer = api.post("/alioth/ingest", json={"collection_name": "a", "batch": batch})
    assert answer.status_code == 200 and answer.json()["task_id"] is None
    lines = "".join(f'{{"id": {i}, "vector": [1, 2, 3, 4]}}\n' for i in range(3, 9)) + "{}\n"
    answer = api.post("/ingest/a", data=lines, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status_code == 200
    assert (answer.json()["result"]["accepted"], answer.json()["result"]["rejected"]) == (6, 1)
    assert wait_until(lambda: set(qdrant.content("a")) == set(range(1, 9)))
    parts = requests.get(worker.metrics_url + "/readyz", timeout=PATIENCE_S).json()["parts"]
    assert set(parts) == {"server", "journal-points", "points"} and parts["points"]["reachable"]
    assert set(api.get("/readyz").json()["parts"]) == {"server", "http", "journal-points", "points"}
    assert api.get("/status").json()["qdrant"]["reachable"]
    assert api.post("/user_tags", json={}).status_code == 404
    assert api.delete("/collection/delete", json={"collectionName": "a"}).status_code == 200
