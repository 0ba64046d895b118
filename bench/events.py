# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of events: bench/run events and bench/run large (README.md says more).

`millrace load tags` drives it and checks the answers: every figure is of a run with 0 wrong.
"""
import json
import os
import pathlib
import random
import signal
import statistics
import threading
import time

from common import QUICK, Millrace, client, directory, peer, show
from engines import alone_on_kafka, kafka, load_tags as load, parameter

START = "2022-03-22T12:00:00"
HIGH_MS = 200
RATES = (5_000, 10_000, 15_000, 20_000, 25_000, 30_000, 40_000, 50_000)


def latency(report, kind, quantile="p99"):
    return report["kinds"][kind]["latency_ms"][quantile]


# ---- Single tags beside a static answer ----
def counted(server, minutes):
    """Tags in the aggregates of so many minutes from the start on."""
    total = 0
    for first in range(0, minutes, 10):
        ends = [f"2022-03-22T{12 + m // 60:02}:{m % 60:02}:00" for m in (first, first + 10)]
        for action in ("VIEW", "BUY"):
            status, body = server.call("GET", f"/aggregates?time_range={ends[0]}_{ends[1]}&action="
                                              f"{action}&aggregates=COUNT")
            assert status == 200, body
            total += sum(int(row[-1]) for row in json.loads(body)["rows"])
    return total


def bench_single():
    n = 40_000 if QUICK else 200_000
    static = peer("static")
    empty = client(static, "empty", 256, n * 2)
    same = client(static, "tag", 256, n)
    static.end(signal.SIGKILL)
    rows = [{"what": "static 204, no body", "per_s": empty["requests_per_s"],
             "p99_ms": empty["p99_ms"], "ratio": 1.0},
            {"what": "static 204, same body", "per_s": same["requests_per_s"],
             "p99_ms": same["p99_ms"], "ratio": same["requests_per_s"] / empty["requests_per_s"]}]
    with directory() as data:
        server = Millrace(data, "--sync", "group")
        done = client(server, "tag", 256, n)
        end = time.monotonic()
        while counted(server, n // 60_000 + 2) < n:
            assert time.monotonic() - end < 60
            time.sleep(0.002)
        rows.append({"what": "POST /user_tags", "per_s": done["requests_per_s"],
                     "p99_ms": done["p99_ms"], "applied_after_s": time.monotonic() - end,
                     "ratio": done["requests_per_s"] / empty["requests_per_s"]})
        server.end()
    show("events-single", rows, ["what", "per_s", "p99_ms", "applied_after_s", "ratio"])


# ---- Batches beside a broker ----
def bench_batch():
    n = parameter("--batch-tags", 20_000_000, 1_000_000)
    rows = []
    with directory() as data, kafka(data) as broker:
        done = alone_on_kafka(broker, n)
        rows.append({"what": "Kafka: produced, acks=all", "tags": n,
                     "per_s": n / done["produced_s"]})
        rows.append({"what": "Kafka: consumed, nothing done", "tags": n,
                     "per_s": n / done["consumed_s"]})
    with directory() as data:
        server = Millrace(data)
        done = load(server, "--count", n, "--batch-size", 1000, "--connections", 4, "--no-queries")
        assert done["good"], done
        rows.append({"what": "millrace: acknowledged", "tags": n,
                     "per_s": done["acknowledged_per_second"]})
        rows.append({"what": "millrace: parsed, durable, applied", "tags": n,
                     "per_s": done["applied_per_second"],
                     "cpu_us_a_tag": server.cpu_s() * 1e6 / n})
        server.end()
    show("events-batch", rows, ["what", "tags", "per_s", "cpu_us_a_tag"])


# ---- The platform's rate, and the highest ----
class Probe:
    """The disk's own: 4 KiB appended and synced, 50 times a second, until it ends.

    Alone, and beside what is measured: disks and cores of shared machines are not the same from
    one minute to the next, and a disk that others use too is not the same as one that waits."""

    def __init__(self, folder):
        self.path = folder / "probe"
        self.times = []
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT)
        while not self.ending.wait(0.02):
            os.pwrite(file, b"x" * 4096, len(self.times) * 4096)
            begin = time.monotonic()
            os.fdatasync(file)
            self.times.append((time.monotonic() - begin) * 1e3)
        os.close(file)
        self.path.unlink()

    def row(self, when):
        self.ending.set()
        self.thread.join()
        return {"what": f"fdatasync of 4 KiB, {when}",
                "tags_p99_ms": sorted(self.times)[len(self.times) * 99 // 100]}


def processor_ticks():
    """Of all processors since the machine started: all, and those that its host took for others."""
    ticks = [int(n) for n in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return sum(ticks), ticks[7]


def run_rate(server, what, rate, count, *arguments):
    """The report, and a row of it."""
    before = processor_ticks()
    done = load(server, "--rate", rate, "--count", count, *arguments)
    total, stolen = (now - then for now, then in zip(processor_ticks(), before))
    return done, {
            "what": what, "rate": rate, "tags_p99_ms": latency(done, "tags"),
            "profiles_p99_ms": latency(done, "profiles"),
            "aggregates_p99_ms": latency(done, "aggregates"),
            "max_ms": max(latency(done, kind, "max") for kind in done["kinds"]),
            "late": done["late"], "wrong": done["wrong"], "errors": done["errors"],
            "acknowledged_per_s": done["acknowledged_per_second"],
            "stolen_percent": 100.0 * stolen / max(total, 1)}


def bench_rate():
    """Returns the highest rate."""
    rows = []
    best = 0
    with directory() as data:
        server = Millrace(data)
        probe = Probe(data.parent)
        time.sleep(5)
        rows.append(probe.row("alone"))
        for _ in range(1 if QUICK else 3):
            probe = Probe(data.parent)
            _, row = run_rate(server, "the platform's rate", 1000, 10_000 if QUICK else 30_000)
            rows += [probe.row("beside the next"), row]
        for rate in RATES:
            done, row = run_rate(server, "rising", rate, rate * (5 if QUICK else 20),
                                 "--connections", 256)
            rows.append(row)
            if not done["good"] or done["acknowledged_per_second"] < 0.98 * rate or max(
                    latency(done, kind) for kind in done["kinds"]) > HIGH_MS:
                break
            best = rate
        server.end()
    rows.append({"what": "the highest", "rate": best})
    show("events-rate", rows, ["what", "rate", "acknowledged_per_s", "tags_p99_ms",
                               "profiles_p99_ms", "aggregates_p99_ms", "max_ms", "late", "wrong",
                               "errors", "stolen_percent"])
    return best


def bench_visible(highest):
    """0 wrong: no sampled profile lacked a tag acknowledged 50 ms before it was asked for."""
    rate = max(highest // 2, 1000)
    with directory() as data:
        server = Millrace(data)
        done = load(server, "--rate", rate, "--count", rate * (5 if QUICK else 30),
                    "--connections", 256, "--visible-within", "50ms")
        server.end()
    show("events-visible", [{"what": "visible within 50 ms", "rate": rate,
                             "checked_profiles": done["checked_profiles"],
                             "wrong": done["wrong"], "slowest_ms": done["not_yet_seen_ms"]}],
         ["what", "rate", "checked_profiles", "wrong", "slowest_ms"])


# ---- More than memory ----
def disk_bytes(folder):
    return sum(p.stat().st_blocks * 512 for p in pathlib.Path(folder).rglob("*") if p.is_file())


class Peaks(threading.Thread):
    """The most that is resident while a block runs: anonymous memory, which is what --memory-limit
    bounds, pages of mapped files (programs, libraries, sealed segments of points), which are the page
    cache's and the kernel's to take, and both at one moment."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.ended = server, threading.Event()
        self.anonymous = self.mapped = self.resident = 0

    def run(self):
        while not self.ended.wait(0.2):
            now = self.server.memory()
            self.anonymous = max(self.anonymous, now["RssAnon"])
            self.mapped = max(self.mapped, now["RssFile"])
            self.resident = max(self.resident, now["VmRSS"])

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()


def over_1000(tags, cookies, heavy):
    """How many cookies have more than 1,000 tags, and which share of the tags they have: expected,
    as load_tags_draw.c deals the tags."""
    if heavy == 0:  # Zipf's law: the cookie of rank r has tags / 3 / cookies^(1/3) / r^(2/3) of them
        n = min((tags / 3 / 1000 / cookies ** (1 / 3)) ** 1.5, cookies)
        return int(n), (n / cookies) ** (1 / 3)
    n, of_tags = 0, 0.0
    for group, share in ((heavy, 0.8), (cookies - heavy, 0.2)):
        mean = tags * share / group
        over = 1 - statistics.NormalDist(mean, mean ** 0.5).cdf(1000)
        n, of_tags = n + round(group * over), of_tags + share * over
    return n, of_tags


def filtered_aggregates(server, minutes):
    """Milliseconds of aggregates of ten minutes each with an origin as filter, all over the day: most
    are of minutes that no cache has."""
    draw, times = random.Random(1), []
    for _ in range(50 if QUICK else 500):
        first = 720 + draw.randrange(max(minutes - 9, 1))
        ends = [f"2022-03-{22 + m // 1440}T{m // 60 % 24:02}:{m % 60:02}:00"
                for m in (first, first + 10)]
        begin = time.monotonic()
        status, body = server.call("GET", f"/aggregates?time_range={ends[0]}_{ends[1]}&action=VIEW"
                                          f"&aggregates=COUNT&origin=origin-{draw.randrange(1000)}")
        times.append((time.monotonic() - begin) * 1e3)
        assert status == 200, body
    return sorted(times)


def bench_large():
    n = parameter("--tags", 50_000_000, 1_000_000)
    cookies = parameter("--cookies", 1_000_000, 20_000)
    heavy = parameter("--heavy-cookies", cookies * 36 // 1000, cookies * 36 // 1000)
    users = ["--cookies", cookies, "--heavy-cookies", heavy]
    options = ["--memory-limit", os.environ.get("BENCH_MEMORY_LIMIT", "1G")]
    minutes = n // 60_000 + 1
    with directory() as data:
        server = Millrace(data, *options)
        with Peaks(server) as loading:
            done = load(server, "--count", n, "--batch-size", 1000, "--connections", 4,
                        "--no-queries", *users)
        assert done["good"], done
        server.end()
        stored = disk_bytes(data / "events")
        begin = time.monotonic()
        server = Millrace(data, *options)
        ready = time.monotonic() - begin
        # Tags that follow on: the queries ask for the cookies that are there.
        minute = 720 + minutes
        with Peaks(server) as asking:
            after = load(server, "--rate", 1000, "--count", 10_000 if QUICK else 60_000, "--start",
                         f"2022-03-{22 + minute // 1440}T{minute // 60 % 24:02}:{minute % 60:02}:00",
                         *users)
            aggregates = filtered_aggregates(server, minutes)
        server.end()
    over, share = over_1000(n, cookies, heavy)
    print(f"{over:,} of {cookies:,} cookies, {100 * over / cookies:.2f} %, have more than 1,000 tags: "
          f"{100 * share:.0f} % of the {n:,} tags")
    show("events-large", [{"what": f"--memory-limit {options[1]}", "tags": n, "cookies": cookies,
                           "cookies_over_1000": over, "percent_over_1000": 100 * over / cookies,
                           "per_s": done["applied_per_second"],
                           "disk_bytes_a_tag": stored / n, "ready_s": ready,
                           "profiles_p99_ms": latency(after, "profiles"),
                           "aggregates_p99_ms": latency(after, "aggregates"),
                           "filtered_p50_ms": aggregates[len(aggregates) // 2],
                           "filtered_p99_ms": aggregates[len(aggregates) * 99 // 100],
                           "wrong": after["wrong"]}],
         ["what", "tags", "cookies", "cookies_over_1000", "percent_over_1000", "per_s",
          "disk_bytes_a_tag", "ready_s", "profiles_p99_ms", "aggregates_p99_ms", "filtered_p50_ms",
          "filtered_p99_ms", "wrong"])
    show("events-memory", [{"what": what, "anonymous_mib": peaks.anonymous / 2 ** 20,
                            "file_mib": peaks.mapped / 2 ** 20, "rss_mib": peaks.resident / 2 ** 20}
                           for what, peaks in (("while loading", loading), ("while asking", asking))],
         ["what", "anonymous_mib", "file_mib", "rss_mib"])


def bench():
    bench_single()
    bench_batch()
    bench_visible(bench_rate())
