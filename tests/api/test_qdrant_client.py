# SPDX-License-Identifier: Apache-2.0
"""The official Python client, unchanged, against the real binary."""
import uuid

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

DISTANCES = [models.Distance.COSINE, models.Distance.DOT, models.Distance.EUCLID,
             models.Distance.MANHATTAN]


@pytest.fixture(scope="module")
def client(server):
    client = QdrantClient(url=server.url, timeout=60, check_compatibility=True)
    yield client
    client.close()


@pytest.fixture
def name(request):
    return "".join(c if c.isalnum() else "_" for c in request.node.name)[:100]


def make(client, name, size=2, distance=models.Distance.DOT):
    client.create_collection(name, vectors_config=models.VectorParams(size=size,
                                                                      distance=distance))


def put(client, name, ids, vector=lambda i: [1.0, 2.0], payload=lambda i: None):
    client.upsert(name, wait=True, points=[
        models.PointStruct(id=i, vector=vector(i), payload=payload(i)) for i in ids])


def expected(distance, vectors, query):
    v, q = vectors.astype(np.float64), query.astype(np.float64)
    if distance == models.Distance.COSINE:
        scores = (v @ q) / np.linalg.norm(v, axis=1) / np.linalg.norm(q)
    elif distance == models.Distance.DOT:
        scores = v @ q
    elif distance == models.Distance.EUCLID:
        scores = np.linalg.norm(v - q, axis=1)
    else:
        scores = np.abs(v - q).sum(axis=1)
    descending = distance in (models.Distance.COSINE, models.Distance.DOT)
    return np.argsort(-scores if descending else scores, kind="stable"), scores


@pytest.mark.parametrize("distance", DISTANCES)
def test_search_equals_numpy(client, name, distance):
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(300, 33)).astype(np.float32)
    make(client, name, 33, distance)
    client.upsert(name, wait=True, points=models.Batch(
        ids=list(range(300)), vectors=vectors.tolist(), payloads=[{"n": i} for i in range(300)]))
    for query in rng.normal(size=(5, 33)).astype(np.float32):
        order, scores = expected(distance, vectors, query)
        hits = client.query_points(name, query=query.tolist(), limit=20, with_payload=True).points
        assert [h.id for h in hits] == order[:20].tolist()
        assert [h.payload["n"] for h in hits] == order[:20].tolist()
        np.testing.assert_allclose([h.score for h in hits], scores[order[:20]], rtol=1e-4,
                                   atol=1e-5)


def test_score_threshold_and_offset(client, name):
    make(client, name)
    put(client, name, range(10), vector=lambda i: [float(i), 0.0])
    hits = client.query_points(name, query=[1.0, 0.0], limit=10, score_threshold=6.5).points
    assert [h.id for h in hits] == [9, 8, 7]
    hits = client.query_points(name, query=[1.0, 0.0], limit=3, offset=2).points
    assert [h.id for h in hits] == [7, 6, 5]


def test_collections_come_and_go(client, name):
    assert not client.collection_exists(name)
    make(client, name, 4, models.Distance.COSINE)
    assert client.collection_exists(name)
    assert name in [c.name for c in client.get_collections().collections]
    info = client.get_collection(name)
    assert info.status == models.CollectionStatus.GREEN
    assert info.points_count == 0
    assert info.config.params.vectors.size == 4
    assert info.config.params.vectors.distance == models.Distance.COSINE
    with pytest.raises(UnexpectedResponse) as error:
        make(client, name, 4, models.Distance.COSINE)
    assert error.value.status_code == 409
    assert client.delete_collection(name)
    assert not client.collection_exists(name)
    with pytest.raises(UnexpectedResponse) as error:
        client.get_collection(name)
    assert error.value.status_code == 404


def test_invariant_8_a_collection_created_again_is_empty(client, name):
    for generation in range(3):
        make(client, name)
        assert client.count(name).count == 0
        put(client, name, range(5), payload=lambda i: {"generation": generation})
        assert client.retrieve(name, [3])[0].payload == {"generation": generation}
        client.delete_collection(name)


def test_integer_and_uuid_ids(client, name):
    make(client, name)
    u = str(uuid.UUID("936DA01F-9ABD-4D9D-80C7-02AF85C822A8"))
    ids = [0, 1, 2**64 - 1, u]
    put(client, name, ids, payload=lambda i: {"id": str(i)})
    assert {str(r.id): r.payload["id"] for r in client.retrieve(name, ids)} == {
        str(i): str(i) for i in ids}
    # the same id in another of its forms is the same point
    put(client, name, [u.replace("-", "").upper()], vector=lambda i: [3.0, 4.0])
    assert client.count(name).count == 4
    assert client.retrieve(name, [u], with_vectors=True)[0].vector == [3.0, 4.0]


def test_named_vectors(client, name):
    client.create_collection(name, vectors_config={
        "image": models.VectorParams(size=3, distance=models.Distance.DOT),
        "text": models.VectorParams(size=2, distance=models.Distance.EUCLID)})
    client.upsert(name, wait=True, points=[
        models.PointStruct(id=1, vector={"image": [1.0, 0.0, 0.0], "text": [0.0, 0.0]}),
        models.PointStruct(id=2, vector={"image": [0.0, 1.0, 0.0]}),
        models.PointStruct(id=3, vector={"text": [3.0, 4.0]})])
    hits = client.query_points(name, query=[1.0, 0.5, 0.0], using="image").points
    assert [h.id for h in hits] == [1, 2]
    hits = client.query_points(name, query=[3.0, 4.0], using="text").points
    assert [(h.id, round(h.score, 5)) for h in hits] == [(3, 0.0), (1, 5.0)]
    found = {r.id: r.vector for r in client.retrieve(name, [1, 2, 3], with_vectors=True)}
    assert found == {1: {"image": [1.0, 0.0, 0.0], "text": [0.0, 0.0]},
                     2: {"image": [0.0, 1.0, 0.0]}, 3: {"text": [3.0, 4.0]}}
    assert client.retrieve(name, [1], with_vectors=["text"])[0].vector == {"text": [0.0, 0.0]}


NAMED = {"a": models.VectorParams(size=2, distance=models.Distance.DOT),
         "b": models.VectorParams(size=3, distance=models.Distance.EUCLID)}


def look_at_named(client, name):
    """What a collection says of points some of which lack some of its vectors."""
    def hits(using, query, **options):
        return [(h.id, round(h.score, 4), h.vector) for h in client.query_points(
            name, query=query, using=using, with_vectors=True, **options).points]

    points = client.scroll(name, limit=100, with_vectors=True)[0]
    return {
        "points": [(p.id, p.vector, p.payload) for p in points],
        "count": client.count(name).count,
        "only a": [(p.id, p.vector) for p in client.retrieve(name, range(20), with_vectors=["a"])],
        "near by a": hits("a", [1.0, 0.5], limit=100),
        "worst by a": hits("a", [-1.0, -0.5], limit=2),
        "near by b": hits("b", [1.0, 0.0, 0.0], limit=100),
        "like point 2": hits("a", 2, limit=100),
    }


def test_points_without_some_vectors_are_as_in_qdrants_local_mode(client, name):
    """Each step is done here and by the client's own engine; an absent vector is not one of zeros."""
    engines = [client, QdrantClient(":memory:")]
    steps = [
        [models.PointStruct(id=1, vector={}, payload={"n": 1}),
         models.PointStruct(id=2, vector={"a": [1.0, 2.0]}),
         models.PointStruct(id=3, vector={"b": [1.0, 2.0, 3.0]}),
         models.PointStruct(id=4, vector={"a": [0.0, 0.0], "b": [0.0, 0.0, 0.0]})],
        models.Batch(ids=[10, 11, 12], vectors={"b": [[1.0, 0.0, i] for i in (1.0, 2.0, 4.0)]}),
        models.Batch(ids=[13], vectors={}, payloads=[{"n": 13}]),
        # a newer version has what it says, and nothing of the older one
        [models.PointStruct(id=4, vector={"b": [1.0, 1.0, 1.0]}),
         models.PointStruct(id=10, vector={"a": [3.0, 4.0]}),
         models.PointStruct(id=11, vector={}),
         models.PointStruct(id=13, vector={"a": [5.0, 6.0], "b": [5.0, 6.0, 7.0]})],
    ]
    for engine in engines:
        engine.create_collection(name, vectors_config=NAMED)
    for points in steps:
        for engine in engines:
            engine.upsert(name, wait=True, points=points)
        ours, theirs = (look_at_named(engine, name) for engine in engines)
        assert ours == theirs
    assert [h[0] for h in ours["near by a"]] == [13, 10, 2]
    assert [h[0] for h in ours["like point 2"]] == [13, 10]


@pytest.mark.parametrize("vector,status", [
    ({"a": [1.0]}, 400), ({"a": []}, 400), ({"a": None}, 400), ({"c": [1.0, 2.0]}, 400),
    ([1.0, 2.0], 400), (None, 400)])
def test_named_vectors_that_are_refused(server, client, name, vector, status):
    client.create_collection(name, vectors_config=NAMED)
    answer = server.put(f"/collections/{name}/points", json={
        "points": [{"id": 1, "vector": {}}, {"id": 2, "vector": vector}]})
    assert answer.status_code == status, answer.text
    assert client.count(name).count == 0


def test_a_point_that_lacks_the_vector_is_no_query(server, client, name):
    client.create_collection(name, vectors_config=NAMED)
    client.upsert(name, wait=True, points=[models.PointStruct(id=1, vector={"a": [1.0, 2.0]})])
    answer = server.post(f"/collections/{name}/points/query", json={"query": 1, "using": "b"})
    assert answer.status_code == 404, answer.text


def test_cosine_vectors_come_back_normalised(client, name):
    make(client, name, 2, models.Distance.COSINE)
    put(client, name, [1, 2], vector=lambda i: [3.0, 4.0] if i == 1 else [0.0, 0.0])
    found = {r.id: r.vector for r in client.retrieve(name, [1, 2], with_vectors=True)}
    np.testing.assert_allclose(found[1], [0.6, 0.8], rtol=1e-6)
    assert found[2] == [0.0, 0.0]


PAYLOAD = {"text": "żółw \"quoted\" \\ \n \u0001 🐢", "int": -7, "big": 2**63 - 1, "float": 1.5,
           "whole": 2.0, "true": True, "null": None, "list": [1, [2, {"a": []}]],
           "nested": {"a": {"b": {"c": 1e-300}}}, "": "empty key"}


def test_payload_comes_back_as_it_was(client, name):
    make(client, name)
    put(client, name, [1, 2], payload=lambda i: PAYLOAD if i == 1 else None)
    one, two = client.retrieve(name, [1, 2])
    assert one.payload == PAYLOAD
    assert isinstance(one.payload["whole"], float)
    assert not two.payload
    only = client.retrieve(name, [1], with_payload=["int", "nested"])[0].payload
    assert only == {"int": -7, "nested": PAYLOAD["nested"]}
    without = models.PayloadSelectorExclude(exclude=[k for k in PAYLOAD if k not in ("int", "")])
    left = client.retrieve(name, [1], with_payload=without)[0].payload
    assert left["int"] == -7 and set(left) <= {"int", ""}
    assert not client.retrieve(name, [1], with_payload=False)[0].payload


def test_upsert_replaces_the_whole_point(client, name):
    make(client, name, 1)
    for version in range(50):
        put(client, name, [7], vector=lambda i: [float(version)],
            payload=lambda i: {f"v{version}": version})
    point = client.retrieve(name, [7], with_vectors=True)[0]
    assert point.payload == {"v49": 49} and point.vector == [49.0]
    assert client.count(name).count == 1
    assert len(client.scroll(name, limit=100)[0]) == 1
    assert [h.id for h in client.query_points(name, query=[1.0]).points] == [7]


def test_one_request_may_hold_an_id_twice(client, name):
    make(client, name, 1)
    client.upsert(name, wait=True, points=[
        models.PointStruct(id=1, vector=[1.0]), models.PointStruct(id=1, vector=[2.0])])
    assert client.retrieve(name, [1], with_vectors=True)[0].vector == [2.0]
    assert client.count(name).count == 1


def test_delete_by_id(client, name):
    make(client, name, 1)
    put(client, name, range(100), vector=lambda i: [float(i)])
    client.delete(name, points_selector=models.PointIdsList(
        points=list(range(0, 100, 2)) + [999]), wait=True)
    assert client.count(name).count == 50
    assert [r.id for r in client.retrieve(name, [0, 1, 2])] == [1]
    assert [h.id for h in client.query_points(name, query=[1.0], limit=3).points] == [99, 97, 95]
    put(client, name, [98], vector=lambda i: [500.0])
    assert client.query_points(name, query=[1.0], limit=1).points[0].id == 98


def test_scroll_gives_every_id_once_in_order(client, name):
    make(client, name)
    ids = list(range(1, 400, 3)) + [str(uuid.UUID(int=i * 2**100 + 5)) for i in range(1, 50)]
    put(client, name, reversed(ids))
    seen, offset = [], None
    while True:
        page, offset = client.scroll(name, limit=17, offset=offset)
        seen += [p.id for p in page]
        if offset is None:
            break
    assert seen == ids


def test_upload_in_batches(client, name):
    make(client, name, 16, models.Distance.COSINE)
    rng = np.random.default_rng(3)
    client.upload_collection(name, vectors=rng.normal(size=(3000, 16)), ids=range(3000),
                             payload=[{"i": i} for i in range(3000)], batch_size=256, wait=True)
    assert client.count(name, exact=True).count == 3000
    assert client.get_collection(name).points_count == 3000


def test_search_and_query_in_their_forms(server, client, name):
    make(client, name)
    put(client, name, range(5), vector=lambda i: [float(i), 1.0], payload=lambda i: {"i": i})
    answer = server.post(f"/collections/{name}/points/search",
                         json={"vector": [1.0, 0.0], "limit": 2, "with_payload": True})
    assert answer.status_code == 200, answer.text
    assert [(h["id"], h["payload"]) for h in answer.json()["result"]] == [(4, {"i": 4}),
                                                                          (3, {"i": 3})]
    batch = client.query_batch_points(name, requests=[
        models.QueryRequest(query=[1.0, 0.0], limit=1),
        models.QueryRequest(query=[-1.0, 0.0], limit=1)])
    assert [b.points[0].id for b in batch] == [4, 0]
    # by the id of a point: the point itself is left out
    assert [h.id for h in client.query_points(name, query=3, limit=2).points] == [4, 2]
