# SPDX-License-Identifier: Apache-2.0
"""The contract's section "Events", line by line: every route, every answer, every error."""
import concurrent.futures
import copy
import gzip
import http.client
import json
import pathlib
import time
import urllib.parse
import uuid

import pytest

from conftest import wait_until

RANGE = "2022-03-22T12:15:00_2022-03-22T12:25:00"
ALL = "0000-01-01T00:00:00_9999-12-31T23:59:59.999"
# A tag shows in profiles within 10 s by the contract; here it takes milliseconds.
VISIBLE_S = 10


def a_tag(**changes):
    tag = {"time": "2022-03-22T12:15:00.000Z", "cookie": "c", "country": "PL", "device": "PC",
           "action": "VIEW", "origin": "o",
           "product_info": {"product_id": "p", "brand_id": "b", "category_id": "k", "price": 100}}
    for name, value in changes.items():
        if name in tag["product_info"]:
            tag["product_info"][name] = value
        else:
            tag[name] = value
    return tag


@pytest.fixture
def cookie():
    return "cookie-" + uuid.uuid4().hex


def send(server, *tags):
    for tag in tags:
        answer = server.post("/user_tags", data=json.dumps(tag, ensure_ascii=False).encode())
        assert (answer.status_code, answer.content) == (204, b""), answer.text


def send_batch(server, tags):
    answer = server.post("/user_tags/batch", data="\n".join(map(json.dumps, tags)).encode())
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"accepted": len(tags), "rejected": []}


def path_of(cookie):
    return "/user_profiles/" + urllib.parse.quote(cookie, safe="")


def profile(server, cookie, time_range=ALL, method="POST", **parameters):
    answer = server.request(method, path_of(cookie),
                            params={"time_range": time_range, **parameters})
    assert answer.status_code == 200, answer.text
    return answer.json()


def wait_profile(server, cookie, views, buys=0, **parameters):
    """The profile once it has so many tags."""
    deadline = time.monotonic() + VISIBLE_S
    while True:
        found = profile(server, cookie, **parameters)
        if (len(found["views"]), len(found["buys"])) == (views, buys):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.005)


def aggregates(server, method="POST", **parameters):
    query = {"time_range": RANGE, "action": "VIEW", "aggregates": ["COUNT", "SUM_PRICE"],
             **parameters}
    answer = server.request(method, "/aggregates", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def error_of(answer, *statuses):
    assert answer.status_code in statuses, (answer.status_code, answer.text)
    error = answer.json()["error"]
    assert error["code"] and error["message"]
    return error


# ---- Tags and profiles ----

def test_a_tag_comes_back_as_it_was_sent(server, cookie):
    sent = a_tag(cookie=cookie)
    send(server, sent)
    found = wait_profile(server, cookie, 1)
    assert found == {"cookie": cookie, "views": [sent], "buys": []}
    raw = server.get(path_of(cookie), params={"time_range": ALL}).text
    assert list(json.loads(raw)) == ["cookie", "views", "buys"]
    assert list(json.loads(raw)["views"][0]) == list(sent)
    assert '"time":"2022-03-22T12:15:00.000Z"' in raw


def test_product_ids_keep_their_type_and_prices_their_sign(server, cookie):
    sent = [a_tag(cookie=cookie, product_id=product, price=price,
                  time=f"2022-03-22T12:15:0{i}.999Z")
            for i, (product, price) in enumerate([("17", 0), (17, -1), (-(2 ** 63), 2 ** 31 - 1),
                                                  ("", -(2 ** 31)), (2 ** 63 - 1, 5)])]
    send(server, *sent)
    found = wait_profile(server, cookie, 5)["views"]
    assert found == sent[::-1]
    assert [type(t["product_info"]["product_id"]) for t in found] == [int, str, int, int, str]


@pytest.mark.parametrize("name", ["a/b", "a%2Fb", "ą ż/\"'?#&=+", "%", "日本\U0001f600",
                                  "a\u0000b", "x" * 3000])
def test_ids_hold_any_unicode(server, name):
    cookie = name + uuid.uuid4().hex
    sent = a_tag(cookie=cookie, country=name, origin=name, product_id=name, brand_id=name,
                 category_id=name)
    send(server, sent)
    found = wait_profile(server, cookie, 1)
    assert found["cookie"] == cookie and found["views"] == [sent]
    rows = aggregates(server, origin=name, brand_id=name, category_id=name)["rows"]
    assert rows[0][2:5] == [name] * 3


@pytest.mark.parametrize("name", [".", "..", "+", "%"])
def test_cookies_are_percent_decoded_once(server, name):
    """Sent as it stands: clients take dots out of a path."""
    encoded = "".join(f"%{byte:02X}" for byte in name.encode())
    send(server, a_tag(cookie=name))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    deadline = time.monotonic() + VISIBLE_S
    found = {"views": []}
    while not found["views"]:
        assert time.monotonic() < deadline
        connection.request("GET", f"/user_profiles/{encoded}?time_range={ALL}")
        found = json.loads(connection.getresponse().read())
    assert found["cookie"] == name
    connection.close()


def test_ids_are_compared_byte_for_byte(server):
    """The same letter composed in two ways is two cookies."""
    tail = uuid.uuid4().hex
    send(server, a_tag(cookie="é" + tail), a_tag(cookie="e\u0301" + tail),
         a_tag(cookie="e\u0301" + tail))
    wait_profile(server, "é" + tail, 1)
    wait_profile(server, "e\u0301" + tail, 2)


def test_unknown_fields_are_ignored_but_well_formed(server, cookie):
    sent = {**a_tag(cookie=cookie), "more": {"time": [1, None]}}
    sent["product_info"]["colour"] = "red"
    send(server, sent)
    assert wait_profile(server, cookie, 1)["views"] == [a_tag(cookie=cookie)]
    broken = json.dumps(sent)[:-1] + ',"x":nul}'
    error_of(server.post("/user_tags", data=broken), 400)


def test_identical_tags_and_equal_times_all_count(server, cookie):
    send(server, *[a_tag(cookie=cookie)] * 3, a_tag(cookie=cookie, price=7))
    found = wait_profile(server, cookie, 4)["views"]
    assert sorted(t["product_info"]["price"] for t in found) == [7, 100, 100, 100]


def test_lists_descend_by_time_whatever_the_order_of_arrival(server, cookie):
    times = [f"2022-03-22T12:{m:02}:00.{ms:03}Z" for m in range(15, 20) for ms in (0, 1, 999)]
    mixed = times[::2] + times[1::2]
    send(server, *[a_tag(cookie=cookie, time=t, action=a) for t in mixed for a in ("VIEW", "BUY")])
    found = wait_profile(server, cookie, len(times), len(times))
    for name in ("views", "buys"):
        assert [t["time"] for t in found[name]] == times[::-1]


def test_range_and_limit(server, cookie):
    send(server, *[a_tag(cookie=cookie, time=f"2022-03-22T12:15:0{i}.000Z") for i in range(5)])
    wait_profile(server, cookie, 5)

    def seconds(time_range, **parameters):
        found = profile(server, cookie, time_range, **parameters)["views"]
        return [int(t["time"][18]) for t in found]

    day = "2022-03-22T12:15:"
    assert seconds(f"{day}01_{day}03") == [2, 1]  # the end is not in it
    assert seconds(f"{day}01.001_{day}03.001") == [3, 2]
    assert seconds(f"{day}01_{day}01") == []
    assert seconds(f"{day}00_{day}05", limit=2) == [4, 3]
    assert seconds(f"{day}00_{day}03", limit=2) == [2, 1]  # the limit counts after the range
    assert seconds(f"{day}00_{day}05", limit=0) == []
    assert seconds(f"{day}00_{day}05", limit=200) == [4, 3, 2, 1, 0]


def test_the_200_newest_of_each_action_are_kept(server, cookie):
    tags = [a_tag(cookie=cookie, action=action, price=i,
                  time=f"2022-03-22T12:{i // 60:02}:{i % 60:02}.000Z")
            for i in range(250) for action in ("VIEW", "BUY")]
    send_batch(server, tags)

    def prices(name):
        return [t["product_info"]["price"] for t in profile(server, cookie)[name]]

    for name in ("views", "buys"):  # the last one is there once all are
        assert wait_until(lambda: prices(name)[:1] == [249])
        assert prices(name) == list(range(249, 49, -1))


def test_an_unknown_cookie_has_two_empty_lists(server, cookie):
    for method in ("GET", "POST"):
        assert profile(server, cookie, method=method) == {"cookie": cookie, "views": [],
                                                          "buys": []}


def test_a_body_on_a_query_is_ignored(server, cookie):
    for body in (b"{}", b"not json", b"x" * 100000):
        assert server.post(f"/user_profiles/{cookie}?time_range={ALL}", data=body
                           ).status_code == 200
        assert server.post(f"/aggregates?time_range={RANGE}&action=BUY&aggregates=COUNT",
                           data=body).status_code == 200


def test_a_user_is_forgotten(server, cookie):
    other = cookie + "x"
    send(server, *[a_tag(cookie=c, action=a) for c in (cookie, other) for a in ("VIEW", "BUY")])
    wait_profile(server, cookie, 1, 1)
    wait_profile(server, other, 1, 1)
    gone = server.delete(f"/user_profiles/{cookie}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert profile(server, cookie) == {"cookie": cookie, "views": [], "buys": []}
    assert len(profile(server, other)["views"]) == 1
    assert server.delete(f"/user_profiles/{cookie}").status_code == 204  # nobody: as well
    send(server, a_tag(cookie=cookie, price=9))  # and may come again
    assert wait_profile(server, cookie, 1)["views"][0]["product_info"]["price"] == 9


# ---- Aggregates ----

def wait_count(server, wanted, **parameters):
    deadline = time.monotonic() + VISIBLE_S
    while True:
        rows = aggregates(server, **parameters)["rows"]
        if sum(int(row[-2]) for row in rows) == wanted:
            return rows
        assert time.monotonic() < deadline, rows
        time.sleep(0.005)


def test_aggregates(server):
    origin = "origin-" + uuid.uuid4().hex
    times = ["2022-03-22T12:14:59.999Z", "2022-03-22T12:15:00.000Z", "2022-03-22T12:15:59.999Z",
             "2022-03-22T12:17:00.000Z", "2022-03-22T12:25:00.000Z"]
    send(server, *[a_tag(origin=origin, time=t, price=2 ** 31 - 1) for t in times],
         *[a_tag(origin=origin, time=times[1], action="BUY", price=-(2 ** 31))] * 3)
    wait_count(server, 3, origin=origin)
    wait_count(server, 3, origin=origin, action="BUY")
    for method in ("GET", "POST"):
        answer = aggregates(server, method, origin=origin)
        assert answer["columns"] == ["1m_bucket", "action", "origin", "count", "sum_price"]
        expected = [[f"2022-03-22T12:{m}:00", "VIEW", origin, "0", "0"] for m in range(15, 25)]
        expected[0][3:] = ["2", str(2 * (2 ** 31 - 1))]
        expected[2][3:] = ["1", str(2 ** 31 - 1)]
        assert answer["rows"] == expected
    buys = aggregates(server, action="BUY", origin=origin,
                      time_range="2022-03-22T12:15:00_2022-03-22T12:16:00.000")
    assert buys["rows"] == [["2022-03-22T12:15:00", "BUY", origin, "3", str(-3 * 2 ** 31)]]


def test_every_combination_of_filters(server):
    tail = uuid.uuid4().hex
    names = {"origin": ["o1", "o2"], "brand_id": ["b1", "b2"], "category_id": ["k1", "k2"]}
    names = {k: [v + tail for v in values] for k, values in names.items()}
    tags = [a_tag(cookie=tail, origin=o, brand_id=b, category_id=k)
            for o in names["origin"] for b in names["brand_id"] for k in names["category_id"]]
    send_batch(server, tags)
    wait_count(server, 4, origin=names["origin"][1])  # the last of them
    minute = "2022-03-22T12:15:00_2022-03-22T12:16:00"
    for chosen in range(1, 8):
        filters = {k: v[1] for i, (k, v) in enumerate(names.items()) if chosen >> i & 1}
        # in another order than the columns'
        query = dict(sorted(filters.items(), reverse=True))
        answer = aggregates(server, time_range=minute, aggregates=["SUM_PRICE", "COUNT"], **query)
        assert answer["columns"] == ["1m_bucket", "action", *filters, "sum_price", "count"]
        n = 8 >> len(filters)
        assert answer["rows"] == [["2022-03-22T12:15:00", "VIEW", *filters.values(),
                                   str(100 * n), str(n)]]
    answer = aggregates(server, time_range=minute, aggregates="COUNT")
    assert answer["columns"] == ["1m_bucket", "action", "count"]
    assert int(answer["rows"][0][2]) >= 8


def test_an_unseen_filter_value_gives_zeros(server):
    brand = uuid.uuid4().hex
    send(server, a_tag(brand_id=brand))
    wait_count(server, 1, brand_id=brand)
    answer = aggregates(server, origin="never-seen", brand_id=brand)
    assert answer["columns"] == ["1m_bucket", "action", "origin", "brand_id", "count", "sum_price"]
    assert answer["rows"] == [[f"2022-03-22T12:{m}:00", "VIEW", "never-seen", brand, "0", "0"]
                              for m in range(15, 25)]
    empty = aggregates(server, time_range="2022-03-22T12:15:00_2022-03-22T12:15:00")
    assert empty["rows"] == []


# ---- Batches ----

def test_batch_takes_good_lines_and_names_bad_ones(server, cookie):
    good = json.dumps(a_tag(cookie=cookie))
    missing = a_tag(cookie=cookie)
    del missing["product_info"]["price"]
    lines = [good, "", "not json", good, "  \t\r", json.dumps(a_tag(cookie=cookie, action="LOOK")),
             json.dumps(missing), "[" + good + "]", good + good, good + "\r"]
    answer = server.post("/user_tags/batch", data="\n".join(lines).encode())
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["accepted"] == 3
    assert [r["line"] for r in body["rejected"]] == [3, 6, 7, 8, 9]
    assert all(set(r) == {"line", "error"} for r in body["rejected"])
    assert "`action`" in body["rejected"][1]["error"]
    assert "`product_info.price`" in body["rejected"][2]["error"]
    wait_profile(server, cookie, 3)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_batch_compressed(server, cookie, encoding):
    body = ("\n".join([json.dumps(a_tag(cookie=cookie))] * 100) + "\n").encode()
    if encoding == "gzip":
        packed = gzip.compress(body)
    else:
        packed = pytest.importorskip("zstandard").compress(body)
    answer = server.post("/user_tags/batch", data=packed, headers={"Content-Encoding": encoding})
    assert answer.json() == {"accepted": 100, "rejected": []}
    wait_profile(server, cookie, 100)


def test_batch_of_nothing(server):
    for body in (b"", b"\n\n", b"{}"):
        answer = server.post("/user_tags/batch", data=body)
        assert answer.status_code == 200, answer.text
        assert answer.json()["accepted"] == 0
        assert len(answer.json()["rejected"]) == (body == b"{}")


def test_batch_answers_are_bounded(server):
    answer = server.post("/user_tags/batch", data=b"x\n" * 10500).json()
    assert answer["accepted"] == 0
    assert len(answer["rejected"]) in (100, 10000)  # builds with tiny constants
    assert len(answer["rejected"]) + answer["rejected_unlisted"] == 10500


# ---- Ids ----

def get_id(server, collection, element, create=True):
    return server.post("/get_id", json={"collection_name": collection, "element": element,
                                        "create_missing": create})


def test_ids_are_dense_and_the_same_for_ever(server):
    name = "collection " + uuid.uuid4().hex
    assert error_of(get_id(server, name, "a", False), 404)["field"] == "element"
    for i, element in enumerate(["a", "b", "", "日本", "a/b%"], 1):
        assert get_id(server, name, element).json() == {"id": i}
        assert get_id(server, name, element, False).json() == {"id": i}
    error_of(get_id(server, name, "z", False), 404)
    assert get_id(server, name, "a").json() == {"id": 1}
    assert get_id(server, name + "2", "b").json() == {"id": 1}


def test_ids_are_those_of_tags(server):
    origin = uuid.uuid4().hex
    error_of(get_id(server, "origin", origin, False), 404)
    send(server, a_tag(origin=origin, brand_id=origin, category_id=origin))
    for collection in ("origin", "brand", "category"):
        assert get_id(server, collection, origin, False).status_code == 200


def test_ids_under_races(server):
    name = uuid.uuid4().hex
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(
            lambda i: (i % 50, get_id(server, name, str(i % 50)).json()["id"]), range(400)))
    ids = dict(answers)
    assert sorted(ids.values()) == list(range(1, 51))
    assert all(ids[element] == number for element, number in answers)


# ---- Idempotency keys ----

def keyed(server, path, body, key):
    return server.post(path, data=body, headers={"Idempotency-Key": key})


def test_idempotency_key(server, cookie):
    key = uuid.uuid4().hex
    body = json.dumps(a_tag(cookie=cookie))
    other = json.dumps(a_tag(cookie=cookie, price=1))
    assert [keyed(server, "/user_tags", body, key).status_code for _ in range(3)] == [204] * 3
    error = error_of(keyed(server, "/user_tags", other, key), 422)
    assert error["code"] == "key_reused" and error["field"] == "Idempotency-Key"
    assert keyed(server, "/user_tags", other, key + "x").status_code == 204
    wait_profile(server, cookie, 2)
    time.sleep(0.1)
    wait_profile(server, cookie, 2)
    for bad in ("", "k" * 256):
        assert error_of(keyed(server, "/user_tags", body, bad), 422)["field"] == "Idempotency-Key"


def test_idempotency_key_of_a_batch(server, cookie):
    key = uuid.uuid4().hex
    body = "\n".join([json.dumps(a_tag(cookie=cookie)), "bad", json.dumps(a_tag(cookie=cookie))])
    first = keyed(server, "/user_tags/batch", body, key)
    assert first.json()["accepted"] == 2
    assert [keyed(server, "/user_tags/batch", body, key).json() for _ in range(3)
            ] == [first.json()] * 3
    assert keyed(server, "/user_tags/batch", body + "\n", key).status_code == 422
    # the same key on another route is another
    assert keyed(server, "/user_tags", json.dumps(a_tag(cookie=cookie)), key).status_code == 204
    wait_profile(server, cookie, 3)


def test_a_refused_request_uses_no_key(server, cookie):
    key = uuid.uuid4().hex
    assert keyed(server, "/user_tags", "{}", key).status_code == 422
    assert keyed(server, "/user_tags", json.dumps(a_tag(cookie=cookie)), key).status_code == 204
    wait_profile(server, cookie, 1)


def test_racing_twins_count_once(server, cookie):
    body = json.dumps(a_tag(cookie=cookie))
    keys = [uuid.uuid4().hex for _ in range(20)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda k: keyed(server, "/user_tags", body, k).status_code,
                                 keys * 10))
    assert statuses == [204] * 200
    wait_profile(server, cookie, 20)


# ---- Restarts ----

def test_everything_is_there_after_a_restart(server_factory, cookie):
    server = server_factory().start()
    sent = a_tag(cookie=cookie, brand_id="brand-1")
    send(server, sent)
    assert keyed(server, "/user_tags", json.dumps(sent), "key").status_code == 204
    assert get_id(server, "mine", "element").json() == {"id": 1}
    for how in (server.kill, server.stop, server.kill):  # from the journal, from the store
        how()
        server.start()
        assert wait_profile(server, cookie, 2)["views"] == [sent, sent]
        assert wait_count(server, 2, brand_id="brand-1")[0][-1] == "200"
        assert get_id(server, "mine", "element", False).json() == {"id": 1}
        assert keyed(server, "/user_tags", json.dumps(sent), "key").status_code == 204
        assert keyed(server, "/user_tags", json.dumps(a_tag()), "key").status_code == 422
    assert len(profile(server, cookie)["views"]) == 2
    # what is read is in the cache, which is bounded; pages of mapped files would all stay resident
    assert list(server.directory.rglob("*.sst"))
    assert ".sst" not in pathlib.Path(f"/proc/{server.process.pid}/maps").read_text()


# ---- Bounds ----

def test_full_tables(server_factory):
    server = server_factory("--idempotency-max", "3", "--dictionary-size", "1M").start()
    body = json.dumps(a_tag())
    for i in range(3):
        assert keyed(server, "/user_tags", body, str(i)).status_code == 204
    full = keyed(server, "/user_tags", body, "3")
    assert error_of(full, 429)["code"] == "full" and int(full.headers["Retry-After"]) > 0
    assert keyed(server, "/user_tags", body, "0").status_code == 204  # none is forgotten
    assert server.post("/user_tags", data=body).status_code == 204
    statuses = [get_id(server, "c", f"{i:04096}").status_code for i in range(300)]
    assert set(statuses) == {200, 429} and statuses == sorted(statuses)
    assert get_id(server, "c", "0" * 4096).json() == {"id": 1}
    full = server.post("/user_tags", data=json.dumps(a_tag(origin="new" * 1000)))
    assert "--dictionary-size" in error_of(full, 429)["message"] and full.headers["Retry-After"]
    lines = [a_tag(), a_tag(origin="new" * 1000), a_tag(cookie="after the bad line")]
    answer = server.post("/user_tags/batch", data="\n".join(map(json.dumps, lines)))
    assert answer.status_code == 200 and answer.json()["accepted"] == 2
    rejected, = answer.json()["rejected"]
    assert rejected["line"] == 2 and "--dictionary-size" in rejected["error"]
    assert server.post("/user_tags", data=body).status_code == 204  # nothing new in it
    used = 'millrace_memory_used_bytes{kind="%s"}'
    metrics = server.metrics()
    assert metrics[used % "dictionary"] == metrics["millrace_events_dictionary_bytes"] <= 1 << 20
    assert 0 < metrics[used % "keys"] <= metrics['millrace_memory_part_bytes{kind="keys"}']
    server.stop()


def test_a_key_never_stands_for_a_part_of_a_batch(server_factory):
    """Its answer, when it comes again, says that all of it was taken."""
    server = server_factory("--dictionary-size", "1M").start()
    assert server.post("/user_tags", data=json.dumps(a_tag())).status_code == 204
    assert 429 in [get_id(server, "c", f"{i:04096}").status_code for i in range(300)]
    lines = "\n".join(map(json.dumps, [a_tag(), a_tag(origin="new" * 1000)]))
    for _ in range(2):
        refused = keyed(server, "/user_tags/batch", lines, "key")
        assert "--dictionary-size" in error_of(refused, 429)["message"]


# ---- The error table ----

def without(name):
    tag = copy.deepcopy(a_tag())
    del (tag if name in tag else tag["product_info"])[name]
    return tag


TAG_ERRORS = [
    *[(a_tag(time=t), "time") for t in ("2022-03-22T12:15:00Z", "2022-03-22T12:15:00.000",
                                        "2022-02-30T12:15:00.000Z", "2022-03-22T12:15:60.000Z",
                                        "", 1647951300000, None)],
    *[(a_tag(cookie=c), "cookie") for c in ("", 5, None, "x" * 4097)],
    *[(a_tag(country=c), "country") for c in (5, None, "x" * 4097)],
    *[(a_tag(device=d), "device") for d in ("pc", "PHONE", "", 0, None)],
    *[(a_tag(action=a), "action") for a in ("view", "SELL", "", 0, None)],
    *[(a_tag(origin=o), "origin") for o in (5, None, "x" * 4097)],
    *[(a_tag(product_id=p), "product_info.product_id") for p in (1.5, None, [], 2 ** 63, True)],
    *[(a_tag(brand_id=b), "product_info.brand_id") for b in (5, None)],
    *[(a_tag(category_id=c), "product_info.category_id") for c in (5, None)],
    *[(a_tag(price=p), "product_info.price") for p in (2 ** 31, -(2 ** 31) - 1, 1.5, "1", None)],
    *[({**a_tag(), "product_info": p}, "product_info") for p in (None, [], "x")],
    *[(without(n), n) for n in ("time", "cookie", "country", "device", "action", "origin",
                                "product_info")],
    *[(without(n), "product_info." + n) for n in ("product_id", "brand_id", "category_id",
                                                  "price")],
]


@pytest.mark.parametrize("tag,field", TAG_ERRORS)
def test_wrong_tags(server, tag, field):
    error = error_of(server.post("/user_tags", json=tag), 422)
    assert error["field"] == field and f"`{field}`" in error["message"]
    rejected = server.post("/user_tags/batch", json=tag).json()
    assert rejected == {"accepted": 0, "rejected": [{"line": 1, "error": error["message"]}]}


@pytest.mark.parametrize("body, reason", [
    (b"", "it is empty"), (b"{", "bracket"), (b"nonsense", "a value is no number, true, false or"),
    (b'{"a":1}x', "one too many"), (b'{"a":01}', "a value is no number"), (b'{"a":"b}', "closing quote"),
    (b'{"a":"\n"}', "control character"), (b'{"a":"\xff"}', "not valid UTF-8"),
    (json.dumps(a_tag()).encode() + b"\x00", "one too many")])
def test_malformed_json(server, body, reason):
    for path in ("/user_tags", "/get_id"):
        error = error_of(server.post(path, data=body), 400)
        assert error["code"] == "malformed_json" and reason in error["message"], error


QUERY_ERRORS = [
    ("/user_profiles/c", {}, "time_range"),
    *[("/user_profiles/c", {"time_range": t}, "time_range") for t in (
        "", "x", "2022-03-22T12:15:00", "2022-03-22T12:15:00_", RANGE + "_" + RANGE,
        "2022-03-22T12:15:00Z_2022-03-22T12:25:00Z", "2022-03-22T12:25:00_2022-03-22T12:15:00",
        "2022-02-29T12:15:00_2022-03-22T12:15:00", "2022-03-22T12:15_2022-03-22T12:25")],
    *[("/user_profiles/c", {"time_range": RANGE, "limit": x}, "limit") for x in (
        "-1", "201", "x", "1.5", "", "99999999999999999999")],
    ("/user_profiles/%FF", {"time_range": RANGE}, "cookie"),
    ("/user_profiles/" + "x" * 4097, {"time_range": RANGE}, "cookie"),
    ("/aggregates", {"action": "VIEW", "aggregates": "COUNT"}, "time_range"),
    ("/aggregates", {"time_range": RANGE, "aggregates": "COUNT"}, "action"),
    ("/aggregates", {"time_range": RANGE, "action": "VIEW"}, "aggregates"),
    *[("/aggregates", {"time_range": RANGE, "action": a, "aggregates": "COUNT"}, "action")
      for a in ("view", "", "SELL")],
    *[("/aggregates", {"time_range": RANGE, "action": "BUY", "aggregates": a}, "aggregates")
      for a in ("count", "", "AVG", ["COUNT", "x"], ["COUNT"] * 17, "COUNT,SUM_PRICE")],
    *[("/aggregates", {"time_range": t, "action": "BUY", "aggregates": "COUNT"}, "time_range")
      for t in ("2022-03-22T12:15:00_2022-03-22T12:26:00",
                "2022-03-22T12:15:01_2022-03-22T12:16:01",
                "2022-03-22T12:15:00.001_2022-03-22T12:16:00",
                "2022-03-22T12:15:00_2022-03-22T12:15:30", "x")],
]


@pytest.mark.parametrize("path,parameters,field", QUERY_ERRORS)
def test_wrong_queries(server, path, parameters, field):
    for method in ("GET", "POST"):
        error = error_of(server.request(method, path, params=parameters), 422)
        assert error["field"] == field and f"`{field}`" in error["message"]


def test_filters_are_utf8(server):
    for name in ("origin", "brand_id", "category_id"):
        answer = server.get(f"/aggregates?time_range={RANGE}&action=BUY&aggregates=COUNT"
                            f"&{name}=%FF")
        assert error_of(answer, 422)["field"] == name


@pytest.mark.parametrize("body,field", [
    ({"element": "a", "create_missing": True}, "collection_name"),
    ({"collection_name": "c", "create_missing": True}, "element"),
    ({"collection_name": "c", "element": "a"}, "create_missing"),
    ({"collection_name": "", "element": "a", "create_missing": True}, "collection_name"),
    ({"collection_name": 5, "element": "a", "create_missing": True}, "collection_name"),
    ({"collection_name": "c", "element": None, "create_missing": True}, "element"),
    ({"collection_name": "c", "element": "x" * 4097, "create_missing": True}, "element"),
    ({"collection_name": "c", "element": "a", "create_missing": "yes"}, "create_missing"),
])
def test_wrong_questions(server, body, field):
    assert error_of(server.post("/get_id", json=body), 422)["field"] == field


def test_wrong_shapes(server):
    for path in ("/user_tags", "/get_id"):
        for body in ([], 5, None, "x"):
            error = error_of(server.post(path, data=json.dumps(body)), 422)
            assert "object" in error["message"]


@pytest.mark.parametrize("method,path,allowed", [
    ("GET", "/user_tags", "POST"), ("PUT", "/user_tags/batch", "POST"),
    ("PUT", "/user_profiles/c", "DELETE"), ("DELETE", "/aggregates", "GET"),
    ("GET", "/get_id", "POST")])
def test_wrong_methods(server, method, path, allowed):
    answer = server.request(method, path)
    assert error_of(answer, 405)["code"] == "wrong_method" and allowed in answer.headers["Allow"]


def test_health(server):
    assert server.get("/health").status_code == 200
