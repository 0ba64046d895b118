# SPDX-License-Identifier: Apache-2.0
"""The console in a real browser: Debian's Chromium, driven by playwright-core from npm. What a user
does stands in scenarios.mjs, a function each; one browser and one server run them all."""
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess

import pytest

from conftest import ROOT, Server
from journal_file import JournalFile

pytestmark = pytest.mark.long

HERE = pathlib.Path(__file__).parent
WORK = ROOT / "build" / "console-tests"  # kept, so that npm fetches once
RESULTS = ROOT / "build" / "results"  # a picture of each scenario that failed
SCENARIOS = re.findall(r"^export async function (\w+)", (HERE / "scenarios.mjs").read_text(), re.M)
KEY = "key-of-the-console-tests"
INSTALL_S = 300


@pytest.fixture(scope="module")
def packages():
    """The npm packages of package-lock.json, with a copy of it beside them once they are whole."""
    stamp = WORK / "installed.json"
    lock = (HERE / "package-lock.json").read_text()
    if not stamp.exists() or stamp.read_text() != lock:
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir(parents=True)
        for name in ["package.json", "package-lock.json", ".npmrc"]:
            shutil.copy(HERE / name, WORK / name)
        subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=WORK, check=True, timeout=INSTALL_S)
        stamp.write_text(lock)
    return WORK


def leave_dead_letters(server):
    """Points with a vector that is too short, in the journal of a server that was stopped: no route
    lets them through."""
    key = {"api-key": KEY}
    points = [{"id": i, "vector": [1.0, 0.0], "payload": {"<b>": "<img src=x>"}} for i in range(1, 5)]
    server.start()
    server.put("/collections/letters", json={"vectors": {"size": 2, "distance": "Dot"}}, headers=key)
    written = server.put("/collections/letters/points?wait=true", json={"points": points}, headers=key)
    assert written.status_code == 200, written.text
    server.stop()
    journal = JournalFile(server.directory)
    for record in [r for r in journal.records if r.kind == 1 and r.payload[1] == 1][-len(points):]:
        payload = bytearray(record.payload)
        struct.pack_into("<I", payload, 4, 1)  # one number
        journal.append("points", record.key_hash, bytes(payload[:44] + payload[48:]))


@pytest.fixture(scope="module")
def runner(packages, tmp_path_factory):
    """Runs a scenario by its name; None, or why it failed."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert chromium, "no chromium: scripts/packages test installs it, or CHROMIUM names one"
    RESULTS.mkdir(parents=True, exist_ok=True)
    directory = tmp_path_factory.mktemp("console")
    commands = directory / "commands.json"
    commands.write_text('{"commands": {"something": {"argv": ["/bin/true"]}}}')
    server = Server(directory / "data", "--api-key", KEY, "--task-commands", str(commands))
    leave_dead_letters(server)
    server.start()
    node = subprocess.Popen(["node", str(HERE / "runner.mjs"), server.url, KEY, chromium,
                             str(packages), str(RESULTS)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True, bufsize=1)
    assert node.stdout.readline() == "ready\n"

    def run(name):
        node.stdin.write(name + "\n")
        answer = json.loads(node.stdout.readline())
        return None if answer["ok"] else answer["error"]

    yield run
    node.stdin.close()
    assert node.wait(60) == 0
    server.stop()


@pytest.mark.parametrize("name", SCENARIOS)
def test_console(runner, name):
    failure = runner(name)
    assert failure is None, failure
