# SPDX-License-Identifier: Apache-2.0
"""Records that no route lets through, in a journal that processes share: as a bug, another version or
damage could bring them. And what becomes of their dead letters, from any API.
src/journal/remote/shared_message.c tells the bytes of a message, and the head of src/journal/frame.c
those of a frame."""
import concurrent.futures
import json
import signal
import struct
import subprocess

from conftest import BINARY, PATIENCE_S, wait_until
from journal_file import FRAME_BYTES, KINDS, crc32c
from load import tag
from roles import ASKED

HEAD_BYTES = 16


def message(kind, key_hash, payload, salt=1):
    head = bytearray(FRAME_BYTES)
    struct.pack_into("<IQQQBBI", head, 4, len(payload), 0, key_hash, 1_700_000_000_000_000,
                     KINDS[kind], 0, 1)
    struct.pack_into("<H", head, 38, crc32c(salt, head[4:38]) & 0xFFFF)
    struct.pack_into("<I", head, 0, crc32c(crc32c(salt, payload), head[4:40]))
    counted = struct.pack("<II", salt, 1)
    return (b"MRS\x01" + struct.pack("<I", crc32c(0, counted)) + counted
            + bytes(head) + payload + bytes(-len(payload) % 8))


def key_hash_of(data):
    """Of its first record."""
    return struct.unpack_from("<Q", data, HEAD_BYTES + 16)[0]


class KafkaLog:
    """A log of a fleet's journal, its messages and what is written into it behind their backs."""

    def __init__(self, servers, topic, partitions):
        self.servers, self.topic, self.partitions = servers, topic, partitions

    def newest(self):
        """(partition, message) of any that is there."""
        from confluent_kafka import Consumer, TopicPartition
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": "look", "log_level": 0})
        consumer.assign([TopicPartition(self.topic, p, 0) for p in range(self.partitions)])
        found = consumer.poll(PATIENCE_S)
        assert found and not found.error()
        consumer.close()
        return found.partition(), found.value()

    def append(self, partition, data):
        from confluent_kafka import Producer
        producer = Producer({"bootstrap.servers": self.servers, "log_level": 0})
        producer.produce(self.topic, data, partition=partition)
        assert producer.flush(PATIENCE_S) == 0


class RedisLog:
    def __init__(self, redis, name, partitions):
        self.redis, self.name, self.partitions = redis, name, partitions

    def newest(self):
        """Of what is not trimmed yet."""
        for partition in range(self.partitions):
            last = self.redis.call("XREVRANGE", f"{self.name}-{partition}", "+", "-", "COUNT", 1)
            if last:
                return partition, last[0][1][1].encode(errors="surrogateescape")
        raise AssertionError("there is none")

    def append(self, partition, data):
        self.redis.call("EVAL", """local top = redis.call('XINFO', 'STREAM', KEYS[1])
            for i = 1, #top, 2 do if top[i] == 'last-generated-id' then top = top[i + 1] break end end
            return redis.call('XADD', KEYS[1], string.format('%d-0', string.match(top, '%d+') + 1),
                              'm', ARGV[1])""", 1, f"{self.name}-{partition}", data.decode(errors="surrogateescape"))


def listed(api, kind, **query):
    answer = api.get("/dead-letters", params={"kind": kind, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()["dead_letters"]


def by_pages(api, limit, **query):
    """All of them, limit at a time."""
    found, cursor = [], None
    while True:
        answer = api.get("/dead-letters", params={"limit": limit, "cursor": cursor, **query}).json()
        assert len(answer["dead_letters"]) <= limit
        found += answer["dead_letters"]
        cursor = answer["next_cursor"]
        if not cursor:
            return found


def counted(api, kind):
    return api.metrics().get(f'millrace_consumer_dead_letters{{consumer="{kind}"}}')


def tool(fleet, *arguments, stores=None, given=None, status=0):
    """millrace journal dead-letters, beside the processes that run."""
    done = subprocess.run([BINARY, "journal", "dead-letters", *arguments, "--journal", fleet.journal,
                           *(stores or fleet.stores)], capture_output=True, text=True, timeout=PATIENCE_S,
                          input=given)
    assert done.returncode == status, (arguments, done.stdout, done.stderr)
    return done.stdout + done.stderr


def at(letter, rest=""):
    return f"/dead-letters/{letter['kind']}/{letter['number']}{rest}"


def at_once(worker, *calls):
    """Two calls while no worker applies anything: what they append is applied together."""
    worker.process.send_signal(signal.SIGSTOP)
    try:
        with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
            return [done.result().status_code for done in [pool.submit(call) for call in calls]]
    finally:
        worker.process.send_signal(signal.SIGCONT)


def letters_of_events_go_from_any_api(fleet, log):
    one, two, worker = fleet.start("one", "api"), fleet.start("two", "api"), fleet.start("w", "worker")
    fleet.ready()

    def products():
        buys = one.get("/user_profiles/c", params=ASKED).json()["buys"]
        return sorted(int(buy["product_info"]["product_id"]) for buy in buys)

    worker.process.send_signal(signal.SIGSTOP)  # so that nothing is trimmed before it was seen
    assert two.post("/user_tags", json=tag("c", 1)).status_code == 204
    partition, data = log.newest()
    worker.process.send_signal(signal.SIGCONT)
    for i in range(5):
        log.append(partition, message("events", key_hash_of(data), b"\xff" + bytes([i])))
    assert two.post("/user_tags", json=tag("c", 2)).status_code == 204
    assert wait_until(lambda: len(listed(one, "events")) == 5)
    assert wait_until(lambda: products() == [1, 2]), "nothing waits for a letter"
    letters = listed(two, "events")
    assert {(letter["reason"], letter["changed"], letter["bytes"]) for letter in letters} \
        == {("not a record of events", None, 2)}
    assert wait_until(lambda: counted(one, "events") == counted(two, "events") == 5)
    numbers = [letter["number"] for letter in letters]
    assert numbers == sorted(set(numbers), reverse=True)
    assert by_pages(one, 1) == by_pages(one, 3) == letters
    whole = one.get(at(letters[0])).json()
    assert whole["record"] is None and "does not decode" in whole["record_error"]
    assert one.post(at(letters[0], "/replay")).status_code == 422
    assert one.post(at(letters[0], "/replay"), json={"record": tag("d", 3)}).status_code == 422
    answer = two.post(at(letters[0], "/replay"), json={"record": tag("c", 3)})
    assert answer.status_code == 200 and answer.json()["lsn"] > 0, answer.text
    assert products() == [1, 2, 3], "it is applied when that is answered"
    assert one.get(at(letters[0])).status_code == 404
    assert one.post(at(letters[0], "/replay"), json={"record": tag("c", 4)}).status_code == 404
    # Two at once, and nobody applies them for now: one has its effect.
    assert at_once(worker, lambda: one.post(at(letters[1], "/replay"), json={"record": tag("c", 5)}),
                   lambda: two.post(at(letters[1], "/replay"), json={"record": tag("c", 6)})) == [202] * 2
    assert wait_until(lambda: listed(one, "events") == letters[2:])
    assert two.post("/user_tags", json=tag("c", 7)).status_code == 204
    assert wait_until(lambda: 7 in products())
    assert products() in ([1, 2, 3, 5, 7], [1, 2, 3, 6, 7])
    # A worker that dies with the record in its hands: the next one finds it.
    worker.process.send_signal(signal.SIGSTOP)
    assert one.post(at(letters[2], "/replay"), json={"record": tag("c", 8)}).status_code == 202
    worker.kill()
    worker.spawn()
    fleet.ready()
    assert wait_until(lambda: 8 in products())
    assert wait_until(lambda: listed(two, "events") == letters[3:])
    assert products().count(8) == 1
    assert one.delete(at(letters[3])).status_code == 204
    assert two.delete(at(letters[3])).status_code == 404
    number = str(letters[4]["number"])
    assert json.loads(tool(fleet, "list", "--json")) == letters[4]
    assert "not a record of events" in tool(fleet, "list")
    assert "does not decode" in tool(fleet, "show", number, status=1)
    assert "written again" in tool(fleet, "edit", number, given=json.dumps(tag("c", 9)))
    assert 9 in products()
    assert "there is no dead letter" in tool(fleet, "drop", number, status=1)
    assert "no dead letters" in tool(fleet, "list")
    assert listed(two, "events") == []
    key = key_hash_of(data)
    for number, key_hash in enumerate([key, key ^ 1, key]):
        log.append(partition, message("events", key_hash, b"\xff" + bytes([number])))
    assert two.post("/user_tags", json=tag("c", 10)).status_code == 204
    assert wait_until(lambda: len(listed(one, "events")) == 3)
    others = listed(one, "events")[1]
    assert one.delete("/user_profiles/c").status_code == 204
    assert wait_until(lambda: listed(two, "events") == [others]), "who is erased has no letters"
    assert two.delete(at(others)).status_code == 204
    assert wait_until(lambda: counted(one, "events") == counted(two, "events") == 0)
