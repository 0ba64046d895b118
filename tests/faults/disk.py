# SPDX-License-Identifier: Apache-2.0
"""Ways to make a disk fail, for the suites of this folder."""
import contextlib
import pathlib
import shutil
import signal
import subprocess

import pytest

from conftest import PATIENCE_S, wait_until

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


@pytest.fixture
def small_disk(tmp_path):
    directory = tmp_path / "small"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(directory)],
                             capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs here: " + mounted.stderr.strip())
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def fill(path):
    """Takes all the space that is left, behind what the file holds; the file to remove."""
    with open(path, "ab", buffering=0) as f:  # a buffer would be written again, and fail, at the end
        try:
            while True:
                f.write(b"x" * 65536)
        except OSError:
            pass
    return path


def tracing(server, tracer):
    """strace holds all threads of the server."""
    def status(thread):
        with contextlib.suppress(OSError):  # ended meanwhile
            return (thread / "status").read_text()
        return held

    held = f"TracerPid:\t{tracer.pid}\n"
    return all(held in status(thread)
               for thread in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir())


@contextlib.contextmanager
def injecting(server, expression, paths=()):
    """strace's error injection in the server meanwhile; of calls on these paths, or on all."""
    only = [argument for path in paths for argument in ("-P", str(path))]
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", *only, "-e", "trace=" +
                               expression.split(":")[0], "-e", "inject=" + expression, "-p",
                               str(server.process.pid)], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: tracing(server, tracer))
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(PATIENCE_S)
