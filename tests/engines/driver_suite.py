# SPDX-License-Identifier: Apache-2.0
"""The suite of the journal's drivers (src/journal/remote/test_driver.c) against an engine that a
fixture runs."""
import os
import pathlib
import subprocess
import threading

from conftest import BINARY, PATIENCE_S, ROOT, wait_until

BESIDE = pathlib.Path(BINARY).parent / "src" / "test-journal-driver"
SUITE = BESIDE if BESIDE.exists() else ROOT / "build-debug" / "src" / "test-journal-driver"


def run_suite(url, *tests, refused=(), weak=None, suite=SUITE):
    """All of it, or the tests named."""
    environment = {**os.environ, "MILLRACE_TEST_JOURNAL": url,
                   "MILLRACE_TEST_JOURNAL_REFUSED": " ".join(refused)}
    if weak:
        environment["MILLRACE_TEST_JOURNAL_WEAK"] = weak
    for arguments in [[name] for name in tests] or [[]]:
        done = subprocess.run([suite, *arguments], env=environment, timeout=5 * PATIENCE_S,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
        assert "SKIPPED" not in done.stdout and " OK " in done.stdout, done.stdout


def run_shared_suites(url):
    """Of shared journals: the driver by itself (src/journal/remote/test_shared_driver.c), and two
    that write, members that join and leave under load (src/work/test_share.c)."""
    run_suite(url, suite=SUITE.with_name("test-journal-shared_driver"))
    run_suite(url, suite=SUITE.with_name("test-work-share"))


class Endurance:
    """A process that appends and reads, whatever becomes of the engine, until it is ended."""

    def __init__(self, url, command=(SUITE, "endure")):
        self.url = url
        self.acknowledged = 0
        self.process = subprocess.Popen(
            command, env={**os.environ, "MILLRACE_TEST_JOURNAL": url}, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.counter = threading.Thread(target=self.count)
        self.counter.start()

    def count(self):
        for line in self.process.stdout:
            self.acknowledged = int(line)

    def goes_on(self):
        """Whether more is acknowledged; also of what was sent before."""
        goal = self.acknowledged + 100
        return wait_until(lambda: self.acknowledged >= goal or self.process.poll() is not None) \
            and self.process.poll() is None

    def end(self):
        """Asks it to verify and end: (exit status, what it complained of)."""
        self.process.stdin.close()
        return self.wait()

    def kill(self):
        self.process.kill()
        self.wait()

    def wait(self):
        status = self.process.wait(3 * PATIENCE_S)
        self.counter.join()
        with self.process.stderr as stderr:
            complaint = stderr.read()
        self.process.stdout.close()
        return status, complaint

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()


def verify(url, last):
    """Another process finds all that was acknowledged."""
    done = subprocess.run([SUITE, "verify", str(last)], timeout=3 * PATIENCE_S, text=True,
                          env={**os.environ, "MILLRACE_TEST_JOURNAL": url}, capture_output=True)
    assert done.returncode == 0, done.stderr


def opening(url):
    """What is said when the log is opened once: "" when that goes well."""
    done = subprocess.run([SUITE, "open"], env={**os.environ, "MILLRACE_TEST_JOURNAL": url},
                          timeout=3 * PATIENCE_S, text=True, capture_output=True)
    assert (done.returncode == 0) == (done.stderr == ""), done.stderr
    return done.stderr
