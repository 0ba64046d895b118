# SPDX-License-Identifier: Apache-2.0
"""The journal on Kafka: the suite of drivers and the real server, with brokers that die, freeze, or
are not there yet; what was acknowledged is in effect once."""
import signal

import pytest
import requests

from conftest import free_port, millrace, wait_until
from driver_suite import run_shared_suites, run_suite
from kafka import Kafka
from load import Load


@pytest.fixture
def url(broker, unique):
    """A log of its own."""
    return f"kafka://{broker.servers}/?topic-prefix={unique}"


def journal_reason(address):
    try:
        parts = requests.get(address + "/readyz", timeout=10).json()["parts"]
    except requests.RequestException:
        return None
    return parts.get("journal", {}).get("reason", "")


def refused(server):
    """What a start that fails says."""
    server.spawn()
    assert server.process.wait(60) == 1
    server.process = None
    return server.stderr()


def test_what_all_drivers_promise(broker):
    here = f"kafka://{broker.servers}/?topic-prefix=LOG-"
    run_suite(here, weak="replica", refused=[
        here + "&replication=none", here + "&replication=1&min-insync=2", here + "&min-insync=0",
        here + "&compression=none-such", here + "&tls=perhaps", here.replace("LOG", "x" * 250)])


def test_a_journal_of_partitions_is_divided_among_those_who_come_and_go(broker):
    run_shared_suites(f"kafka://{broker.servers}/?topic-prefix=LOG-&partitions=4")


def test_a_topic_that_would_not_take_every_message_is_refused(server_factory, broker, url):
    from confluent_kafka.admin import AdminClient, NewTopic
    topic = url.split("topic-prefix=")[1] + "journal"
    client = AdminClient({"bootstrap.servers": broker.servers})
    [made] = client.create_topics(
        [NewTopic(topic, 1, 1, config={"max.message.bytes": "500000"})]).values()
    made.result()
    assert "max.message.bytes" in refused(server_factory("--journal", url))


def test_killed_and_started_again(server_factory, url):
    """kill -9 of the server in the middle of it, three times; then in order."""
    server = server_factory("--journal", url, "--checkpoint-interval", "100ms").start()
    with Load(server) as load:
        for _ in range(3):
            load.progress()
            server.kill()
            server.start()
        load.progress()
    load.check()
    server.stop()
    server.start()
    load.check()


def test_broker_killed_and_started_again(server_factory, broker, url):
    """Writes are refused or have no answer meanwhile, reads go on, and it heals by itself."""
    server = server_factory("--journal", url).start()
    with Load(server) as load:
        load.progress()
        broker.kill()
        try:
            assert wait_until(lambda: server.get("/readyz").status_code == 503)
            assert server.get("/collections/load").status_code == 200
        finally:
            broker.start()
        load.progress()
    load.check()
    server.kill()
    server.start()
    load.check()


def test_leader_of_three_killed(server_factory, tmp_path):
    """With three replicas the death of any broker is nothing but a pause."""
    with Kafka(tmp_path / "three", free_port, n=3) as kafka:
        server = server_factory("--journal", f"kafka://{kafka.servers}/?replication=3").start()
        with Load(server) as load:
            load.progress()
            kafka.leader("millrace-journal").kill()
            load.progress()
        load.check()
        assert "replica" not in server.stderr()
        server.stop()


def test_one_owner(server_factory, broker, url):
    """Who froze and wakes when another has taken over acknowledges nothing any more."""
    first = server_factory("--journal", url, name="first").start()
    with Load(first, writers=1) as load:
        load.progress(20)
    first.process.send_signal(signal.SIGSTOP)
    second = server_factory("--journal", url, name="second").start()
    first.process.send_signal(signal.SIGCONT)
    load.server = second
    load.check()
    answer = first.post("/get_id", json={"collection_name": "brand", "element": "x",
                                         "create_missing": True})
    assert answer.status_code == 503
    assert wait_until(lambda: "taken the journal over" in journal_reason(first.url))
    assert second.post("/get_id", json={"collection_name": "brand", "element": "x",
                                        "create_missing": True}).status_code == 200


def test_engine_that_is_down_at_start(server_factory, tmp_path):
    kafka = Kafka(tmp_path / "late", free_port)
    server = server_factory("--journal", f"kafka://{kafka.servers}/")
    server.spawn()
    for address in server.url, server.metrics_url:
        assert wait_until(lambda: "Kafka" in (journal_reason(address) or ""))
        assert requests.get(address + "/livez", timeout=10).status_code == 200
        assert requests.get(address + "/readyz", timeout=10).status_code == 503
    with kafka:
        assert wait_until(lambda: journal_reason(server.url) == "")
        assert server.put("/collections/a", json={"vectors": {"size": 4, "distance": "Dot"}}
                          ).status_code == 200
        server.stop()


def test_stop_while_it_waits(server_factory):
    server = server_factory("--journal", f"kafka://127.0.0.1:{free_port()}/")
    server.spawn()
    assert wait_until(lambda: journal_reason(server.url))
    server.stop()


def test_a_data_directory_keeps_to_its_journal(server_factory, broker, url):
    server = server_factory("--journal", url).start()
    server.post("/get_id", json={"collection_name": "brand", "element": "x",
                                 "create_missing": True})
    server.stop()
    server.options = ["--journal", "local:"]
    assert "start with the --journal that it had" in refused(server)
    other = server_factory("--journal", url + "other-", name="other").start()
    other.stop()
    server.options = ["--journal", url + "other-"]
    assert "belongs to another journal" in refused(server)


def test_from_local_to_kafka(server_factory, url):
    """What a journal on disk still has for the stores is not left behind."""
    server = server_factory("--checkpoint-interval", "1h").start()
    with Load(server, writers=1) as load:
        load.progress(20)
    server.kill()
    server.options = ["--journal", url]
    assert "start once with --journal local:" in refused(server)
    server.options = []
    server.start().stop()
    server.options = ["--journal", url]
    server.start()
    load.check()


def test_what_is_wrong_is_said(server_factory, broker, url):
    for wrong, word in (("&replication=x", "replication"), ("&partitions=3", "partitions"),
                        ("&compression=none-such", "compression"), ("&tls=perhaps", "tls")):
        assert word in refused(server_factory("--journal", url + wrong, name=word))


def test_weak_settings_are_named_and_secrets_are_not(server_factory, broker, url):
    server = server_factory("--journal", url.replace("kafka://", "kafka://me:sesame@", 1) +
                            "&sasl=PLAIN")
    assert "takes another user and password than the URL's, or none" in refused(server)
    plain = server_factory("--journal", url, name="plain").start()
    assert "has one replica" in plain.stderr()
    assert plain.get("/readyz").json()["parts"]["journal"] == {"ready": True, "url": url,
                                                               "reachable": True}
    shown = millrace("status", "--metrics-listen", f"127.0.0.1:{plain.metrics_port}")
    assert f"{url} reachable" in shown.stdout
    shown = {row["name"]: row["value"] for row in plain.get("/settings").json()["settings"]}
    assert shown["journal"] == url
    assert "sesame" not in server.stderr()
