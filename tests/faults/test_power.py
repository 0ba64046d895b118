# SPDX-License-Identifier: Apache-2.0
"""Power cuts on the real binary's recorded write stream, RocksDB's files included, on a disk that
honours flushes.

record.so logs every write, sync and directory change of a run. A cut takes a moment of the log, keeps
everything that a finished sync covers, and a random subset of the rest: sector by sector for data (kept,
dropped or zeroed), a prefix of each directory's changes. The binary then opens that directory and must
serve every write that had been acknowledged by then (and at most the one in flight).

What this machine cannot do: cut the power of a real disk. The order of flushes is that of the system
calls; what a drive does that lies about its flushes is not covered.
"""
import os
import random
import shutil
import struct
import time

import pytest

from conftest import ROOT, Server
from events_model import (KEPT, Maker, Model, Wire, check_aggregates, check_profile, settle)

CUTS = int(os.environ.get("POWER_CUTS") or 60)
SEED = int(os.environ.get("SEED") or random.randrange(2**32))
SECTOR = 512
DEBUG = ROOT / "build-debug" / "millrace"
RECORDER = ROOT / "build-debug" / "tests" / "faults" / "record.so"
HEAD = struct.Struct("<IIIIQQ")
(OPEN, WRITE, SYNC_BEGIN, SYNC_END, TRUNCATE, RENAME, UNLINK, MKDIR, RMDIR, DIRECTORY_BEGIN,
 DIRECTORY_END, LINK) = range(1, 13)


def entries(log):
    at = 0
    while at + HEAD.size <= len(log):
        kind, n_text, n_data, _, file, offset = HEAD.unpack_from(log, at)
        start = at + HEAD.size
        end = start + n_text + n_data
        if end > len(log):
            return
        yield end, kind, file, offset, log[start:start + n_text].decode(), log[start + n_text:end]
        at = end


class Disk:
    """What is certainly on the disk, and what may be."""

    def __init__(self):
        self.files = {}         # inode -> file: an inode is used again for another file
        self.contents = {}      # file -> bytearray: as synced
        self.pending = {}       # file -> [(offset, data) or (size, None)]
        self.sync_marks = {}    # file -> how much of pending a running sync covers
        self.names = {}         # path -> file, or "directory": as synced
        self.changes = {}       # directory -> [change]
        self.directory_marks = {}

    def change(self, path, change):
        self.changes.setdefault(os.path.dirname(path.rstrip("/")), []).append(change)

    @staticmethod
    def apply_name(names, change):
        kind, path, what = change
        if kind == "make":
            names[path] = what
        elif kind == "remove":
            names.pop(path, None)
        elif path in names:
            names[what] = names.pop(path)

    @staticmethod
    def apply_data(content, operation):
        offset, data = operation
        if data is None:
            del content[offset:]
            content.extend(bytes(offset - len(content)))
            return
        if len(content) < offset + len(data):
            content.extend(bytes(offset + len(data) - len(content)))
        content[offset:offset + len(data)] = data

    def feed(self, kind, inode, offset, text, data):
        if kind == OPEN:
            self.files[inode] = len(self.contents)
        file = self.files.get(inode)
        if kind == OPEN:
            self.contents[file], self.pending[file] = bytearray(), []
        if kind in (OPEN, LINK):
            self.change(text, ("make", text, file))
        elif kind == WRITE:
            self.pending[file].append((offset, data))
        elif kind == TRUNCATE:
            self.pending[file].append((offset, None))
        elif kind == SYNC_BEGIN:
            self.sync_marks[file] = len(self.pending[file])
        elif kind == SYNC_END:
            n = self.sync_marks[file]
            for operation in self.pending[file][:n]:
                self.apply_data(self.contents[file], operation)
            del self.pending[file][:n]
        elif kind == RENAME:
            self.change(text, ("rename", text, data.decode()))
        elif kind in (UNLINK, RMDIR):
            self.change(text, ("remove", text, None))
        elif kind == MKDIR:
            self.change(text, ("make", text, "directory"))
        elif kind == DIRECTORY_BEGIN:
            self.directory_marks[text.rstrip("/")] = len(self.changes.get(text.rstrip("/"), []))
        elif kind == DIRECTORY_END:
            path = text.rstrip("/")
            changes = self.changes.get(path, [])
            n = self.directory_marks[path]
            for change in changes[:n]:
                self.apply_name(self.names, change)
            del changes[:n]

    def after_cut(self, chooser):
        """path -> content or "directory", one of the many things the disk may now hold."""
        keep = chooser.choice([0.0, 0.1, 0.5, 0.9, 1.0])
        names = dict(self.names)
        for changes in self.changes.values():
            for change in changes[:chooser.randint(0, len(changes))]:
                self.apply_name(names, change)
        contents = {}
        for file, content in self.contents.items():
            content = bytearray(content)
            for offset, data in self.pending[file]:
                if data is None:
                    if chooser.random() < keep:
                        self.apply_data(content, (offset, None))
                    continue
                for at in range(0, len(data), SECTOR):
                    if chooser.random() < keep:
                        self.apply_data(content, (offset + at, data[at:at + SECTOR]))
                    elif chooser.random() < 0.1 and offset + at < len(content):
                        self.apply_data(content, (offset + at, bytes(len(data[at:at + SECTOR]))))
            contents[file] = content
        return {p: f if f == "directory" else contents[f] for p, f in names.items()}


def build(image, root, target):
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in sorted(image):
        place = target / os.path.relpath(path, root)
        if image[path] == "directory":
            place.mkdir(exist_ok=True)
        elif place.parent.exists():
            place.write_bytes(image[path])


def cut_often(tmp_path, options, cuts, load, check):
    """Runs the load, then the binary on what the disk may hold after a cut, again and again.

    load(server, log) returns the log's size at each acknowledgement; check(server, acknowledged, what)
    is told how many of them had been given when the power went: it may find that, or one more.
    """
    print(f"seed {SEED}")
    chooser = random.Random(SEED)
    log = tmp_path / "log"
    server = Server(tmp_path / "data", *options, binary=str(DEBUG),
                    env={"LD_PRELOAD": str(RECORDER), "RECORD_ROOT": str(tmp_path / "data"),
                         "RECORD_LOG": str(log)})
    server.start()
    done = load(server, log)
    server.kill()
    all_entries = list(entries(log.read_bytes()))
    moments = sorted(chooser.choice([e[0] for e in all_entries if e[0] >= done[0]])
                     for _ in range(cuts))
    disk, position = Disk(), 0
    disk.names[str(tmp_path / "data")] = "directory"
    for cut in moments:
        while position < len(all_entries) and all_entries[position][0] <= cut:
            disk.feed(*all_entries[position][1:])
            position += 1
        case = random.Random(f"{SEED}-{cut}")
        target = tmp_path / "cut" / "data"
        build(disk.after_cut(case), tmp_path / "data", target)
        again = Server(target, binary=str(DEBUG)).start()
        check(again, sum(at <= cut for at in done), f"cut at {cut}, seed {SEED}")
        again.stop()
    print(f"{cuts} cuts, {len(done)} acknowledged writes, {len(all_entries)} entries")


needs_recorder = pytest.mark.skipif(not RECORDER.exists(),
                                    reason="build-debug has no recorder: make debug")


# ---- Points ----

class Points:
    """states[n]: id -> version after n acknowledged writes."""

    def __init__(self, chooser):
        self.random, self.states = chooser, [None]

    def load(self, server, log):
        assert server.put("/collections/c", json={
            "vectors": {"size": 4, "distance": "Dot"}}).status_code == 200
        done = [log.stat().st_size]
        self.states.append({})
        end = time.monotonic() + 6
        while time.monotonic() < end:
            self.write(server, len(done))
            done.append(log.stat().st_size)
        return done

    def write(self, server, version):
        ids = self.random.sample(range(40), self.random.randint(1, 8))
        if self.random.random() < 0.3:
            answer = server.post("/collections/c/points/delete", json={"points": ids})
            change = {i: None for i in ids}
        else:
            answer = server.put("/collections/c/points", json={"points": [
                {"id": i, "vector": [i, 1, 2, 3], "payload": {"v": version}} for i in ids]})
            change = {i: version for i in ids}
        assert answer.status_code == 200, answer.text
        state = {**self.states[-1], **change}
        self.states.append({k: v for k, v in state.items() if v is not None})

    @staticmethod
    def served(server):
        if server.get("/collections/c").status_code == 404:
            return None
        points = server.post("/collections/c/points/scroll",
                             json={"limit": 1000}).json()["result"]["points"]
        count = server.post("/collections/c/points/count", json={}).json()["result"]["count"]
        assert count == len(points) == len({p["id"] for p in points})
        return {p["id"]: p["payload"]["v"] for p in points}

    def check(self, server, acknowledged, what):
        found = self.served(server)
        allowed = self.states[acknowledged:acknowledged + 2]
        assert found in allowed, (what, found, allowed)


@needs_recorder
def test_invariant_7_power_cuts_lose_nothing_acknowledged(tmp_path):
    points = Points(random.Random(SEED))
    cut_often(tmp_path, ["--checkpoint-interval", "1s"], CUTS, points.load, points.check)


# ---- Events ----

class Events:
    """requests: the tags of each acknowledged one, in order, and the ids that were given."""

    COOKIES = ["a/b", "é😀", "%"]

    def __init__(self, chooser):
        self.random, self.requests = chooser, []
        self.maker = Maker(chooser, self.COOKIES)

    def load(self, server, log):
        wire, done = Wire(server), []
        end = time.monotonic() + 4
        while time.monotonic() < end and self.maker.n < KEPT:  # so that all can be found
            tags = [self.maker.tag() for _ in range(self.random.choice([1, 1, 1, 10]))]
            assert wire.post_tags(tags).json() == {"accepted": len(tags), "rejected": []}
            self.requests.append(tags)
            done.append(log.stat().st_size)
            time.sleep(0.01)  # checkpoints come in between
        return done

    def model(self, n):
        model = Model()
        for tags in self.requests[:n]:
            for tag in tags:
                model.add(tag)
        return model

    def check(self, server, acknowledged, what):
        wire = Wire(server)
        settle(server)
        profiles = [wire.profile(cookie) for cookie in self.COOKIES]
        found = sum(len(p["views"]) + len(p["buys"]) for p in profiles)
        counts = [sum(map(len, self.requests[:n])) for n in (acknowledged, acknowledged + 1)]
        assert found in counts, (what, found, counts)
        model = self.model(acknowledged + counts.index(found))
        for cookie in self.COOKIES:
            check_profile(wire, model, cookie)
        check_aggregates(wire, model, self.random)
        ids = [wire.get_id("origin", value, create=False) for value in model.values["origin"]]
        assert sorted(ids) == list(range(1, len(ids) + 1)), what


@needs_recorder
def test_invariants_3_7_power_cuts_lose_no_acknowledged_tag(tmp_path):
    """RocksDB's files too: what it writes is recorded like the rest."""
    events = Events(random.Random(SEED))
    cut_often(tmp_path, ["--checkpoint-interval", "50ms", "--checkpoint-size", "1K"],
              max(1, CUTS // 2), events.load, events.check)
