# SPDX-License-Identifier: Apache-2.0
"""The journal's driver of RabbitMQ, against a real broker: the suites in C, and what becomes of the
log when the broker is killed, stops or takes no messages, and when the owner freezes."""
import os
import pathlib
import signal
import subprocess
import threading
import time

import pytest

from conftest import BINARY, PATIENCE_S, wait_until
from rabbitmq import HEARTBEAT_S, RabbitMQ

PROGRAMS = pathlib.Path(BINARY).parent / "src"
DRIVER_SUITE = PROGRAMS / "test-journal-driver"
OWN_SUITE = PROGRAMS / "test-journal-rabbitmq"
UNAVAILABLE, REFUSED, FENCED = 1, 2, 3  # LOG_E_…
TIMEOUT_MS = 1000


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    made = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    try:
        yield made.start()
    finally:
        made.stop()


def run_suite(program, **environment):
    done = subprocess.run([program], env={**os.environ, **environment}, timeout=5 * PATIENCE_S,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    assert "SKIPPED" not in done.stdout


def test_what_all_drivers_promise(broker):
    url = f"amqp://127.0.0.1:{broker.port}/"
    run_suite(DRIVER_SUITE, MILLRACE_TEST_JOURNAL=f"{url}?prefix=LOG",
              MILLRACE_TEST_JOURNAL_REFUSED=f"{url}?segment-bytes=1 {url}?max-bytes=1 "
                                            f"amqp://guest:sesame@127.0.0.1:{broker.port}/")


def test_what_this_driver_promises(broker):
    run_suite(OWN_SUITE, MILLRACE_TEST_RABBITMQ=f"amqp://127.0.0.1:{broker.port}")


class Owner:
    """A process with the log open, which appends as it is told."""

    def __init__(self, url, timeout_ms=TIMEOUT_MS):
        self.process = subprocess.Popen([OWN_SUITE, "serve", url, str(timeout_ms)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.opened, self.why = self.answer()

    def answer(self):
        result, why = self.process.stdout.readline().split(" ", 1)
        return int(result), why.strip()

    def append(self, n=1):
        """(result, why)"""
        self.process.stdin.write(f"append {n}\n")
        self.process.stdin.flush()
        return self.answer()

    def appends_patiently(self):
        return wait_until(lambda: self.append()[0] == 0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.close()
        if self.process.wait(PATIENCE_S) != 0:
            raise AssertionError(f"exit {self.process.returncode}")
        self.process.stdout.close()


def test_tls(broker):
    ca = f"?prefix=tls-&ca={broker.certificate}"
    with Owner(f"amqps://localhost:{broker.tls_port}/{ca}", 20000) as owner:
        assert owner.opened == 0, owner.why
        assert owner.append(9) == (0, "")
    with Owner(f"amqps://127.0.0.1:{broker.tls_port}/{ca}", 20000) as owner:
        assert owner.opened == REFUSED and "hostname" in owner.why, owner.why
    with Owner(f"amqps://localhost:{broker.tls_port}/", 20000) as owner:  # signed by nobody
        assert owner.opened == REFUSED and "cert verification" in owner.why, owner.why


class Endurance:
    """The driver suite's writer and reader, which go on whatever becomes of the broker."""

    def __init__(self, broker, log):
        self.acknowledged = 0
        environment = {**os.environ, "MILLRACE_TEST_JOURNAL":
                       f"amqp://127.0.0.1:{broker.port}/?prefix={log}-"}
        self.process = subprocess.Popen([DRIVER_SUITE, "endure"], env=environment, text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        self.counter = threading.Thread(target=self.count)
        self.counter.start()

    def count(self):
        for line in self.process.stdout:
            self.acknowledged = int(line)

    def goes_on(self, n=200):
        goal = self.acknowledged + n
        return wait_until(lambda: self.acknowledged >= goal or self.process.poll() is not None) \
            and self.process.poll() is None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        status = self.process.wait(2 * PATIENCE_S)
        self.counter.join()
        why = self.process.stderr.read()
        self.process.stdout.close()
        self.process.stderr.close()
        assert status == 0, why


def test_a_broker_that_is_killed_has_all_that_was_confirmed(broker):
    with Endurance(broker, "killed") as endurance:
        assert endurance.goes_on()
        broker.kill()
        broker.start()
        assert endurance.goes_on()


def test_a_broker_that_stops_and_goes_on(broker):
    with Owner(f"amqp://127.0.0.1:{broker.port}/?prefix=stopped-", 20000) as opened:
        assert opened.opened == 0, opened.why
    with Endurance(broker, "stopped") as endurance, \
            Owner(f"amqp://127.0.0.1:{broker.port}/?prefix=stopped-large-") as owner:
        assert endurance.goes_on()
        assert owner.appends_patiently()
        broker.signal(signal.SIGSTOP)
        try:
            for _ in range(3):
                start = time.monotonic()
                assert owner.append(20)[0] == UNAVAILABLE  # more than a socket holds
                assert time.monotonic() - start < PATIENCE_S / 6
        finally:
            broker.signal(signal.SIGCONT)
        assert owner.appends_patiently()
        assert endurance.goes_on()


def test_a_broker_that_takes_no_messages(broker):
    with Owner(f"amqp://127.0.0.1:{broker.port}/?prefix=blocked-") as owner:
        assert owner.appends_patiently()
        broker.control("set_vm_memory_high_watermark", "0")
        try:
            assert wait_until(lambda: "takes no messages" in owner.append()[1])
            start = time.monotonic()
            assert owner.append(20)[0] == UNAVAILABLE
            assert time.monotonic() - start < PATIENCE_S / 6
        finally:
            broker.control("set_vm_memory_high_watermark", "absolute", "1GB")
        assert owner.appends_patiently()


def test_a_frozen_owner_is_replaced_and_refused_when_it_wakes(broker):
    url = f"amqp://127.0.0.1:{broker.port}/?prefix=frozen-"
    with Owner(url, 20000) as frozen:
        assert frozen.append() == (0, "")
        frozen.process.send_signal(signal.SIGSTOP)
        with Owner(url, 100) as early:  # shorter than the broker's patience with the frozen one
            assert early.opened == UNAVAILABLE and "not gone yet" in early.why, early.why
        with Owner(url, 1000 * (3 * HEARTBEAT_S + PATIENCE_S)) as heir:
            assert heir.opened == 0, heir.why
            assert heir.append() == (0, "")
            frozen.process.send_signal(signal.SIGCONT)
            for _ in range(2):
                result, why = frozen.append()
                assert result == FENCED, why
            assert heir.append() == (0, "")


def test_an_owner_whose_connection_is_lost_goes_on(broker):
    """Also while the broker still takes the lost connection for a living one."""
    with Owner(f"amqp://127.0.0.1:{broker.port}/?prefix=lost-", 20000) as owner:
        assert owner.append() == (0, "")
        broker.control("close_all_connections", "test")
        assert owner.appends_patiently()
        assert owner.append(9) == (0, "")
