# SPDX-License-Identifier: Apache-2.0
"""`millrace status --watch`: on a terminal, without one, and over a restart of the server."""
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time

import pytest

from conftest import BINARY

pytestmark = pytest.mark.one_thread

PATIENCE = 60
FAST = ["--interval", "100ms"]


def command(server, *options):
    return [BINARY, "status", "--watch", "--metrics-listen", f"127.0.0.1:{server.metrics_port}",
            *options]


def write_points(server, name, n=20):
    server.put(f"/collections/{name}", json={"vectors": {"size": 2, "distance": "Dot"}})
    assert server.put(f"/collections/{name}/points?wait=true", json={"points": [
        {"id": i, "vector": [i, 1]} for i in range(n)]}).status_code == 200


class Lines:
    """The watch without a terminal: its lines, as they come."""

    def __init__(self, server, *options):
        self.process = subprocess.Popen(command(server, *FAST, *options), text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def until(self, wanted):
        """The first line of which wanted says true."""
        deadline = time.monotonic() + PATIENCE
        for line in self.process.stdout:
            if wanted(line):
                return line
            assert time.monotonic() < deadline, line
        raise AssertionError(self.process.stderr.read())

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode


def test_an_object_an_interval(server):
    watch = Lines(server, "--json")
    watch.until(lambda line: True)  # it counts from here on
    write_points(server, "objects")
    # Every record that comes in is in the rate of some interval.
    seen = []

    def all_applied(line):
        points = json.loads(line)["kinds"]["points"]
        seen.append(points["applied_per_s"] * json.loads(line)["interval_s"])
        return sum(seen) > 19.5

    one = json.loads(watch.until(all_applied))
    points = one["kinds"]["points"]
    assert one["state"] == "ok" and one["reason"] is None and one["restarted"] is False
    assert one["journal"]["durable_lsn"] >= 21 and one["memory"]["resident_bytes"] > 1_000_000
    assert one["memory"]["limit_bytes"] > 1_000_000 and one["disk_free_bytes"] > 0
    assert {"lag_records", "lag_s", "workers", "workers_busy", "dead_letters"} <= set(points)
    assert set(one["kinds"]) >= {"points", "events"}
    assert one["parts"]["journal"] == {"ready": True, "reason": ""}
    assert watch.end() == 0


def test_requests_and_their_latency(server):
    watch = Lines(server, "--json")
    watch.until(lambda line: True)
    write_points(server, "latency")
    one = json.loads(watch.until(lambda line: (json.loads(line)["requests"]["per_s"] or 0) > 0))
    assert 0 < one["requests"]["p50_s"] <= one["requests"]["p99_s"] < PATIENCE
    assert watch.end() == 0


def test_it_ends_after_a_count(server):
    done = subprocess.run(command(server, *FAST, "--count", "2"), capture_output=True, text=True,
                          timeout=PATIENCE)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert re.match(r"\d\d:\d\d:\d\d ok; requests \S+/s, p50 ", line)
        assert "points in " in line and "events in " in line and "lsn " in line


def test_a_server_that_goes_and_comes_back(server_factory):
    server = server_factory().start()
    watch = Lines(server, "--json")
    assert json.loads(watch.until(lambda line: True))["state"] == "ok"
    server.kill()
    gone = json.loads(watch.until(lambda line: json.loads(line)["state"] == "unreachable"))
    assert "kinds" not in gone  # asked in the moment of its end it may also be that nothing came
    watch.until(lambda line: "refused or closed" in json.loads(line).get("reason", ""))
    server.start()
    back = json.loads(watch.until(lambda line: json.loads(line)["restarted"]))
    assert back["requests"]["per_s"] is None
    again = json.loads(watch.until(
        lambda line: json.loads(line)["state"] == "ok" and not json.loads(line)["restarted"]))
    assert again["requests"]["per_s"] is not None
    assert watch.end() == 0


def test_nothing_there_is_said_and_waited_for(server_factory):
    server = server_factory()
    watch = Lines(server)
    assert "unreachable: the connection was refused" in watch.until(lambda line: True)
    server.start()
    watch.until(lambda line: " ok" in line)
    server.stop()
    watch.until(lambda line: "unreachable" in line)
    assert watch.end(signal.SIGINT) == 1


class Screen:
    """The watch on a terminal of its own."""

    def __init__(self, server, *options, columns=100, rows=40, **environment):
        self.mine, its = pty.openpty()
        self.before = termios.tcgetattr(its)
        self.its = its
        self.resize(columns, rows)
        self.process = subprocess.Popen(
            command(server, *FAST, *options), stdin=its, stdout=its, stderr=its,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "TERM": "xterm", "LANG": "C.UTF-8", **environment})
        os.set_blocking(self.mine, False)
        self.text = ""

    def resize(self, columns, rows):
        fcntl.ioctl(self.mine, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self):
        try:
            self.text += os.read(self.mine, 65536).decode(errors="replace")
        except BlockingIOError:
            time.sleep(0.02)

    def until(self, wanted):
        """The first whole screen (without colour) of which wanted says true."""
        deadline = time.monotonic() + PATIENCE
        while True:
            screens = self.text.split("\033[H")[1:]
            for screen in screens:
                if "\033[J" in screen and wanted(plain(screen)):
                    self.raw = screen
                    self.text = ""
                    return plain(screen)
            assert time.monotonic() < deadline, self.text
            assert self.process.poll() is None, self.text
            self.read()

    def end(self, how):
        """By a key or a signal: the exit status, after the terminal was found as it was."""
        if isinstance(how, str):
            os.write(self.mine, how.encode())
        else:
            self.process.send_signal(how)
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            self.read()
        for _ in range(10):
            self.read()
        assert self.text.rstrip().endswith("\033[?25h\033[?1049l"), self.text[-200:]
        assert termios.tcgetattr(self.its) == self.before
        os.close(self.its)
        os.close(self.mine)
        return self.process.returncode


def plain(screen):
    return re.sub(r"\033\[[0-9;?]*[A-Za-z]", "", screen.split("\033[J")[0])


def test_a_screen_says_it_all(server):
    watch = Screen(server)
    shown = watch.until(lambda text: re.search(r"p50 ", text))
    for word in [f"127.0.0.1:{server.metrics_port}", "ready", "requests", "points", "events",
                 "applied", "lag ", "workers busy", "dead letters", "durable up to lsn", "sync p50",
                 "memory", "disk", "free", "health", "journal ok"]:
        assert word in shown, word
    write_points(server, "screen")
    watch.until(lambda text: "█" in text)
    assert "\033[1m" in watch.raw and "\033[32m" in watch.raw
    assert watch.end("q") == 0


def test_no_colour_when_it_is_not_wanted(server):
    watch = Screen(server, NO_COLOR="1")
    watch.until(lambda text: "workers busy" in text)
    assert "m" not in re.findall(r"\033\[[0-9;?]*([A-Za-z])", watch.raw)
    assert watch.end("q") == 0


def test_no_blocks_where_text_is_not_utf_8(server):
    watch = Screen(server, LANG="C")
    assert watch.until(lambda text: "workers busy" in text).isascii()
    assert watch.end("q") == 0


def test_the_screen_follows_the_window(server):
    watch = Screen(server, columns=120, rows=50)
    shown = watch.until(lambda text: "health" in text)
    watch.resize(40, 8)
    shown = watch.until(lambda text: "health" not in text)
    lines = [line.rstrip("\r") for line in shown.split("\n")]
    assert len(lines) <= 8 and max(map(len, lines)) <= 40
    watch.resize(120, 50)
    watch.until(lambda text: "health" in text)
    assert watch.end("Q") == 0


@pytest.mark.parametrize("how", ["q", "\x03", signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
                         ids=["q", "ctrl-c", "SIGINT", "SIGTERM", "SIGHUP"])
def test_the_terminal_is_given_back(server, how):
    watch = Screen(server)
    watch.until(lambda text: "health" in text)
    assert not termios.tcgetattr(watch.its)[3] & termios.ECHO
    assert watch.end(how) == 0


def test_a_server_that_hangs_does_not_take_the_terminal(server_factory):
    server = server_factory().start()
    watch = Screen(server)
    watch.until(lambda text: "health" in text)
    server.process.send_signal(signal.SIGSTOP)
    try:
        shown = watch.until(lambda text: "unreachable" in text)
        assert "there was no answer in time" in shown and "health" in shown
        assert watch.end("q") == 1
    finally:
        server.process.send_signal(signal.SIGCONT)
