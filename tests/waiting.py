# SPDX-License-Identifier: Apache-2.0
"""Ports for servers of a test or a benchmark, and waiting for what they become."""
import contextlib
import itertools
import os
import random
import socket
import time

PATIENCE_S = 60  # for what must come to be: only a broken server lets it pass, not a busy machine


def ports_of_this_process():
    """Ports that no other worker of pytest is given, below those that the kernel deals out to clients."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % PORT_PARTS
    part = range(PORTS.start + worker, PORTS.stop, PORT_PARTS)
    return itertools.cycle([*part[(begin := random.randrange(len(part))):], *part[:begin]])


PORTS, PORT_PARTS = range(10100, 32000), 16  # browsers refuse 10080
NEXT_PORTS = ports_of_this_process()


def free_port():
    for port in NEXT_PORTS:
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


def wait_until(what, timeout=PATIENCE_S):
    """Whether something comes to be."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.02)
    return False
