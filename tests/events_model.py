# SPDX-License-Identifier: Apache-2.0
"""A plain model of events, tags to feed it with, and the comparison of a server's answers with it.

The model keeps every tag and does the obvious; what is random comes from one random.Random, so that
a seed replays. Shared by tests/api, tests/crash and tests/faults.
"""
import collections
import datetime
import gzip
import http.client
import json
import time
import urllib.parse

import zstandard

KEPT = 200
ACTIONS = {"VIEW": "views", "BUY": "buys"}
FILTERS = ["origin", "brand_id", "category_id"]
COLUMNS = {"COUNT": "count", "SUM_PRICE": "sum_price"}
EVER = ("0000-01-01T00:00:00", "9999-12-31T23:59:59.999")
INT32 = (-2**31, 2**31 - 1)

# What strings may hold: quotes, slashes, percent signs, control characters, any plane of Unicode.
TEXTS = ["a/b", "/", "//", "..", ".", "100%", "%2F", "%", "%00", 'say "hi"', "it's", "a\\b", "\\u0041",
         "?a=b&c=d#e", "a+b", " ", "a\nb\tc\r", "\x00", "\x01\x7f", "é", "e\u0301", "żółw", "日本語",
         "\u2028", "\ufeff", "\uffff", "😀", "a😀/%b", "\U0010ffff", "null", "{}", "user_tags"]
LONG_TEXTS = ["x" * 4096, "é" * 2048, "😀" * 1024, "%/" * 2048]


def some_text(chooser):
    """A few characters, of all of Unicode but surrogates."""
    planes = [(0x20, 0x7e), (0, 0xff), (0x370, 0x2fff), (0xe000, 0xffff), (0x10000, 0x10ffff)]
    return "".join(chr(chooser.randint(*chooser.choice(planes)))
                   for _ in range(chooser.randint(1, 12)))


def quoted(text):
    return urllib.parse.quote(text, safe="")


def canonical(tag):
    return json.dumps(tag, sort_keys=True)


def minute_after(minute, n):
    """n minutes after one such as 2022-03-22T12:15."""
    after = datetime.datetime.fromisoformat(minute) + datetime.timedelta(minutes=n)
    return after.isoformat()[:16]


def minutes_from(minute, n):
    """The n minutes from a minute on."""
    return [minute_after(minute, i) for i in range(n)]


# ---- Tags ----

class Maker:
    """Makes tags, most of them of eleven minutes (12:10 to 12:20 of a day in 2022), some of the twelve
    hours before. Each product is new, so that no two tags are the same."""

    # Before the 24 h that end in any of those minutes.
    LATE = ["2022-03-21T12:09:59.999Z", "1970-01-01T00:00:00.000Z", "1969-12-31T23:59:59.999Z",
            "0000-01-01T00:00:00.000Z", "2021-12-31T23:59:00.001Z"]

    def __init__(self, chooser, cookies, name="", first="2022-03-22T12:10", hours_before=12):
        self.random, self.cookies, self.name, self.n = chooser, cookies, name, 0
        self.plain = 0.7  # of the elements are of a few
        self.minutes = minutes_from(first, 11)
        self.before = minutes_from(minute_after(first, -60 * hours_before), 60 * hours_before)

    def time(self):
        dice = self.random.random()
        if dice < 0.3:  # equal times are common
            return f"{self.random.choice(self.minutes)}:{self.random.choice(['00.000', '59.999'])}Z"
        minutes = self.minutes if dice < 0.9 or not self.before else self.before
        return f"{self.random.choice(minutes)}:{self.random.randrange(60):02}" \
               f".{self.random.randrange(1000):03}Z"

    def element(self, kind):
        dice = self.random.random()
        if dice < self.plain:
            return f"{kind}{self.random.randrange(5)}"
        if dice < 0.9:
            return self.random.choice(TEXTS + [""])
        return f"{kind}-{self.name}-{self.n}"

    def product(self):
        self.n += 1
        return self.random.choice([self.n, -self.n, str(self.n), f"{self.n}{self.name} é😀\"%/",
                                   2**63 - self.n, self.n - 2**63])

    def price(self):
        return self.random.choice([*INT32, 0, -1, 1, self.random.randint(*INT32),
                                   self.random.randint(0, 1000)])

    def tag(self, **changes):
        tag = {"time": self.time(), "cookie": self.random.choice(self.cookies),
               "country": self.element("country"),
               "device": self.random.choice(["PC", "MOBILE", "TV"]),
               "action": self.random.choice(["VIEW", "VIEW", "BUY"]),
               "origin": self.element("origin"),
               "product_info": {"product_id": self.product(), "brand_id": self.element("brand"),
                                "category_id": self.element("category"), "price": self.price()}}
        return {**tag, **changes}


def render(tag, chooser):
    """The tag's JSON in one of the ways to write it: any order, escapes or none, unknown fields."""
    def shuffled(fields):
        fields = list(fields.items())
        if chooser.random() < 0.2:
            fields.append(("unknown", chooser.choice([None, 1.5e300, [{"cookie": 1}], {"x": []}, "y"])))
        chooser.shuffle(fields)
        return dict(fields)
    fields = shuffled({**tag, "product_info": shuffled(tag["product_info"])})
    separators = chooser.choice([(",", ":"), (", ", " : ")])
    return json.dumps(fields, ensure_ascii=chooser.random() < 0.5, separators=separators).encode()


def spoiled(tag, chooser):
    """A line that must be refused, made of a good tag."""
    text = json.dumps(tag)
    info = tag["product_info"]
    wrong = [{"time": "2022-03-22T12:15:00Z"}, {"time": "2022-03-22T12:15:00.000"},
             {"time": "2022-02-30T12:15:00.000Z"}, {"time": "2022-03-22T24:00:00.000Z"},
             {"time": 5}, {"cookie": ""}, {"cookie": "x" * 4097}, {"cookie": 7}, {"country": None},
             {"device": "PHONE"}, {"device": "pc"}, {"action": "SELL"}, {"origin": ["o"]},
             {"product_info": []}, {"product_info": {**info, "price": 2**31}},
             {"product_info": {**info, "price": -2**31 - 1}},
             {"product_info": {**info, "price": 1.5}}, {"product_info": {**info, "price": "1"}},
             {"product_info": {**info, "product_id": None}},
             {"product_info": {**info, "product_id": 0.5}},
             {"product_info": {**info, "product_id": 2**64}},
             {"product_info": {**info, "brand_id": 3}}]
    lines = [json.dumps({**tag, **fields}).encode() for fields in wrong]
    lines += [json.dumps({k: v for k, v in tag.items() if k != gone}).encode() for gone in tag]
    lines += [json.dumps({**tag, "product_info": {k: v for k, v in info.items() if k != gone}}).encode()
              for gone in info]
    lines += [b"{", b"no json", b"[]", b'"x"', b"7", text[:-1].encode(), text.encode() + b"}",
              text.replace('"cookie": "', '"cookie": "\\ud800').encode(),
              text.encode().replace(b'"cookie": "', b'"cookie": "\xff'),
              text.replace('"country": "', '"country": "\\x').encode()]
    return chooser.choice(lines)


# ---- The model ----

class Model:
    def __init__(self):
        self.profiles = {}  # cookie -> action -> [(time, canonical tag)]
        self.minutes = {}   # minute -> (action, origin, brand, category) -> [count, sum]
        self.values = {"origin": set(), "brand_id": set(), "category_id": set()}

    def add(self, tag, late=False):
        lists = self.profiles.setdefault(tag["cookie"], {action: [] for action in ACTIONS})
        lists[tag["action"]].append((tag["time"][:-1], canonical(tag)))
        info = tag["product_info"]
        values = {"origin": tag["origin"], "brand_id": info["brand_id"],
                  "category_id": info["category_id"]}
        for name, value in values.items():
            self.values[name].add(value)
        if not late:
            cells = self.minutes.setdefault(tag["time"][:16], {})
            cell = cells.setdefault((tag["action"], *values.values()), [0, 0])
            cell[0] += 1
            cell[1] += info["price"]

    def erase(self, cookie):
        """Profiles forget it; aggregates name nobody and keep their counts."""
        self.profiles.pop(cookie, None)

    def newest(self, cookie, action):
        """All that were ever sent, newest first."""
        return sorted(self.profiles.get(cookie, {}).get(action, []), reverse=True)

    def aggregate(self, minutes, action, filters, aggregates):
        wanted = [action, *[filters.get(name) for name in FILTERS]]
        given = [name for name in FILTERS if name in filters]
        rows = []
        for minute in minutes:
            cells = [cell for values, cell in self.minutes.get(minute, {}).items()
                     if all(w in (None, v) for w, v in zip(wanted, values))]
            sums = {"COUNT": sum(c[0] for c in cells), "SUM_PRICE": sum(c[1] for c in cells)}
            rows.append([minute + ":00", action, *[filters[name] for name in given],
                         *[str(sums[a]) for a in aggregates]])
        return {"columns": ["1m_bucket", "action", *given, *[COLUMNS[a] for a in aggregates]],
                "rows": rows}


def full_time(text):
    return text if "." in text else text + ".000"


def check_list(found, newest, begin, end, limit):
    """found: what was answered; newest: the model's, all of them. At least the 200 newest are kept,
    older ones may be; equal times come in any order."""
    begin, end = full_time(begin), full_time(end)
    possible = [e for e in newest if begin <= e[0] < end]
    sure = [e for e in newest[:KEPT] if begin <= e[0] < end][:limit]
    got = [(tag["time"][:-1], canonical(tag)) for tag in found]
    times = [e[0] for e in got]
    assert len(got) <= limit
    assert times == sorted(times, reverse=True)
    assert times[:len(sure)] == [e[0] for e in sure], (len(times), len(sure))
    false = collections.Counter(got) - collections.Counter(possible)
    assert not false, list(false)[:3]


# ---- The server ----

class Answer:
    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    def json(self):
        return json.loads(self.body)


class Wire:
    """One connection that sends paths as they are. For one thread."""

    DIED = (OSError, http.client.HTTPException)

    def __init__(self, server, chooser=None, timeout=60):
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
        self.random = chooser

    def request(self, method, path, body=None, headers=None):
        self.connection.request(method, path, body, headers or {})
        return Answer(self.connection.getresponse())

    @staticmethod
    def key(key):
        return {} if key is None else {"Idempotency-Key": key}

    def post_tag(self, tag, key=None):
        body = render(tag, self.random) if self.random else json.dumps(tag).encode()
        return self.request("POST", "/user_tags", body, self.key(key))

    def post_lines(self, lines, encoding=None, key=None):
        body = b"\n".join(lines)
        if encoding == "gzip":
            body = gzip.compress(body, 1)
        elif encoding == "zstd":
            body = zstandard.compress(body)
        headers = {"Content-Type": "application/x-ndjson", **self.key(key)}
        if encoding:
            headers["Content-Encoding"] = encoding
        return self.request("POST", "/user_tags/batch", body, headers)

    def post_tags(self, tags, key=None):
        return self.post_lines([json.dumps(tag).encode() for tag in tags], key=key)

    def ask(self, path):
        """A query, by GET, or by POST with a body that must not matter."""
        if self.random and self.random.random() < 0.5:
            body = self.random.choice([b"", b"{}", b'{"cookie":"x","views":[]}', b"no json \xff"])
            answer = self.request("POST", path, body)
        else:
            answer = self.request("GET", path)
        assert answer.status == 200, (path, answer.status, answer.body)
        return answer.json()

    def profile(self, cookie, begin=EVER[0], end=EVER[1], limit=None):
        query = f"time_range={begin}_{end}" + ("" if limit is None else f"&limit={limit}")
        return self.ask(f"/user_profiles/{quoted(cookie)}?{query}")

    def erase(self, cookie):
        return self.request("DELETE", f"/user_profiles/{quoted(cookie)}")

    def aggregate(self, minutes, action, filters, aggregates):
        end = minute_after(minutes[0], len(minutes))
        query = [f"time_range={minutes[0]}:00_{end}:00", f"action={action}",
                 *[f"{name}={quoted(value)}" for name, value in filters.items()]]
        if self.random:
            self.random.shuffle(query)
        return self.ask("/aggregates?" + "&".join(query + [f"aggregates={a}" for a in aggregates]))

    def get_id(self, collection, element, create=True):
        """None when it is absent and was not to be created."""
        answer = self.request("POST", "/get_id", json.dumps({
            "collection_name": collection, "element": element, "create_missing": create}))
        if answer.status == 404 and not create:
            return None
        assert answer.status == 200, (answer.status, answer.body)
        return answer.json()["id"]


def settle(server, timeout=60):
    """Until the workers have applied all that is durable."""
    deadline = time.monotonic() + timeout
    while server.metrics()['millrace_consumer_lag_records{consumer="events"}'] > 0:
        assert time.monotonic() < deadline, "the workers do not catch up"
        time.sleep(0.01)


# ---- The comparison ----

def check_profile(wire, model, cookie, begin=EVER[0], end=EVER[1], limit=None):
    found = wire.profile(cookie, begin, end, limit)
    assert sorted(found) == ["buys", "cookie", "views"] and found["cookie"] == cookie
    for action, name in ACTIONS.items():
        check_list(found[name], model.newest(cookie, action), begin, end,
                   KEPT if limit is None else limit)


def check_aggregate(wire, model, minutes, action, filters, aggregates):
    found = wire.aggregate(minutes, action, filters, aggregates)
    wanted = model.aggregate(minutes, action, filters, aggregates)
    assert found == wanted, (filters, [pair for pair in zip(found["rows"], wanted["rows"])
                                       if pair[0] != pair[1]][:3])


def some_range(chooser):
    times = sorted(f"2022-03-22T12:{chooser.randint(9, 21):02}:{chooser.choice([0, 30, 59]):02}"
                   + chooser.choice(["", ".000", ".001", ".999"]) for _ in range(2))
    return chooser.choice([EVER, (times[0], times[1]), ("2022-03-22T00:00:00", times[0])])


def check_profiles(wire, model, chooser, cookies, queries=2):
    for cookie in cookies:
        check_profile(wire, model, cookie)
        for _ in range(queries):
            begin, end = some_range(chooser)
            if full_time(begin) < full_time(end):
                check_profile(wire, model, cookie, begin, end,
                              chooser.choice([None, 0, 1, 7, 199, 200]))


def check_aggregates(wire, model, chooser, first="2022-03-22T12:10", rounds=1):
    """All combinations of filters, both actions, all lists of aggregates."""
    for _ in range(rounds):
        for mask in range(8):
            for action in ACTIONS:
                filters = {name: chooser.choice(sorted(model.values[name]) + ["never seen"])
                           for i, name in enumerate(FILTERS) if mask >> i & 1}
                names = list(filters)
                chooser.shuffle(names)
                check_aggregate(wire, model, minutes_from(first, chooser.randint(1, 10)), action,
                                {name: filters[name] for name in names},
                                chooser.choice([["COUNT"], ["SUM_PRICE"], ["COUNT", "SUM_PRICE"],
                                                ["SUM_PRICE", "COUNT"]]))
