# SPDX-License-Identifier: Apache-2.0
"""The README's session runs as it stands: every block of it, in order, on the ports it names."""
import os
import pathlib
import re
import socket
import subprocess
import sys

import pytest

from conftest import BINARY, ROOT, TINY, Server

pytestmark = pytest.mark.one_thread

README = (ROOT / "README.md").read_text()
# A build with tiny constants makes a file of every few points, so it gets fewer of them.
MILLION = 1000 if TINY else 1000000


def blocks():
    """(language, text) of the fenced blocks of "A session" that are to be run."""
    session = README.split("\n## A session\n")[1].split("\n## ")[0]
    assert "seq 1000000 |" in session
    session = session.replace("seq 1000000 |", f"seq {MILLION} |")
    return re.findall(r"^```(sh|python)\n(.*?)^```$", session, re.M | re.S)


def taken(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


@pytest.fixture
def place(tmp_path):
    """A directory as the session sees it: build/millrace, and a server with its data beside it."""
    for port in (8000, 9001):
        if taken(port):
            pytest.skip(f"port {port}, which the README names, is in use on this machine")
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "millrace").symlink_to(pathlib.Path(BINARY).resolve())
    (tmp_path / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
    server = Server(tmp_path / "millrace-data")
    server.port, server.metrics_port = 8000, 9001
    server.url = "http://127.0.0.1:8000"
    server.metrics_url = "http://127.0.0.1:9001"
    try:
        server.start()
    except AssertionError as error:
        if "in use" not in str(error):
            raise
        server.process = None
        pytest.skip("the README's ports were taken just now on this machine")
    yield tmp_path
    server.stop()


def run(place, language, text):
    command = ["bash", "-euo", "pipefail"] if language == "sh" else [sys.executable, "-"]
    return subprocess.run(command, input=text, cwd=place, capture_output=True, text=True,
                          timeout=900, env={**os.environ, "CURL_HOME": str(place)})


def test_the_session_runs_as_it_stands(place):
    said = ""
    for language, text in blocks():
        done = run(place, language, text)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        said += done.stdout
    for promised in ("Dune", "Solaris", '"succeeded"', "state            ready", "3201 in",
                     '{"accepted":2,"rejected":[{"line":3,', '["2022-03-22T12:16:00","BUY","acme","2","630"]',
                     '{"id":1}', "wrong         0", "event: end", '"counted":100000000',
                     '"status":"cancelled"', f'"accepted":{MILLION},', "millrace_consumer_lag_records"):
        assert promised in said, promised
    assert "does not decode" not in said
    left = {entry.name for entry in place.iterdir()}
    assert left == {"build", "millrace-data", "millrace-data.stderr", ".curlrc"}, left


def test_the_session_is_there():
    languages = [language for language, _ in blocks()]
    assert languages.count("sh") >= 5 and languages.count("python") == 1


def test_a_wrong_command_would_be_seen(place):
    assert run(place, "sh", "curl 127.0.0.1:8000/collections/nosuch").returncode != 0
    assert run(place, "sh", "build/millrace load mvies").returncode != 0
    assert run(place, "python", "raise SystemExit(3)").returncode != 0
