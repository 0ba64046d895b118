# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of other people's engines: bench/run engines.

  tags      through Kafka into the local event store, end to end (HTTP, produce, consume, apply), beside
            what librdkafka alone produces and consumes at acks=all, on the same broker in the same run
  latency   one POST /user_tags at a time with the journal on that broker, beside one message of
            librdkafka at a time: what the API adds to the engine's own acknowledgement
  points    through the client of Qdrant into a sink that only answers, beside a bare sender of the same
            requests made before
  journals  tags into the local event store with the journal on each engine
  shared    tags into a Redis Cluster with a journal of twelve partitions on each engine
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

sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "engines")]  # the engines that the tests have
from kafka import Kafka  # noqa: E402
from rabbitmq import RabbitMQ  # noqa: E402
from redis_cluster import RedisCluster  # noqa: E402
from redis_server import DURABLE, PASSWORD, Redis  # noqa: E402

SINGLES = 2000
IN_BATCHES = "--batch-size", 1000, "--connections", 4, "--no-queries"


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


def tags_over(journal, folder, n, *options):
    server = Millrace(folder, "--journal", journal, *options)
    p50_ms = single_ms(server)
    before_s = server.cpu_s()
    done = load_tags(server, "--count", n, *IN_BATCHES)
    assert done["good"], done
    cpu_us = (server.cpu_s() - before_s) * 1e6 / n
    server.end()
    return {"acknowledged_per_s": done["acknowledged_per_second"],
            "applied_per_s": done["applied_per_second"], "cpu_us_a_tag": cpu_us,
            "single_p50_ms": p50_ms}


def tags_through_kafka(servers, folder):
    n = parameter("--batch-tags", 5_000_000, 500_000)
    alone = alone_on_kafka(servers, n)
    ours = tags_over(f"kafka://{servers}/", folder, n)
    both = n / (alone["produced_s"] + alone["consumed_s"])
    show("engines-tags", [
        {"what": "librdkafka alone: produced", "per_s": n / alone["produced_s"]},
        {"what": "librdkafka alone: consumed", "per_s": n / alone["consumed_s"]},
        {"what": "librdkafka alone: produced, then consumed", "per_s": both, "ratio": 1.0},
        {"what": "millrace on Kafka: acknowledged", "per_s": ours["acknowledged_per_s"],
         "ratio": ours["acknowledged_per_s"] / both},
        {"what": "millrace on Kafka: applied", "per_s": ours["applied_per_s"],
         "ratio": ours["applied_per_s"] / both, "cpu_us_a_tag": ours["cpu_us_a_tag"]},
    ], ["what", "per_s", "ratio", "cpu_us_a_tag"])
    show("engines-latency", [
        {"what": "librdkafka alone, one at a time", "p50_ms": alone["single_p50_ms"], "added_ms": 0.0},
        {"what": "POST /user_tags, one at a time", "p50_ms": ours["single_p50_ms"],
         "added_ms": ours["single_p50_ms"] - alone["single_p50_ms"]},
    ], ["what", "p50_ms", "added_ms"])


def points_to_a_sink():
    subprocess.run(["ninja", "-C", str(BUILD), "bench/bench-qdrant"], check=True,
                   stdout=subprocess.DEVNULL)
    n = parameter("--points", 1_000_000, 300_000)
    show("engines-points", [
        json.loads(subprocess.run([str(BUILD / "bench/bench-qdrant"), str(n), str(batch), "2"],
                                  capture_output=True, check=True).stdout)
        for batch in (10, 100, 500, 1000)],
        ["batch", "bare_points_per_s", "points_per_s", "ratio", "bare_cpu_us_a_point", "cpu_us_a_point"])


def compare(name, data, n, journals, *options):
    """A new database of events for each: --events, where there is one, takes the row's name."""
    show(name, [{"journal": what} | tags_over(
        journal, data / f"{name}-{i}", n, *(o.format(prefix=f"{name}{i}-") for o in options))
        for i, (what, journal) in enumerate(journals)],
        ["journal", "acknowledged_per_s", "applied_per_s", "cpu_us_a_tag", "single_p50_ms"])


def bench():
    with contextlib.ExitStack() as ends, directory() as data:
        points_to_a_sink()
        servers = ends.enter_context(kafka(data))
        tags_through_kafka(servers, data / "tags")
        redis = Redis(data / "redis", **DURABLE).start()
        ends.callback(redis.kill)
        rabbit = RabbitMQ(data / "rabbitmq").start()
        ends.callback(rabbit.stop)
        cluster = RedisCluster(data / "cluster").start()
        ends.callback(cluster.kill)
        to_redis = f"redis://:{PASSWORD}@127.0.0.1:{redis.port}/"
        to_rabbit = f"amqp://guest:guest@127.0.0.1:{rabbit.port}/"
        n = parameter("--journal-tags", 1_000_000, 100_000)
        compare("engines-journals", data, n, [
            ("local", "local:"), ("Kafka", f"kafka://{servers}/?topic-prefix=one-"),
            ("Redis", to_redis), ("RabbitMQ", to_rabbit)])
        compare("engines-shared", data, n // 5, [
            ("Kafka", f"kafka://{servers}/?partitions=12&topic-prefix=many-"),
            ("Redis", f"{to_redis}?partitions=12&prefix=many-"),
            ("RabbitMQ, streams", f"{to_rabbit}?partitions=12&prefix=many-"),
            ("RabbitMQ, quorum queues", f"{to_rabbit}?partitions=12&queues=quorum&prefix=quorum-"),
        ], "--roles", "api,worker", "--events", f"{cluster.url}/?prefix={{prefix}}")
