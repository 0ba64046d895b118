# SPDX-License-Identifier: Apache-2.0
"""The disk's faults under events, RocksDB's files included: full, failing, hanging, damaged. Profiles
and aggregates hold exactly what was acknowledged (and of what got 503 each tag once or not at all),
reads go on, it heals by itself, and damage is named and never returned as data.
"""
import os
import random
import re
import shutil
import subprocess
import threading
import time

import pytest

from conftest import ROOT, wait_until
from disk import fill, injecting, needs_strace, small_disk  # noqa: F401 (a fixture)
from events_model import (ACTIONS, Maker, Model, Wire, canonical, check_aggregates, check_profiles,
                          settle)

DEBUG = str(ROOT / "build-debug" / "millrace")
RELEASE = str(ROOT / "build" / "millrace")
CONSTANT = ["--checkpoint-interval", "20ms", "--checkpoint-size", "1K"]
SEED = int(os.environ.get("SEED") or random.randrange(2**32))
TAGS_A_COOKIE = 150  # fewer than are kept, so that each tag can be found


class Writer(threading.Thread):
    """Sends tags, singly and in batches; remembers which were taken and which got 503."""

    def __init__(self, server):
        super().__init__()
        print(f"seed {SEED}")
        self.server, self.random = server, random.Random(SEED)
        self.maker, self.model = Maker(self.random, []), Model()
        self.unknown, self.statuses, self.error = [], {}, None
        self.running = True

    def run(self):
        try:
            wire = Wire(self.server)
            while self.running:
                self.step(wire)
        except Exception as error:  # the test reads it
            self.error = error

    def step(self, wire):
        self.maker.cookies = [f"c/{self.maker.n // TAGS_A_COOKIE}"]
        tags = [self.maker.tag() for _ in range(self.random.choice([1, 1, 1, 8]))]
        answer = wire.post_tag(tags[0]) if len(tags) == 1 else wire.post_tags(tags)
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        if answer.status in (200, 204):
            for tag in tags:
                self.model.add(tag)
            return
        assert answer.status in (429, 503) and answer.headers["Retry-After"], answer.body
        assert answer.json()["error"]["code"]
        self.unknown.append(tags)
        time.sleep(0.02)

    def taken(self):
        return sum(n for status, n in self.statuses.items() if status in (200, 204))

    def finish(self):
        """Ends it; what had no good answer is looked up, once."""
        self.running = False
        self.join(120)
        if self.error:
            raise self.error
        settle(self.server)
        wire = Wire(self.server)
        for tags in self.unknown:
            profile = wire.profile(tags[0]["cookie"])
            texts = {canonical(tag) for name in ACTIONS.values() for tag in profile[name]}
            there = [tag for tag in tags if canonical(tag) in texts]
            assert len(there) in (0, len(tags)), "a part of a batch"
            for tag in there:
                self.model.add(tag)
        self.check()

    def check(self):
        settle(self.server)
        wire = Wire(self.server)
        check_profiles(wire, self.model, self.random, sorted(self.model.profiles), queries=1)
        check_aggregates(wire, self.model, self.random)
        check_aggregates(wire, self.model, self.random, "2022-03-22T12:11")


def status_of_a_tag(server):
    tag = Maker(random.Random(1), ["probe"]).tag(time="2001-01-01T00:00:00.000Z")
    return Wire(server).post_tag(tag).status


def checkpoints(server, result="ok"):
    name = 'millrace_checkpoints_total{store="events",result="%s"}' % result
    return server.metrics().get(name, 0)


def checkpoints_go_on(server):
    before = checkpoints(server)
    assert status_of_a_tag(server) == 204
    return wait_until(lambda: checkpoints(server) > before)


def check_after_kill(server, writer):
    server.kill()
    server.start()
    writer.check()
    server.stop()


def test_invariant_6_events_on_a_full_disk_heal(server_factory, small_disk, tmp_path):
    server = server_factory("--checkpoint-interval", "100ms", binary=DEBUG)
    server.directory = small_disk / "data"
    server.log = tmp_path / "full.stderr"
    server.start()
    writer = Writer(server)
    writer.start()
    assert wait_until(lambda: writer.taken() > 100)
    filler = fill(small_disk / "filler")
    assert wait_until(lambda: writer.statuses.get(503, 0) > 5), writer.statuses
    assert server.get("/livez").status_code == 200
    wire = Wire(server)
    assert wire.profile("c/0")["cookie"] == "c/0"
    assert wire.aggregate(["2022-03-22T12:15"], "VIEW", {"origin": "origin1"}, ["COUNT"])["rows"]
    filler.unlink()
    assert wait_until(lambda: status_of_a_tag(server) == 204), "did not heal"
    assert checkpoints_go_on(server)
    writer.finish()
    check_after_kill(server, writer)


def test_invariant_6_a_user_is_erased_on_a_disk_without_room_for_tags(server_factory, small_disk,
                                                                      tmp_path):
    """Half of the reserve is for what makes room."""
    server = server_factory(binary=DEBUG)
    server.directory = small_disk / "data"
    server.log = tmp_path / "reserve.stderr"
    server.start()
    assert status_of_a_tag(server) == 204
    space = os.statvfs(small_disk)
    reserve = space.f_blocks * space.f_frsize // 20
    filler = fill(small_disk / "filler")
    os.truncate(filler, filler.stat().st_size - reserve * 3 // 4)
    wire = Wire(server)
    assert wait_until(lambda: status_of_a_tag(server) == 503, 30)
    assert wait_until(lambda: wire.erase("probe").status == 204, 30)
    assert status_of_a_tag(server) == 503
    assert wire.profile("probe")["views"] == wire.profile("probe")["buys"] == []
    filler.unlink()


def paths_of(server, pattern):
    """Of the events: the file that a checkpoint writes, RocksDB's manifest, or the next files that
    RocksDB makes, as in a compaction; *: all files there are, the journal's too."""
    if pattern == "*":
        return []
    if pattern == "next":
        newest = max(int(p.stem) for p in (server.directory / "events/rocksdb").glob("*.sst"))
        return [server.directory / f"events/rocksdb/{newest + i:06}.sst" for i in range(1, 100)]
    found = sorted((server.directory / "events").glob(pattern))
    return found or [server.directory / "events" / pattern]  # not there yet


@needs_strace
@pytest.mark.parametrize("expression,files", [
    ("fdatasync:error=EIO:when=2+3", "ingest.sst"), ("write:error=EIO:when=2+5", "ingest.sst"),
    ("fdatasync:error=EIO:when=2+", "rocksdb/MANIFEST-*"), ("link:error=ENOSPC:when=1+2", "*"),
    ("fsync:error=EIO", "*"), ("write:error=EIO", "next"), ("write:error=ENOSPC", "next")])
def test_invariant_7_injected_errors_in_checkpoints(server_factory, expression, files):
    server = server_factory(*CONSTANT, binary=DEBUG).start()
    writer = Writer(server)
    writer.start()
    assert wait_until(lambda: writer.taken() > 10 and checkpoints(server) > 0)
    with injecting(server, expression, paths_of(server, files)):
        time.sleep(1.2)
        if files != "next":  # a compaction's file may be hit only
            assert wait_until(lambda: checkpoints(server, "failed") > 0)
        assert server.get("/livez").status_code == 200
    assert wait_until(lambda: status_of_a_tag(server) == 204), "did not heal"
    assert wait_until(lambda: checkpoints_go_on(server)), "no checkpoint any more"
    writer.finish()
    check_after_kill(server, writer)


@needs_strace
def test_invariant_10_a_checkpoint_that_hangs_stops_nobody(server_factory):
    server = server_factory(*CONSTANT, binary=RELEASE).start()
    writer = Writer(server)
    writer.start()
    assert wait_until(lambda: checkpoints(server) > 0)
    with injecting(server, "fdatasync:delay_enter=90s", paths_of(server, "ingest.sst")):
        wire, maker = Wire(server, timeout=20), Maker(random.Random(SEED), ["h"], "h")
        before = checkpoints(server)
        for i in range(10):
            tag = maker.tag(cookie=f"h{i}", action="BUY", origin=f"h{i}")
            begin = time.monotonic()
            assert wire.post_tag(tag).status == 204
            while wire.profile(f"h{i}")["buys"] != [tag]:
                assert time.monotonic() < begin + 20
            rows = wire.aggregate([tag["time"][:16]], "BUY", {"origin": f"h{i}"}, ["COUNT"])["rows"]
            assert rows[0][-1] == "1"
            writer.model.add(tag)
            time.sleep(0.2)
        assert checkpoints(server) <= before + 1, "nothing hung"
        assert set(writer.statuses) <= {200, 204}, writer.statuses
    assert checkpoints_go_on(server)
    writer.finish()
    check_after_kill(server, writer)


@needs_strace
def test_invariant_10_a_sync_that_hangs_stops_no_query_of_events(server_factory):
    server = server_factory(binary=RELEASE).start()
    writer = Writer(server)
    writer.start()
    assert wait_until(lambda: writer.taken() > 100)
    wire = Wire(server, timeout=20)
    known = wire.get_id("origin", "origin1")
    with injecting(server, "fdatasync:delay_enter=90s"):
        assert wait_until(lambda: writer.statuses.get(503, 0) > 0)
        for _ in range(5):
            assert wire.profile("c/0")["views"]
            assert wire.aggregate(["2022-03-22T12:15"], "VIEW", {}, ["COUNT"])["rows"]
            assert wire.get_id("origin", "origin1") == known
    assert wait_until(lambda: status_of_a_tag(server) == 204)
    writer.finish()
    check_after_kill(server, writer)


# ---- Damage ----

def filled(server):
    """A store whose tags are all on disk, and stopped; its model."""
    server.start()
    chooser = random.Random(SEED)
    wire, model = Wire(server), Model()
    maker = Maker(chooser, [f"c{i}" for i in range(30)])
    for _ in range(3):
        tags = [maker.tag() for _ in range(1500)]
        assert wire.post_tags(tags).json()["accepted"] == len(tags)
        for tag in tags:
            model.add(tag)
        settle(server)
        assert wait_until(lambda: checkpoints(server) > 0)
    server.stop()
    return model


def flip(path, at):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 0x40]))


def run_check(directory):
    return subprocess.run([RELEASE, "check", "--data-dir", str(directory)], capture_output=True,
                          text=True, timeout=120)


def ask_all(server, model):
    """Every answer is right or an error that says so; how many were errors."""
    wire, errors = Wire(server), 0
    for cookie in model.profiles:
        errors += right_or_error(lambda: check_profiles(wire, model, random.Random(1), [cookie], 0))
    for minute in ["2022-03-22T12:10", "2022-03-22T12:11"]:
        errors += right_or_error(lambda: check_aggregates(wire, model, random.Random(2), minute))
    return errors


def right_or_error(query):
    try:
        query()
    except AssertionError as error:
        if "(500, " not in str(error) and ", 500, " not in str(error):
            raise
        return 1
    return 0


def writing_goes_on(server):
    """Also where compactions meet the damage. These tags are of minutes that nobody asks for."""
    wire = Wire(server)
    maker = Maker(random.Random(SEED), ["new"], first="2022-03-22T18:00", hours_before=0)
    for _ in range(10):
        assert wire.post_tags([maker.tag() for _ in range(20)]).status == 200
        time.sleep(0.1)
    return checkpoints_go_on(server)


def files_of(directory):
    """All that the server reads again."""
    events = directory / "events"
    return sorted([*events.glob("*.copy"), *events.glob("rocksdb/*.sst"),
                   *events.glob("rocksdb/MANIFEST-*"), events / "rocksdb/CURRENT"])


def start_on_damage(server_factory, whole, flips):
    """A server over a copy of whole with bytes flipped, and whether check named damage there.
    flips: (a path within, where)."""
    server = server_factory(*CONSTANT, name="damaged", binary=RELEASE)
    shutil.rmtree(server.directory, ignore_errors=True)
    shutil.copytree(whole, server.directory)
    for path, at in flips:
        flip(server.directory / path, at)
    found = run_check(server.directory)
    named = found.returncode == 1 and "damage" in found.stdout
    return server.start(), named


def test_invariant_7_a_flipped_byte_is_named_and_never_served(server_factory):
    """Anywhere in any file: the server opens, and answers what is right or 500. What all else depends
    on (state, dictionary, RocksDB's manifest) is mended from its copy."""
    server = server_factory("--checkpoint-interval", "200ms", binary=RELEASE)
    model = filled(server)
    chooser = random.Random(SEED)
    print(f"seed {SEED}")
    found = run_check(server.directory)
    assert found.returncode == 0, found.stdout
    files = files_of(server.directory)
    for case, file in enumerate(files + [max(files, key=lambda path: path.stat().st_size)] * 4):
        at = chooser.randrange(file.stat().st_size)
        again, named = start_on_damage(server_factory, server.directory,
                                       [(file.relative_to(server.directory), at)])
        warned = "the events are damaged" in again.stderr()
        assert warned == (again.metrics()["millrace_events_damages_total"] > 0), (file.name, at)
        assert warned or file.name != "CURRENT" and not file.name.startswith("MANIFEST-"), at
        wrong = ask_all(again, model)
        assert not wrong or again.metrics()["millrace_events_damages_total"] > 0
        # a table has bytes that nobody reads: of its properties, and between its blocks
        assert named or file.suffix == ".sst" and not wrong + warned, (file.name, at)
        if case % 5 == 1:
            assert writing_goes_on(again), (file.name, at)
            ask_all(again, model)
        again.stop()
        again.log.unlink()


def places_in_products(table):
    """Where a profile's bytes show the end of a product that Maker makes: with another letter there,
    only a checksum tells."""
    data, end = table.read_bytes(), '😀"%/'.encode()
    return [match.start() + len(end) - 2 for match in re.finditer(re.escape(end), data)]


def test_invariant_7_text_with_another_letter_is_an_error(server_factory):
    server = server_factory("--checkpoint-interval", "200ms", binary=RELEASE)
    model = filled(server)
    flips = [(table.relative_to(server.directory), at)
             for table in (server.directory / "events/rocksdb").glob("*.sst")
             for at in places_in_products(table)]
    again, named = start_on_damage(server_factory, server.directory, flips)
    assert flips and named
    assert ask_all(again, model) > 0
    assert again.metrics()["millrace_events_damages_total"] > 0
    again.stop()


def test_invariant_7_damage_beyond_the_copies_is_refused_with_advice(server_factory, tmp_path):
    server = server_factory(binary=RELEASE)
    filled(server)
    (server.directory / "events/MANIFEST.copy").unlink()
    flip(next((server.directory / "events/rocksdb").glob("MANIFEST-*")), 20)
    assert run_check(server.directory).returncode == 1
    with pytest.raises(AssertionError, match="is damaged.*nothing was changed.*backup"):
        server.start()
    server.process = None
    shutil.rmtree(server.directory / "events")
    server.start()
    assert Wire(server).profile("c1")["cookie"] == "c1"
