# SPDX-License-Identifier: Apache-2.0
"""A load of points and tags by several threads, and the model of what it must have done: what was
acknowledged is there once, what had no answer once or not at all, whatever died meanwhile."""
import itertools
import threading
import time

import requests

TAGS_A_COOKIE = 100  # fewer than a profile keeps, so that each tag can be found
MINUTE = "2026-03-01T12:00:00"
RANGE = f"{MINUTE}.000_2026-03-01T12:01:00.000"
COLLECTION = "load"


def tag(cookie, product):
    return {"time": f"{MINUTE}.{product % 1000:03}Z", "cookie": cookie, "country": "PL", "device": "PC",
            "action": "BUY", "origin": "here",
            "product_info": {"product_id": str(product), "brand_id": "b", "category_id": "c",
                             "price": 1}}


class Writer(threading.Thread):
    """Until it is told to stop: a tag, a batch of tags, a point, a point written and deleted."""

    def __init__(self, url, name, number, points=True):
        super().__init__(daemon=True)
        self.with_points = points
        self.url, self.name, self.numbers = url, name, itertools.count(number)
        self.stopping = threading.Event()
        self.acknowledged = 0
        self.tags, self.points = {}, {}  # number: True acknowledged, False who knows
        self.deleted = {}
        self.session = requests.Session()

    def cookie(self, number):
        return f"{self.name}-{number // TAGS_A_COOKIE}"

    def send(self, method, path, **options):
        """Whether it was acknowledged. Anything else than 2xx, 429, 503 or no answer is an error."""
        try:
            answer = self.session.request(method, self.url + path, timeout=30, **options)
        except requests.RequestException:
            time.sleep(0.05)
            return False
        assert answer.status_code in (200, 202, 204, 429, 503), (answer.status_code, answer.text)
        if answer.status_code in (429, 503):
            time.sleep(0.05)
            return False
        self.acknowledged += 1
        return True

    def write_tags(self, n):
        numbers = [next(self.numbers) for _ in range(n)]
        tags = [tag(self.cookie(i), i) for i in numbers]
        if n == 1:
            done = self.send("POST", "/user_tags", json=tags[0])
        else:
            lines = "\n".join(map(requests.compat.json.dumps, tags))
            done = self.send("POST", "/user_tags/batch", data=lines)
        self.tags.update(dict.fromkeys(numbers, done))

    def write_point(self, delete):
        number = next(self.numbers)
        path = f"/collections/{COLLECTION}/points"
        point = {"id": number, "vector": [1, 0, 0, number], "payload": {"n": number}}
        self.points[number] = self.send("PUT", path, json={"points": [point]})
        if delete:
            self.deleted[number] = self.send("POST", path + "/delete", json={"points": [number]})

    def run(self):
        for step in itertools.count():
            if self.stopping.is_set():
                return
            self.write_tags(1)
            self.write_tags(20)
            if not self.with_points:
                continue
            self.write_point(delete=False)
            self.write_point(delete=step % 2 == 0)


class Writing:
    """Its writers write as long as its block lasts."""

    def __enter__(self):
        for writer in self.writers:
            writer.start()
        return self

    def __exit__(self, *_):
        for writer in self.writers:
            writer.stopping.set()
        for writer in self.writers:
            writer.join(60)
            assert not writer.is_alive()


class Load(Writing):
    """`with Load(server) as load:` writes meanwhile; load.check() afterwards, with the server at rest."""

    def __init__(self, server, writers=3):
        self.server = server
        answer = server.put(f"/collections/{COLLECTION}",
                            json={"vectors": {"size": 4, "distance": "Dot"}})
        assert answer.status_code == 200, answer.text
        self.writers = [Writer(server.url, f"w{i}", 1 + i * 10_000_000) for i in range(writers)]

    def acknowledged(self):
        return sum(writer.acknowledged for writer in self.writers)

    def progress(self, n=100, patience=120):
        """Waits until so many more requests were acknowledged."""
        wanted, deadline = self.acknowledged() + n, time.monotonic() + patience
        while self.acknowledged() < wanted:
            assert time.monotonic() < deadline, f"{self.acknowledged()} of {wanted} acknowledged"
            assert all(writer.is_alive() for writer in self.writers)
            time.sleep(0.02)

    def check(self):
        self.settle()
        present = sum(self.check_tags(writer) for writer in self.writers)
        answer = self.server.post("/aggregates", params={"time_range": RANGE, "action": "BUY",
                                                         "aggregates": ["COUNT", "SUM_PRICE"]})
        assert answer.json()["rows"] == [[MINUTE, "BUY", str(present), str(present)]]
        for writer in self.writers:
            self.check_points(writer)

    def settle(self):
        """Until the workers have applied what is durable."""
        deadline = time.monotonic() + 60
        while any(consumer["lag_records"] for consumer in
                  self.server.get("/status").json()["consumers"]):
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def check_tags(self, writer):
        """How many there are."""
        present = 0
        for cookie in {writer.cookie(number) for number in writer.tags}:
            answer = self.server.get(f"/user_profiles/{cookie}",
                                     params={"time_range": RANGE, "limit": 200})
            found = answer.json()["buys"]
            products = [int(t["product_info"]["product_id"]) for t in found]
            assert len(products) == len(set(products)), f"{cookie} has a tag twice"
            known = {n: done for n, done in writer.tags.items() if writer.cookie(n) == cookie}
            assert set(products) <= set(known)
            missing = [n for n, done in known.items() if done and n not in products]
            assert not missing, f"{cookie}: {len(missing)} acknowledged tags are lost, as {missing[0]}"
            present += len(products)
        return present

    def check_points(self, writer):
        for numbers in chunks(sorted(writer.points), 500):
            answer = self.server.post(f"/collections/{COLLECTION}/points", json={"ids": numbers})
            found = {point["id"]: point["payload"]["n"] for point in answer.json()["result"]}
            assert all(number == n for number, n in found.items())
            for number in numbers:
                deleted = writer.deleted.get(number)
                if writer.points[number] and deleted is None:
                    assert number in found, f"the acknowledged point {number} is lost"
                if deleted:
                    assert number not in found, f"the deleted point {number} is there"


def chunks(items, size):
    return (items[i:i + size] for i in range(0, len(items), size))
