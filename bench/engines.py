# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of other people's engines: bench/run engines.

  tags      through Kafka into the local event store, end to end (HTTP, produce, consume, apply), beside
            what librdkafka alone produces and consumes at acks=all, on the same broker in the same run
  latency   one POST /user_tags at a time with the journal on that broker, beside one message of
            librdkafka at a time: what the API adds to the engine's own acknowledgement
"""
import contextlib
import http.client
import json
import pathlib
import statistics
import subprocess
import sys
import time

from common import BUILD, QUICK, ROOT, Millrace, directory, free_port, show

sys.path.append(str(ROOT / "tests" / "engines"))
from kafka import Kafka  # noqa: E402  the broker that the engines' tests have

SINGLES = 2000


def parameter(name, full, quick):
    if name in sys.argv:
        return int(sys.argv[sys.argv.index(name) + 1])
    return quick if QUICK else full


def load_tags(server, *arguments):
    """millrace load tags; its report, which must say that nothing is wrong, lost or failed."""
    done = subprocess.run([str(BUILD / "millrace"), "load", "tags", "--json", "--url",
                           f"http://127.0.0.1:{server.port}", *map(str, arguments)],
                          capture_output=True, text=True)
    if not done.stdout:
        sys.exit(f"millrace load tags: {done.stderr}")
    report = json.loads(done.stdout)
    report["good"] = done.returncode == 0
    report["says"] = done.stderr.strip()
    return report


@contextlib.contextmanager
def kafka(folder):
    """A single node with default durability and compiled code."""
    with Kafka(pathlib.Path(folder) / "kafka", free_port, java=("-Xmx1g",)) as cluster:
        yield cluster.servers


def alone_on_kafka(servers, n):
    """librdkafka alone, with the tags of `millrace load tags`."""
    subprocess.run(["ninja", "-C", str(BUILD), "bench/bench-kafka"], check=True,
                   stdout=subprocess.DEVNULL)
    out = subprocess.run([str(BUILD / "bench/bench-kafka"), servers, "tags", str(n)],
                         capture_output=True, text=True)
    if out.returncode:
        sys.exit(f"bench-kafka: {out.stderr}")
    return json.loads(out.stdout)


def single_ms(server):
    """The median of one request at a time on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    body = json.dumps({"time": "2022-03-22T12:15:00.000Z", "cookie": "c", "country": "PL",
                       "device": "PC", "action": "VIEW", "origin": "o",
                       "product_info": {"product_id": "1", "brand_id": "b", "category_id": "k",
                                        "price": 1}})
    times = []
    for _ in range(SINGLES):
        started = time.perf_counter()
        connection.request("POST", "/user_tags", body)
        answer = connection.getresponse()
        answer.read()
        times.append(time.perf_counter() - started)
        assert answer.status == 204
    return statistics.median(times) * 1e3


def bench():
    n = parameter("--batch-tags", 5_000_000, 500_000)
    with directory() as data, kafka(data) as servers:
        alone = alone_on_kafka(servers, n)
        server = Millrace(data / "millrace", "--journal", f"kafka://{servers}/")
        ours_ms = single_ms(server)
        done = load_tags(server, "--count", n, "--batch-size", 1000, "--connections", 4,
                         "--no-queries")
        assert done["good"], done
        cpu_us = server.cpu_s() * 1e6 / n
        server.end()
    both = n / (alone["produced_s"] + alone["consumed_s"])
    show("engines-tags", [
        {"what": "librdkafka alone: produced", "per_s": n / alone["produced_s"]},
        {"what": "librdkafka alone: consumed", "per_s": n / alone["consumed_s"]},
        {"what": "librdkafka alone: produced, then consumed", "per_s": both, "ratio": 1.0},
        {"what": "millrace on Kafka: acknowledged", "per_s": done["acknowledged_per_second"],
         "ratio": done["acknowledged_per_second"] / both},
        {"what": "millrace on Kafka: applied", "per_s": done["applied_per_second"],
         "ratio": done["applied_per_second"] / both, "cpu_us_a_tag": cpu_us},
    ], ["what", "per_s", "ratio", "cpu_us_a_tag"])
    show("engines-latency", [
        {"what": "librdkafka alone, one at a time", "p50_ms": alone["single_p50_ms"], "added_ms": 0.0},
        {"what": "POST /user_tags, one at a time", "p50_ms": ours_ms,
         "added_ms": ours_ms - alone["single_p50_ms"]},
    ], ["what", "p50_ms", "added_ms"])
