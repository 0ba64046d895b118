# SPDX-License-Identifier: Apache-2.0
"""Overwritten and deleted points give back their disk; a directory of the previous format opens."""
import json
import pathlib
import subprocess
import tarfile

import pytest

from conftest import BINARY, PATIENCE_S, TINY, wait_until

pytestmark = pytest.mark.long

DATA = pathlib.Path(__file__).parent / "data"


def scroll(server, collection):
    body = {"limit": 100000, "with_vector": True}
    result = server.post(f"/collections/{collection}/points/scroll", json=body).json()["result"]
    return {p["id"]: p for p in result["points"]}


def segments(server, collection):
    return server.get(f"/collections/{collection}").json()["result"]["segments_count"]


def check(server):
    done = subprocess.run([BINARY, "check", "--data-dir", str(server.directory)],
                          capture_output=True, text=True, timeout=2 * PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr


def wait_for(server, holds):
    assert wait_until(lambda: holds(server.metrics()), 2 * PATIENCE_S), server.metrics()
    return server.metrics()


def checkpoints(metrics):
    return metrics.get('millrace_checkpoints_total{store="points",result="ok"}', 0)


def test_overwritten_points_give_back_their_disk(server_factory):
    ids, dimension, rounds = (300, 8, 12) if TINY else (1000, 256, 24)
    server = server_factory("--checkpoint-interval", "200ms").start()
    assert server.put("/collections/c", json={
        "vectors": {"size": dimension, "distance": "Dot"}}).status_code == 200
    assert segments(server, "c") == 0
    version = {}
    for round in range(rounds):
        chosen = [i for i in range(ids) if i % 8 or i // 8 % rounds == round or round == 0]
        points = [{"id": i, "vector": [round] * dimension, "payload": {"round": round}}
                  for i in chosen]
        before = checkpoints(server.metrics())
        assert server.put("/collections/c/points?wait=true",
                          json={"points": points}).status_code == 200
        version.update({i: round for i in chosen})
        wait_for(server, lambda m: checkpoints(m) > before)
    metrics = wait_for(server, lambda m: m['millrace_points_merges_total{result="ok"}'] > 0
                       and m["millrace_points_reclaimed_bytes_total"] > 0)
    assert metrics["millrace_points_merged_bytes_total"] > 0
    found = scroll(server, "c")
    assert {i: p["payload"]["round"] for i, p in found.items()} == version
    assert all(p["vector"] == [version[i]] * dimension for i, p in found.items())
    # merges go on, and what is asked first may be older
    assert wait_until(lambda: segments(server, "c") == server.metrics()["millrace_points_segments"] > 0)
    row = 64 + 4 * dimension + 20
    # What may be dead: half of a growing segment in each lane, and a third of the others.
    wait_for(server, lambda m: m["millrace_points_disk_bytes"] < 3 * ids * row + 4 * (8 << 20)
             and m["millrace_points_disk_bytes"] < rounds * ids * row)
    server.stop()
    check(server)
    server.start()
    assert {i: p["payload"]["round"] for i, p in scroll(server, "c").items()} == version
    everything = {"points": list(range(ids))}
    server.post("/collections/c/points/delete?wait=true", json=everything)
    wait_for(server, lambda m: m["millrace_points_segments"] == 0)
    server.stop()
    check(server)


def test_the_previous_format_opens(server_factory):
    """Written with tiny constants before segments were merged: format 1 of the manifest."""
    server = server_factory("--checkpoint-interval", "100ms")
    server.directory.parent.mkdir(exist_ok=True)
    with tarfile.open(DATA / "format-1.tar.xz") as tar:
        tar.extractall(server.directory.parent)  # our own; Debian 12 knows no filter
    state = json.loads((server.directory.parent / "state.json").read_text())
    state = {int(i): version for i, version in state.items()}
    check(server)
    server.start()
    assert server.metrics()["millrace_points_live"] == len(state)

    def agree():
        found = scroll(server, "old")
        assert {i: p["payload"]["version"] for i, p in found.items()} == state
        for i, p in found.items():
            assert p["vector"]["a"] == [i, state[i], 1]
            assert p["vector"].get("b") == (None if i % 3 else [state[i], i])

    agree()
    wait_for(server, lambda m: m['millrace_points_merges_total{result="ok"}'] > 0)
    agree()
    assert server.put("/collections/old/points?wait=true", json={"points": [
        {"id": i, "vector": {"a": [i, 99, 1]}, "payload": {"version": 99}}
        for i in state if i % 3]}).status_code == 200
    state.update({i: 99 for i in state if i % 3})
    agree()
    server.stop()
    check(server)
    server.start()
    agree()
