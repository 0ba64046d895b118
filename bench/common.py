# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: servers under measurement, the client, directories, tables."""
import contextlib
import datetime
import http.client
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
TICKS = os.sysconf("SC_CLK_TCK")
QUICK = "--quick" in sys.argv
DIMENSION = 100


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Process:
    """A server under measurement: its CPU seconds and its peak of resident memory."""

    def __init__(self, command, port):
        self.port = port
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self.log,
                                        stderr=self.log)
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.log.seek(0)
                    sys.exit(f"{command[0]} did not start: {self.log.read().decode()}")
                time.sleep(0.01)

    def cpu_s(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in status.splitlines()
                if line.startswith(("VmHWM", "VmRSS", "RssAnon", "RssFile"))}

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(120)


class Millrace(Process):
    def __init__(self, directory, *options):
        port = free_port()
        super().__init__([str(BUILD / "millrace"), "serve", "--data-dir", str(directory),
                          "--listen", f"127.0.0.1:{port}", "--metrics-listen",
                          f"127.0.0.1:{free_port()}", *options], port)
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.call("GET", "/readyz")[0] == 200:
                    return
            time.sleep(0.005)

    def call(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        if body is not None and not isinstance(body, (bytes, io.IOBase)):
            body = json.dumps(body).encode()
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data

    def create(self, name="bench"):
        status, data = self.call("PUT", f"/collections/{name}", {
            "vectors": {"size": DIMENSION, "distance": "Cosine"}})
        assert status == 200, data

    def count(self, name="bench"):
        return json.loads(self.call("POST", f"/collections/{name}/points/count",
                                    {})[1])["result"]["count"]

    def wait_count(self, n, name="bench"):
        while self.count(name) < n:
            time.sleep(0.005)


def peer(mode):
    port = free_port()
    return Process([str(BUILD / "bench/bench-peer"), str(port), mode], port)


def client(process, form, connections, requests, batch=1):
    out = subprocess.run([str(BUILD / "bench/bench-client"), f"127.0.0.1:{process.port}", form,
                          str(connections), str(requests), str(batch)], capture_output=True,
                         text=True)
    if out.returncode:
        sys.exit(f"bench-client: {out.stderr}")
    return json.loads(out.stdout)


@contextlib.contextmanager
def directory():
    path = tempfile.mkdtemp(prefix="bench-", dir=os.environ.get("BENCH_DIR", ROOT))
    try:
        yield pathlib.Path(path) / "data"
    finally:
        shutil.rmtree(path)


def show(name, rows, columns):
    print(f"\n## {name}")
    table = [columns] + [[f"{r.get(c):,.3f}" if isinstance(r.get(c), float) else str(r.get(c, ""))
                          for c in columns] for r in rows]
    widths = [max(len(line[i]) for line in table) for i in range(len(columns))]
    for line in table:
        print("  ".join(cell.rjust(w) for cell, w in zip(line, widths)))
    print(json.dumps({"bench": name, "date": datetime.date.today().isoformat(), "rows": rows}),
          flush=True)
