# SPDX-License-Identifier: Apache-2.0
"""What a fleet that shares a journal of events survives, on whatever engine: APIs under load with a
model beside them."""
import signal

import requests

from conftest import PATIENCE_S, millrace, wait_until
from fleet import answers, place_of_mark
from load import MINUTE, RANGE, Writer, Writing, tag

PARTITIONS = 6
ASKED = {"time_range": RANGE, "limit": 200}


def partitions(member):
    try:
        metrics = member.metrics()
    except requests.RequestException:
        return 0
    return metrics.get('millrace_consumer_partitions{consumer="events"}', 0)


class Load(Writing):
    """Tags by several threads, each to one of the APIs; check() compares what any of them answers."""

    def __init__(self, *apis):
        self.apis = apis
        self.writers = [Writer(api.url, f"w{i}", 1 + i * 10_000_000, points=False)
                        for i, api in enumerate(apis)]

    def progress(self, n=40):
        wanted = [writer.acknowledged + n for writer in self.writers]
        assert wait_until(lambda: all(w.acknowledged >= n for w, n in zip(self.writers, wanted)))

    def present(self):
        """The products that are there, of each writer; each once."""
        found = []
        for i, writer in enumerate(self.writers):
            products = []
            for cookie in {writer.cookie(number) for number in writer.tags}:
                answer = self.apis[-1 - i].get(f"/user_profiles/{cookie}",
                                               params=ASKED)
                products += [int(tag["product_info"]["product_id"]) for tag in answer.json()["buys"]]
            assert len(products) == len(set(products)), "a tag is there twice"
            found.append(set(products))
        return found

    def all_there(self):
        return all({n for n, done in writer.tags.items() if done} <= products
                   for writer, products in zip(self.writers, self.present()))

    def check(self):
        assert wait_until(self.all_there), "an acknowledged tag is missing"
        counted, there = self.counted(), sum(map(len, self.present()))
        if counted != there:  # one of unknown outcome may have come between the two
            counted, there = self.counted(), sum(map(len, self.present()))
        assert counted == there

    def counted(self):
        answer = self.apis[0].post("/aggregates", params={
            "time_range": RANGE, "action": "BUY", "aggregates": ["COUNT", "SUM_PRICE"]})
        [[minute, _, count, price]] = answer.json()["rows"]
        assert minute == MINUTE and count == price
        return int(count)


def workers_come_go_and_freeze(fleet):
    """A rebalance under load, a worker killed in mid-batch, and one that sleeps through a rebalance
    and wakes with records in its hands."""
    one, two = fleet.start("api-1", "api"), fleet.start("api-2", "api")
    first = fleet.start("worker-1", "worker")
    fleet.ready()
    with Load(one, two) as load:
        load.progress()
        second = fleet.start("worker-2", "worker")
        assert wait_until(lambda: partitions(second) == PARTITIONS / 2)
        load.progress()
        first.kill()
        assert wait_until(lambda: partitions(second) == PARTITIONS)
        second.process.send_signal(signal.SIGSTOP)
        fleet.start("worker-3", "worker")
        assert wait_until(lambda: partitions(fleet.members["worker-3"]) == PARTITIONS)
        load.progress()
        second.process.send_signal(signal.SIGCONT)
        assert wait_until(lambda: partitions(second) == PARTITIONS / 2)
        load.progress()
    load.check()


def apis_die_and_the_engine_too(fleet, kill, start):
    """kill and start are of the engine."""
    one, two = fleet.start("api-1", "api,worker"), fleet.start("api-2", "api")
    fleet.ready()
    with Load(one, two) as load:
        load.progress()
        two.kill()
        two.start()
        load.progress()
        kill()
        assert wait_until(lambda: answers(two, 503))
        start()
        fleet.ready()
        load.progress()
        one.kill()
        one.start()
        load.progress()
    load.check()


def an_idle_api_notices(fleet, leave, come_back):
    """Nobody writes, and the engine is away: who comes then is told so at once, as nothing was sent.
    leave and come_back are of the engine."""
    api = fleet.start("api", "api")
    fleet.ready()
    leave()
    try:
        assert wait_until(lambda: answers(api, 503))
        journal = api.get("/readyz").json()["parts"]["journal-events"]
        assert not journal["ready"] and not journal["reachable"] and "writes are refused" in journal["reason"]
        answer = api.post("/user_tags", json=tag("c", 1))
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "unavailable"
        assert answer.headers["Retry-After"] and answer.elapsed.total_seconds() < 1
    finally:
        come_back()
    fleet.ready()
    assert api.post("/user_tags", json=tag("c", 1)).status_code == 204


def a_worker_names_the_engine(fleet, leave, come_back, name):
    """What it says of the journal is not said of the store, which is there; name is in the reason."""
    worker = fleet.start("worker", "worker")
    fleet.ready()

    def parts():
        return requests.get(worker.metrics_url + "/readyz", timeout=PATIENCE_S).json()["parts"]

    assert parts()["journal-events"]["reachable"]
    leave()
    try:
        assert wait_until(lambda: not parts()["journal-events"]["ready"])
        journal, store = parts()["journal-events"], parts()["events"]
        assert not journal["reachable"] and name in journal["reason"], journal
        assert store["ready"] and "reason" not in store
    finally:
        come_back()
    fleet.ready()


def an_api_says_that_no_worker_lives(fleet, waiting, counts):
    """It takes what comes, and warns once that waits for long. waiting: what is said to wait;
    counts: whether the engine says how much."""
    api = fleet.start("api", "api")
    fleet.ready()

    def part():
        answer = api.get("/readyz")
        assert answer.status_code == 200, answer.text
        return answer.json()["parts"]["events"]

    assert "warning" not in part()
    for number in range(3):
        assert api.post("/user_tags", json=tag("c", number)).status_code == 204
    assert wait_until(lambda: "warning" in part())
    assert part()["warning"].startswith("no worker has applied anything for ")
    assert part()["warning"].endswith(f": 3 {waiting} wait")
    assert part().get("lag_messages") == (3 if counts else None)
    shown = millrace("status", "--metrics-listen", f"127.0.0.1:{api.metrics_port}").stdout
    assert f"3 {waiting} wait" in shown and "tags " not in shown
    metrics = api.metrics()
    assert metrics['millrace_journal_still_seconds{consumer="events"}'] > 1
    assert metrics.get('millrace_journal_waiting_messages{consumer="events"}') == (3 if counts else None)
    fleet.start("worker", "worker")
    fleet.ready()
    assert wait_until(lambda: "warning" not in part())
    assert wait_until(lambda: part().get("lag_messages", 0) == 0)


def an_engine_fails_over(fleet, kill):
    """kill is of the one that takes the writes; another takes its place by itself."""
    one, two = fleet.start("api-1", "api,worker"), fleet.start("api-2", "api,worker")
    fleet.ready()
    with Load(one, two) as load:
        load.progress()
        kill()
        load.progress()
    load.check()


def another_store_is_refused(fleet, remove):
    """Whoever is given another prefix than the first takes nothing, and makes nothing there; until the mark
    is removed: remove(place) is of the engine. The events of the fleet are the last of its stores."""
    right = fleet.stores[-1]
    wrong, prefix = right + "x", right.split("prefix=")[1]
    api = fleet.start("api", "api")
    fleet.ready()
    assert api.post("/user_tags", json=tag("c", 1)).status_code == 204
    fleet.stores[-1] = wrong
    for roles in ("worker", "api", "api,worker", "worker"):
        said = fleet.refused(roles)
        assert f"belongs to the store {prefix}events/" in said, said
        assert "is another: it has no events under the name" in said, said
    fleet.stores[-1] = right
    worker = fleet.start("worker", "worker")
    fleet.ready()

    def there():
        buys = api.get("/user_profiles/c", params=ASKED).json()["buys"]
        return {buy["product_info"]["product_id"] for buy in buys}

    assert wait_until(lambda: there() == {"1"})
    # The way out, and that it leads to one store again.
    worker.stop()
    api.stop()
    fleet.members.clear()
    remove(place_of_mark(said))
    fleet.stores[-1] = wrong
    fleet.start("other", "api,worker")
    fleet.ready().stop()
    fleet.members.clear()
    fleet.stores[-1] = right
    said = fleet.refused("worker")
    assert f"belongs to the store {prefix}xevents/" in said and f"is another: {prefix}events/" in said, said
