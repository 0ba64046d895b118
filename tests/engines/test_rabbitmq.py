# SPDX-License-Identifier: Apache-2.0
"""The journal's driver of RabbitMQ, against a real broker: the suites in C, and what becomes of the
log when the broker is killed, stops or takes no messages, and when the owner freezes."""
import os
import signal
import subprocess
import time

from conftest import PATIENCE_S, wait_until
from driver_suite import SUITE, Endurance, run_suite
from rabbitmq import HEARTBEAT_S

OWN_SUITE = SUITE.with_name("test-journal-rabbitmq")
UNAVAILABLE, REFUSED, FENCED = 1, 2, 3  # LOG_E_…
TIMEOUT_MS = 1000


def url_of(rabbit, log="LOG", more=""):
    return f"amqp://127.0.0.1:{rabbit.port}/?prefix={log}-{more}"


def test_what_all_drivers_promise(rabbit):
    secret = f"amqp://guest:sesame@127.0.0.1:{rabbit.port}/"
    run_suite(url_of(rabbit), refused=[url_of(rabbit, more="&segment-bytes=1"),
                                       url_of(rabbit, more="&max-bytes=1"), secret])


def test_what_this_driver_promises(rabbit):
    done = subprocess.run([OWN_SUITE], timeout=5 * PATIENCE_S, capture_output=True, text=True,
                          env={**os.environ,
                               "MILLRACE_TEST_RABBITMQ": f"amqp://127.0.0.1:{rabbit.port}"})
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-8000:]
    assert "SKIPPED" not in done.stdout and " OK " in done.stdout, done.stdout


class Owner:
    """A process with the log open, which appends as it is told."""

    def __init__(self, url, timeout_ms=None):
        """Without a timeout: one that is short, and it opens until it has the log."""
        self.command = [OWN_SUITE, "serve", url, str(timeout_ms or TIMEOUT_MS)]
        self.start()
        assert timeout_ms or wait_until(lambda: self.opened == 0 or self.restart()), self.why

    def start(self):
        self.process = subprocess.Popen(self.command, text=True, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        self.opened, self.why = self.answer()

    def restart(self):
        self.__exit__()
        self.start()

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


def test_tls(rabbit):
    ca = f"?prefix=tls-&ca={rabbit.certificate}"
    with Owner(f"amqps://localhost:{rabbit.tls_port}/{ca}", 20000) as owner:
        assert owner.opened == 0, owner.why
        assert owner.append(9) == (0, "")
    with Owner(f"amqps://127.0.0.1:{rabbit.tls_port}/{ca}", 20000) as owner:
        assert owner.opened == REFUSED and "hostname" in owner.why, owner.why
    with Owner(f"amqps://localhost:{rabbit.tls_port}/", 20000) as owner:  # signed by nobody
        assert owner.opened == REFUSED and "cert verification" in owner.why, owner.why


def test_a_broker_that_is_killed_has_all_that_was_confirmed(rabbit):
    with Endurance(url_of(rabbit, "killed")) as endurance:
        assert endurance.goes_on()
        rabbit.kill()
        rabbit.start()
        assert endurance.goes_on()
        assert endurance.end() == (0, "")


def test_a_broker_that_stops_and_goes_on(rabbit):
    with Endurance(url_of(rabbit, "stopped")) as endurance, \
            Owner(url_of(rabbit, "stopped-large")) as owner:
        assert endurance.goes_on()
        assert owner.appends_patiently()
        rabbit.signal(signal.SIGSTOP)
        try:
            for _ in range(3):
                start = time.monotonic()
                assert owner.append(20)[0] == UNAVAILABLE
                assert time.monotonic() - start < PATIENCE_S / 6
        finally:
            rabbit.signal(signal.SIGCONT)
        assert owner.appends_patiently()
        assert endurance.goes_on()
        assert endurance.end() == (0, "")


def test_a_broker_that_takes_no_messages(rabbit):
    with Owner(url_of(rabbit, "blocked")) as owner:
        assert owner.appends_patiently()
        rabbit.control("set_vm_memory_high_watermark", "0")
        try:
            assert wait_until(lambda: "takes no messages" in owner.append()[1])
            start = time.monotonic()
            assert owner.append(20)[0] == UNAVAILABLE
            assert time.monotonic() - start < PATIENCE_S / 6
        finally:
            rabbit.control("set_vm_memory_high_watermark", "absolute", "1GB")
        assert owner.appends_patiently()


def test_a_frozen_owner_is_replaced_and_refused_when_it_wakes(rabbit):
    url = url_of(rabbit, "frozen")
    with Owner(url, 20000) as frozen:
        assert frozen.append() == (0, "")
        frozen.process.send_signal(signal.SIGSTOP)
        with Owner(url, 2000) as early:  # shorter than the broker's patience with the frozen one
            assert early.opened == UNAVAILABLE and "not gone yet" in early.why, early.why
        with Owner(url, 1000 * (3 * HEARTBEAT_S + PATIENCE_S)) as heir:
            assert heir.opened == 0, heir.why
            assert heir.append() == (0, "")
            frozen.process.send_signal(signal.SIGCONT)
            for _ in range(2):
                result, why = frozen.append()
                assert result == FENCED, why
            assert heir.append() == (0, "")


def test_an_owner_whose_connection_is_lost_goes_on(rabbit):
    with Owner(url_of(rabbit, "lost"), 20000) as owner:
        assert owner.append() == (0, "")
        rabbit.control("close_all_connections", "test")
        assert owner.appends_patiently()
        assert owner.append(9) == (0, "")
