# SPDX-License-Identifier: Apache-2.0
"""The benchmark of tasks: bench/run tasks [--quick].

Empty tasks end to end (queued, run, result readable) beside Celery and Huey, each with a Redis server
of its own and two worker processes; what a progress write costs its task; a million queued tasks.
"""
import datetime
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time

from common import QUICK, ROOT, Millrace, Process, client, directory, free_port, show

WORKERS = 2
VENV = ROOT / ".venv-bench"


# ---- Ours ----
def ended(server):
    """Nothing is queued or running any more."""
    queue = json.loads(server.call("GET", "/tasks/queue")[1])
    return queue["queued"] + queue["running"] == 0


def newest(server):
    return json.loads(server.call("GET", "/tasks?limit=1")[1])["tasks"][0]


def finish(server, begin, n):
    """Seconds until the result of the last task could be read, and all have ended."""
    while not ended(server):
        assert time.monotonic() - begin < 300, "tasks do not end"
        time.sleep(0.001)
    assert newest(server)["status"] == "succeeded"
    return time.monotonic() - begin


def ours(form, n, connections, batch):
    with directory() as data:
        server = Millrace(data, "--max-workers", str(WORKERS), "--sync", "group")
        begin = time.monotonic()
        client(server, form, connections, n // batch, batch)
        seconds = finish(server, begin, n)
        cpu_us = server.cpu_s() / n * 1e6
        server.end()
    return {"per_s": n / seconds, "cpu_us": cpu_us}


# ---- Peers ----
CELERY = textwrap.dedent("""\
    import os
    from celery import Celery
    url = os.environ["REDIS"]
    app = Celery("tasks", broker=url, backend=url)
    @app.task
    def empty():
        return None
    """)
CELERY_RUN = textwrap.dedent("""\
    import sys, time
    from celery import group
    from tasks import empty
    n = int(sys.argv[1])
    empty.delay().get()
    begin = time.monotonic()
    results = [empty.delay() for _ in range(n)]
    for result in results:
        result.get()
    print(time.monotonic() - begin)
    """)
HUEY = textwrap.dedent("""\
    import os
    from huey import RedisHuey
    huey = RedisHuey("bench", url=os.environ["REDIS"])
    @huey.task()
    def empty():
        return 1
    """)
HUEY_RUN = textwrap.dedent("""\
    import sys, time
    from tasks import empty
    n = int(sys.argv[1])
    empty()(blocking=True)
    begin = time.monotonic()
    results = [empty() for _ in range(n)]
    for result in results:
        result(blocking=True, backoff=1, max_delay=0.001)
    print(time.monotonic() - begin)
    """)


def install():
    if not (VENV / "done").exists():
        shutil.rmtree(VENV, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        subprocess.run([str(VENV / "bin/pip"), "install", "--quiet", "--disable-pip-version-check",
                        "-r", str(ROOT / "bench/requirements.txt")], check=True)
        (VENV / "done").touch()


def measured(module, program, worker, n):
    """Tasks a second of a peer: its worker started, its program run."""
    port = free_port()
    with tempfile.TemporaryDirectory(dir=ROOT, prefix="bench-") as place:
        redis = Process(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                         "--dir", place], port)
        pathlib.Path(place, "tasks.py").write_text(module)
        pathlib.Path(place, "run.py").write_text(program)
        env = {**os.environ, "REDIS": f"redis://127.0.0.1:{port}/0"}
        workers = subprocess.Popen([str(VENV / "bin" / worker[0]), *worker[1:]], cwd=place, env=env,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        done = subprocess.run([str(VENV / "bin/python"), "run.py", str(n)], cwd=place, env=env,
                              capture_output=True, text=True, timeout=600)
        workers.terminate()
        workers.wait(60)
        redis.end()
    if done.returncode:
        sys.exit(f"{worker[0]}: {done.stderr[-2000:]}")
    return n / float(done.stdout)


def bench_empty():
    install()
    n = 2_000 if QUICK else 10_000
    celery = measured(CELERY, CELERY_RUN, ["celery", "-A", "tasks", "worker", "-c", str(WORKERS),
                                           "--loglevel", "ERROR"], n)
    huey = measured(HUEY, HUEY_RUN, ["huey_consumer", "tasks.huey", "-w", str(WORKERS), "-k",
                                     "process", "-n"], n)
    rows = [{"what": "Celery, Redis", "per_s": celery, "to_celery": 1.0},
            {"what": "Huey, Redis", "per_s": huey, "to_celery": huey / celery}]
    many = 40_000 if QUICK else 400_000
    batch = ours("taskbatch", many, 4, 1000)
    one = ours("task", many // 4, 64, 1)
    rows.append({"what": "POST /tasks/batch of 1,000", **batch, "to_celery": batch["per_s"] / celery})
    rows.append({"what": "POST /tasks, 64 connections", **one, "to_celery": one["per_s"] / celery})
    show("tasks", rows, ["what", "per_s", "to_celery", "cpu_us"])


# ---- What a progress write costs ----
def run_one(server, total, step):
    task = json.loads(server.call("POST", "/tasks", {
        "type": "long_task", "args": {"total": total, "step": step}})[1])
    while True:
        now = json.loads(server.call("GET", f"/tasks/{task['id']}")[1])
        if now["status"] == "succeeded":
            return seconds_of(now["finished_at"]) - seconds_of(now["started_at"])
        assert now["status"] in ("queued", "running"), now
        time.sleep(0.01)


def seconds_of(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def bench_progress():
    writes = 1_000_000
    total = 20 * writes
    with directory() as data:
        server = Millrace(data)
        without = run_one(server, total, total)
        with_all = run_one(server, total, total // writes)
        server.end()
    show("tasks-progress", [{"what": "a progress write", "us": (with_all - without) / writes * 1e6,
                             "counting_s": without, "with_writes_s": with_all}],
         ["what", "us", "counting_s", "with_writes_s"])


# ---- A million queued ----
def page_times(server, query):
    times, cursor = [], None
    for _ in range(20):
        path = f"/tasks?limit=100{query}" + (f"&cursor={cursor}" if cursor else "")
        begin = time.monotonic()
        page = json.loads(server.call("GET", path)[1])
        times.append((time.monotonic() - begin) * 1000)
        assert len(page["tasks"]) == 100
        cursor = page["next"]
    return sorted(times)


def bench_queued():
    n = 100_000 if QUICK else 1_000_000
    with directory() as data:
        server = Millrace(data)
        begin = time.monotonic()
        client(server, "tasklater", 4, n // 1000, 1000)
        queued = n / (time.monotonic() - begin)
        while json.loads(server.call("GET", "/tasks/queue")[1])["queued"] < n:
            time.sleep(0.01)
        rows = []
        for query in ("", "&status=queued", "&status=queued&type=long_task"):
            times = page_times(server, query)
            rows.append({"what": "GET /tasks?limit=100" + query, "median_ms": times[10],
                         "max_ms": times[-1]})
        memory = server.memory()["VmHWM"] / 1e6
        server.end()
        begin = time.monotonic()
        server = Millrace(data)
        restart = time.monotonic() - begin
        assert json.loads(server.call("GET", "/tasks/queue")[1])["queued"] == n
        rows.append({"what": "restart", "s": restart})
        rows.append({"what": "queued", "n": n, "per_s": queued, "peak_MB": memory,
                     "after_restart_MB": server.memory()["VmHWM"] / 1e6})
        server.end()
    show("tasks-queued", rows, ["what", "median_ms", "max_ms", "s", "n", "per_s", "peak_MB",
                                "after_restart_MB"])


def bench():
    bench_empty()
    bench_progress()
    bench_queued()
