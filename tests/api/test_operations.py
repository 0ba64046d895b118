# SPDX-License-Identifier: Apache-2.0
"""Life of the process: health, metrics, documents, signals, locks, start errors, tools."""
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

import pytest
import requests

from conftest import BINARY, PATIENCE_S, Server, millrace, wait_until


def fill(server, name="c", n=20):
    assert server.put(f"/collections/{name}", json={
        "vectors": {"size": 2, "distance": "Dot"}}).status_code == 200
    assert server.put(f"/collections/{name}/points?wait=true", json={"points": [
        {"id": i, "vector": [i, 1], "payload": {"i": i}} for i in range(n)]}).status_code == 200


def count(server, name="c"):
    return server.post(f"/collections/{name}/points/count", json={}).json()["result"]["count"]


def answers(server):
    try:
        return server.get("/readyz").status_code == 200
    except requests.RequestException:
        return False


def test_health(server):
    for path in ["/healthz", "/livez", "/readyz", "/health"]:
        assert server.get(path).status_code == 200, path


def test_metrics_are_on_their_own_port_alone(server, collection):
    assert server.get("/metrics").status_code == 404
    server.put(f"/collections/{collection}/points?wait=true",
               json={"points": [{"id": 1, "vector": [1, 2, 3, 4]}]})
    metrics = server.metrics()
    route = 'route="/collections/{name}/points",method="PUT",status="200"'
    assert metrics["millrace_http_requests_total{" + route + "}"] >= 1
    assert metrics["millrace_journal_appended_records_total"] >= 2
    assert metrics["millrace_journal_fsync_seconds_count"] >= 1
    assert metrics['millrace_consumer_applied_records_total{consumer="points"}'] >= 1
    assert metrics['millrace_consumer_lag_records{consumer="points"}'] == 0
    assert metrics["process_resident_memory_bytes"] > 1_000_000


def test_every_metric_row_is_served(server):
    """One row a metric: each row of metrics.def shows in /metrics with its help and type."""
    import pathlib
    rows = re.findall(r'METRIC\(\w+, (\w+), "(\w+)"', (
        pathlib.Path(__file__).parents[2] / "src/observe/metrics.def").read_text())
    text = requests.get(server.metrics_url + "/metrics", timeout=PATIENCE_S).text
    for kind, name in rows:
        assert f"# TYPE {name} {kind.lower()}" in text
        assert f"# HELP {name} " in text


def test_the_docs_page_is_there(server):
    docs = server.get("/docs")
    assert docs.status_code == 200 and "text/html" in docs.headers["Content-Type"]
    assert server.get("/docs/").text == docs.text


def test_restart_keeps_everything(server_factory):
    server = server_factory().start()
    fill(server)
    server.stop()
    server.start()
    assert count(server) == 20
    assert server.get("/collections/c/points/7").json()["result"]["payload"] == {"i": 7}


def test_kill_keeps_what_was_acknowledged(server_factory):
    server = server_factory().start()
    fill(server)
    server.kill()
    server.start()
    assert count(server) == 20


def test_second_instance_is_refused(server_factory):
    server = server_factory().start()
    other = Server(server.directory)
    result = subprocess.run(other.command(), capture_output=True, text=True, timeout=PATIENCE_S)
    assert result.returncode != 0
    assert "in use" in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert server.get("/readyz").status_code == 200


def test_a_lock_that_a_dead_server_left_to_its_child_is_waited_for(server_factory):
    """As after a kill between the fork and the exec of a worker."""
    server = server_factory()
    dead = subprocess.Popen(["true"])
    dead.wait()
    server.directory.mkdir()
    with open(server.directory / "LOCK", "w", encoding="ascii") as lock:
        lock.write(f"{dead.pid}\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        server.spawn()
        files = pathlib.Path(f"/proc/{server.process.pid}/fd")
        assert wait_until(lambda: any(os.path.realpath(file) == os.path.realpath(lock.name)
                                      for file in files.iterdir()))
    assert wait_until(lambda: answers(server))


def one_clear_line(result, *words):
    assert result.returncode not in (0, None) and result.returncode > 0, result
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0], lines[0]


def test_start_errors(server, tmp_path):
    data = ["--data-dir", str(tmp_path / "d")]
    free = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]
    one_clear_line(millrace("serve", "--no-such-flag"), "--no-such-flag")
    one_clear_line(millrace("serve", "--lanse", "3"), "--lanes")
    one_clear_line(millrace("serve", *data, "--listen", "nonsense"), "nonsense")
    one_clear_line(millrace("serve", *data, "--listen", f"127.0.0.1:{server.port}",
                            "--metrics-listen", "127.0.0.1:0"), str(server.port), "in use")
    one_clear_line(millrace("serve", *data, "--listen", "127.0.0.1:0", "--metrics-listen",
                            f"127.0.0.1:{server.port}"), "--metrics-listen", "in use")
    one_clear_line(millrace("serve", *data, "--listen", "127.0.0.1:19", "--metrics-listen",
                            "127.0.0.1:19"), "are both 127.0.0.1:19")
    assert not (tmp_path / "d").exists()  # what did not start leaves nothing behind
    one_clear_line(millrace("serve", *data, *free, "--sync", "sometimes"), "sometimes", "group")
    one_clear_line(millrace("serve", *free, "--data-dir", "/proc/nowhere"), "/proc/nowhere",
                   "choose another --data-dir")
    (tmp_path / "file").write_text("x")
    one_clear_line(millrace("serve", *free, "--data-dir", str(tmp_path / "file")), "file")
    one_clear_line(millrace("sreve"), "serve")
    assert millrace("--help").returncode == 0 and "serve" in millrace("--help").stdout
    assert "--data-dir" in millrace("serve", "--help").stdout


def test_invariant_11_wider_than_loopback_needs_a_key(tmp_path):
    one_clear_line(millrace("serve", "--data-dir", str(tmp_path / "d"), "--listen", "0.0.0.0:0",
                            "--metrics-listen", "127.0.0.1:0"), "--api-key")


def test_a_weaker_sync_is_named(server_factory):
    server = server_factory("--sync", "os").start()
    assert "os" in server.stderr() and "warn" in server.stderr().lower()
    fill(server)


def test_environment_and_file_and_flag(tmp_path):
    (tmp_path / "m.ini").write_text("[serve]\nlanes = 3\nlog-level = debug\n")
    out = json.loads(millrace("options", "--json").stdout)
    assert any(o["flag"] == "--data-dir" and o["environment"] == "MILLRACE_DATA_DIR"
               for o in out["options"] if "flag" in o)


def test_sigterm_drains_and_checkpoints(server_factory):
    server = server_factory().start()
    fill(server, n=50)
    server.stop()
    found = millrace("check", "--data-dir", str(server.directory))
    assert found.returncode == 0, found.stdout + found.stderr


def test_check_names_a_flipped_bit(server_factory):
    server = server_factory().start()
    fill(server, n=50)
    server.stop()
    assert millrace("check", "--data-dir", str(server.directory)).returncode == 0
    victims = [p for p in server.directory.rglob("*.vectors") if p.stat().st_size > 64]
    assert victims
    with open(victims[0], "r+b") as f:
        f.seek(8)
        byte = f.read(1)
        f.seek(8)
        f.write(bytes([byte[0] ^ 1]))
    found = millrace("check", "--data-dir", str(server.directory))
    assert found.returncode == 1
    assert victims[0].name in found.stdout + found.stderr


def test_sighup_reopens_the_log(server_factory, tmp_path):
    log = tmp_path / "server.log"
    server = server_factory("--log-file", str(log)).start()
    assert log.exists()
    shutil.move(log, tmp_path / "old.log")
    server.process.send_signal(signal.SIGHUP)
    assert wait_until(log.exists)
    server.stop()
    for line in log.read_text().splitlines():
        assert {"time", "level", "message"} <= set(json.loads(line))


def test_journal_tools(server_factory):
    server = server_factory().start()
    fill(server, n=5)
    server.stop()
    directory = ["--data-dir", str(server.directory)]
    verified = millrace("journal", "verify", *directory)
    assert verified.returncode == 0, verified.stderr
    dumped = millrace("journal", "dump", "--json", *directory)
    records = [json.loads(line) for line in dumped.stdout.splitlines()]
    assert [r["lsn"] for r in records] == sorted(r["lsn"] for r in records)
    assert len(records) >= 6
    letters = millrace("journal", "dead-letters", "list", "--json", *directory)
    assert letters.returncode == 0


def test_load_records_and_movies(server_factory):
    server = server_factory().start()
    done = millrace("load", "records", "--count", "500", "--collection", "made", "--url",
                    server.url, "--json", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["errors"] == 0
    assert count(server, "made") == 500
    env = {**os.environ, "ALIOTH_LOAD_TEST_BATCH_SIZE": "500"}
    done = subprocess.run([BINARY, "load", "movies", "--url", server.url, "--json"], env=env,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    names = [c["name"] for c in server.get("/collections").json()["result"]["collections"]]
    movies = [n for n in names if "movie" in n]
    assert movies and count(server, movies[0]) > 3000


def test_load_against_nothing_says_so():
    done = millrace("load", "records", "--count", "5", "--url", "http://127.0.0.1:9")
    assert done.returncode != 0
    assert "127.0.0.1:9" in done.stderr


@pytest.mark.parametrize("subcommand", ["serve", "load", "journal", "check"])
def test_help_has_examples(subcommand):
    out = millrace("help", subcommand)
    assert out.returncode == 0 and "xample" in out.stdout
