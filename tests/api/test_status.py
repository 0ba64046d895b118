# SPDX-License-Identifier: Apache-2.0
"""What the console asks its server for: GET /status, GET /settings, its own files. (What it makes of
them in a browser is tested in tests/console.)"""
import concurrent.futures
import gzip
import json
import signal

import pytest
import requests

from conftest import ROOT, wait_until

KEY = "the-secret-key"
CONSOLE = sorted(path.name for path in (ROOT / "web/console").iterdir())
COMPRESSED_MAX = 100_000


def settings(server, **options):
    rows = server.get("/settings", **options).json()["settings"]
    return {row["name"]: row for row in rows}


# ---- GET /status ----
def test_status_counts_what_metrics_count(server, collection):
    body = {"points": [{"id": i, "vector": [1, 0, 0, i]} for i in range(10)]}
    assert server.put(f"/collections/{collection}/points", params={"wait": "true"},
                      json=body).status_code == 200
    assert server.get("/no/such/route").status_code == 404
    status, metrics = server.get("/status").json(), server.metrics()
    points = next(c for c in status["consumers"] if c["name"] == "points")
    assert [c["name"] for c in status["consumers"]] == ["points", "events", "tasks"]
    assert points["appended"] >= 10 and points["applied"] >= 10
    assert points["appended"] == metrics['millrace_consumer_appended_records_total{consumer="points"}']
    assert status["points"]["points"] == metrics["millrace_points_live"] >= 10
    assert 0 < status["process"]["resident_bytes"] < status["process"]["memory_limit_bytes"]
    assert 0 < status["disk"]["free_bytes"] <= status["disk"]["total_bytes"]
    assert status["process"]["started_at"] == pytest.approx(metrics["process_start_time_seconds"])
    assert status["now"] > status["process"]["started_at"]
    assert status["health"] == server.get("/healthz").json()


def test_the_latency_is_a_histogram_of_all_requests(server):
    before = server.get("/status").json()["http"]
    for _ in range(5):
        assert server.get("/readyz").status_code == 200
    after = server.get("/status").json()["http"]
    latency = after["latency"]
    assert after["requests"] - before["requests"] == 6  # the first question was not counted by itself
    assert len(latency["counts"]) == len(latency["bounds"]) + 1
    assert latency["bounds"] == sorted(latency["bounds"]) and latency["bounds"][0] == 1e-6
    assert sum(latency["counts"]) == after["requests"]
    assert 0 < latency["sum"] and after["errors"] == before["errors"]


def test_both_are_behind_the_key(server_factory):
    server = server_factory("--api-key", KEY).start()
    for path in ["/status", "/settings"]:
        assert server.get(path).status_code == 401
        assert server.get(path, headers={"api-key": KEY}).status_code == 200
    assert server.get("/console").status_code == 200  # the page itself holds nothing


# ---- GET /settings ----
def test_settings_say_value_default_and_source(server_factory, tmp_path):
    (tmp_path / "millrace.ini").write_text("[serve]\nlanes = 8\nmax-workers = 2\n")
    server = server_factory("--config", str(tmp_path / "millrace.ini"), "--api-key", KEY,
                            "--max-workers", "3",
                            env={"MILLRACE_IDLE_TIMEOUT": "90s"}).start()
    rows = settings(server, headers={"api-key": KEY})
    told = {name: (row["value"], row["from"]) for name, row in rows.items()}
    assert told["lanes"] == ("8", "file")
    assert told["max-workers"] == ("3", "flag")
    assert told["idle-timeout"] == ("90s", "environment")
    assert told["min-workers"] == ("1", "default") and rows["min-workers"]["default"] == "1"
    assert told["log-file"] == (None, "default") and rows["log-file"]["default"] is None
    assert told["api-key"] == ("***", "flag")
    assert KEY not in json.dumps(rows)
    assert rows["lanes"]["summary"] and rows["lanes"]["unit"] == "lanes"


def test_every_option_of_serve_is_a_setting(server):
    from conftest import millrace
    options = json.loads(millrace("options", "--json").stdout)["options"]
    expected = {o["flag"].removeprefix("--") for o in options if "serve" in o["commands"]}
    assert set(settings(server)) == expected
    secrets = {o["flag"] for o in options if o["type"] == "secret"}
    assert secrets == {"--api-key"}


def test_settings_follow_what_a_reload_can_change(server_factory, tmp_path):
    config = tmp_path / "millrace.ini"
    config.write_text("checkpoint-interval = 40s\nlanes = 8\n")
    server = server_factory("--config", str(config)).start()
    config.write_text("checkpoint-interval = 50s\nlanes = 2\n")
    server.process.send_signal(signal.SIGHUP)
    assert wait_until(lambda: settings(server)["checkpoint-interval"]["value"] == "50s")
    assert settings(server)["lanes"]["value"] == "8"  # needs a new start, and is still in force
    assert settings(server)["checkpoint-interval"]["reload"] is True


# ---- The files of the console ----
def raw(server, path, **headers):
    """As it comes over the wire."""
    answer = requests.get(server.url + path, headers=headers, stream=True, timeout=60)
    return answer, answer.raw.read(decode_content=False)


@pytest.mark.parametrize("path", ["/console", "/console/"])
def test_the_page_is_there_and_closed_to_others(server, path):
    answer = server.get(path)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_its_files_come_compressed_and_only_once(server):
    for name in CONSOLE:
        answer, packed = raw(server, f"/console/{name}", **{"Accept-Encoding": "gzip"})
        assert answer.status_code == 200 and answer.headers["content-encoding"] == "gzip", name
        assert gzip.decompress(packed) == (ROOT / "web/console" / name).read_bytes()
        assert answer.headers["cache-control"] == "no-cache"
        again, nothing = raw(server, f"/console/{name}",
                             **{"Accept-Encoding": "gzip", "If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304 and nothing == b""


def test_its_files_come_plain_to_who_cannot_decompress(server):
    answer, plain = raw(server, "/console/app.js", **{"Accept-Encoding": "identity"})
    assert "content-encoding" not in answer.headers
    assert plain == (ROOT / "web/console/app.js").read_bytes()
    assert answer.headers["content-type"] == "text/javascript"


def test_all_of_it_is_small(server):
    names = [*CONSOLE, "uplot.js", "uplot.css"]
    sizes = {name: len(raw(server, f"/console/{name}", **{"Accept-Encoding": "gzip"})[1])
             for name in names}
    assert sum(sizes.values()) < COMPRESSED_MAX, sizes


@pytest.mark.parametrize("name", ["none.js", "..%2Fdocs%2Findex.html", "a" * 200, "app.js%00.css"])
def test_no_other_file_is_there(server, name):
    assert server.get(f"/console/{name}").status_code in (400, 404)


def test_both_ports_tell_figures_at_once(server):
    """Together: what collects the gauges for one must not disturb the other (for ThreadSanitizer)."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        ask = [lambda: server.get("/status"), lambda: requests.get(server.metrics_url + "/metrics")]
        answers = list(pool.map(lambda i: ask[i % 2](), range(40)))
    assert {answer.status_code for answer in answers} <= {200, 503}  # 503: a bound, in debug builds
