# SPDX-License-Identifier: Apache-2.0
"""What someone sees who uses the commands: sentences, tables, interruptions, terminals."""
import json
import os
import pty
import re
import signal
import subprocess
import time

import pytest
import requests

from conftest import BINARY, Server, free_port, millrace, wait_until


@pytest.mark.parametrize("arguments, words", [
    (["journal", "dmp"], ["dmp", "did you mean dump?"]),
    (["journal", "xyzzy"], ["dump, tail, verify or dead-letters?"]),
    (["journal", "verify", "somewhere"], ["verify", "takes no argument", "somewhere"]),
    (["journal", "dump", "somewhere"], ["dump", "takes no argument", "somewhere"]),
    *((["journal", command, "--journal", "kafka://one/?partitions=4"],
       [f"journal {command}", "in a data directory", "its own tools", "dead-letters"])
      for command in ("dump", "tail", "verify")),
    (["journal", "dead-letters", "list", "3"], ["list", "takes no argument", '"3"']),
    (["journal", "dead-letters", "drop", "3", "4"], ["takes no argument", '"4"']),
    (["check", "somewhere"], ["takes no argument", "somewhere"]),
    (["help", "srve"], ["srve", "did you mean serve?"]),
    (["--listen", "8000"], ["--listen", "options come after the command"]),
    (["-v"], ["-v", "millrace help"]),
    (["load"], ["records", "movies", "tags"]),
    (["load", "movis"], ["movis", "movies"]),
    (["load", "movies", "--url", "https://127.0.0.1"], ["https://127.0.0.1", "no TLS"]),
    (["load", "movies", "--url", "127.0.0.1:8000"], ["http://127.0.0.1:8000"]),
    (["status", "--metrics-listen", "nonsense"], ["nonsense", "HOST:PORT"]),
])
def test_a_wrong_command_line_is_named(arguments, words):
    done = millrace(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0], lines[0]


def test_nothing_listening_says_what_to_do():
    done = millrace("load", "movies", "--url", "http://127.0.0.1:9")
    assert done.returncode == 1 and "is `millrace serve` running there?" in done.stderr
    done = millrace("status", "--metrics-listen", "127.0.0.1:9")
    assert done.returncode == 1 and "no millrace answers at 127.0.0.1:9" in done.stderr


def test_a_command_that_is_not_for_users_is_not_listed():
    asked, bare = millrace("help"), millrace()
    assert bare.returncode == 2 and bare.stdout == "" and bare.stderr == asked.stdout
    assert "serve" in bare.stderr and "task-worker" not in bare.stderr


def test_only_the_server_is_said_to_take_a_sighup():
    assert "SIGHUP can change it" in millrace("help", "serve").stdout
    assert "SIGHUP can change it" not in millrace("help", "load").stdout


@pytest.mark.parametrize("text, words", [
    ("lanez = 3\n", [":1:", "lanez", "did you mean lanes?"]),
    ("[serve]\nlanes = many\n", [":2:", "lanes", "many"]),
    ("[serve\n", [":1:"]),
])
def test_a_wrong_file_of_options_is_named_with_its_line(tmp_path, text, words):
    path = tmp_path / "m.ini"
    path.write_text(text)
    done = millrace("serve", "--config", str(path), "--data-dir", str(tmp_path / "d"))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("option, name, words", [
    ("--task-commands", "none.json", "there is none"),
    ("--task-commands", "broken.json", "is not valid JSON"),
    ("--import-dir", "none", "no such directory"),
    ("--import-dir", "broken.json", "no directory"),
])
def test_what_only_tasks_read_is_looked_at_when_the_server_starts(tmp_path, option, name, words):
    (tmp_path / "broken.json").write_text('{"commands": ')
    done = millrace("serve", option, str(tmp_path / name), "--data-dir", str(tmp_path / "d"))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert f"{option} {tmp_path / name}: " in done.stderr and words in done.stderr
    assert not (tmp_path / "d").exists()


def test_flag_over_environment_over_file(tmp_path):
    path = tmp_path / "m.ini"
    ports = [free_port() for _ in range(3)]
    path.write_text(f"[serve]\nlisten = {ports[0]}\nlog-level = debug\napi-key = from-file\n")
    server = Server(tmp_path / "d", "--config", str(path),
                    env={"MILLRACE_LISTEN": str(ports[1]), "MILLRACE_API_KEY": "from-environment"})
    server.start()
    try:
        url = server.url + "/collections"
        assert requests.get(url, headers={"api-key": "from-file"}).status_code == 403
        assert requests.get(url, headers={"api-key": "from-environment"}).status_code == 200
        assert '"level":"debug"' in server.stderr()
    finally:
        server.stop()


def test_load_with_and_without_the_key(server_factory, tmp_path):
    key = tmp_path / "key"
    key.write_text("secret\n")
    server = server_factory("--api-key-file", str(key)).start()
    load = ["load", "records", "--count", "200", "--url", server.url]
    assert "api-key" in millrace(*load).stderr
    assert "403" in millrace(*load, "--api-key", "wrong").stderr
    assert millrace(*load, "--api-key-file", str(key)).returncode == 0
    assert millrace(*load, env={**os.environ, "MILLRACE_API_KEY": "secret"}).returncode == 0


def test_load_movies_names_one_task(server):
    done = millrace("load", "movies", "--url", server.url)
    assert done.returncode == 0, done.stderr
    named = re.findall(r"^tasks +(\d+), the last (\S+)$", done.stdout, re.M)
    assert len(named) == 1 and named[0][0] == "33"
    task = server.get("/tasks/" + named[0][1]).json()
    assert task["status"] == "succeeded" and task["type"] == "alioth_ingest"


def test_an_interrupted_load_reports_what_it_did(server):
    load = subprocess.Popen([BINARY, "load", "records", "--count", "100000000", "--url", server.url,
                             "--collection", "interrupted", "--rate", "2000", "--json"],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    count = 0
    while count == 0 and time.monotonic() < deadline:
        answer = server.post("/collections/interrupted/points/count", json={})
        count = answer.json()["result"]["count"] if answer.status_code == 200 else 0
        time.sleep(0.05)
    load.send_signal(signal.SIGINT)
    out, err = load.communicate(timeout=120)
    report = json.loads(out)
    assert load.returncode == 1 and "interrupted" in err
    assert report["complete"] is False and 0 < report["acknowledged"] < 100000000
    assert server.post("/collections/interrupted/points/count",
                       json={}).json()["result"]["count"] >= count


def test_status_in_words_and_in_json(server):
    """A tag is one tag, though the names in it are records too."""
    address = f"127.0.0.1:{server.metrics_port}"
    before = server.metrics()["millrace_events_tags_total"]
    assert server.post("/user_tags", json={
        "time": "2022-03-22T12:15:00.000Z", "cookie": "of status", "country": "PL", "device": "PC",
        "action": "VIEW", "origin": "of status", "product_info": {
            "product_id": "p", "brand_id": "of status", "category_id": "of status", "price": 7}
    }).status_code == 204
    assert wait_until(lambda: server.metrics()["millrace_events_tags_total"] == before + 1)
    words = millrace("status", "--metrics-listen", address)
    assert words.returncode == 0 and re.search(r"^state +ready$", words.stdout, re.M)
    assert "{" not in words.stdout and re.search(r"^collections +\d+$", words.stdout, re.M)
    rows = dict(re.findall(r"^(\S.*?) {2,}(\d+)$", words.stdout, re.M))
    assert int(rows["tags"]) == before + 1 and "events" not in rows
    assert rows["tasks queued"].isdigit() and rows["tasks running"].isdigit()
    text = millrace("status", "--metrics-listen", address, "--json")
    assert json.loads(text.stdout)["status"] == "ok"


def test_tail_takes_a_limit_from_the_end(server_factory):
    server = server_factory().start()
    millrace("load", "records", "--count", "50", "--url", server.url)
    directory = ["--data-dir", str(server.directory)]

    def lsns(*arguments):
        done = millrace("journal", *arguments, "--json", *directory)
        return [json.loads(line)["lsn"] for line in done.stdout.splitlines()]

    every = lsns("dump")
    assert len(every) == 51
    assert lsns("tail") == every[-10:]
    assert lsns("tail", "--limit", "2") == every[-2:]
    assert lsns("tail", "--limit", "2", "--from", "3") == [3, 4]
    assert lsns("dump", "--limit", "2") == every[:2]


def write_each_kind(server):
    """Points, events and two tasks, of which one is done and the other cancelled."""
    assert server.put("/collections/printed", json={
        "vectors": {"size": 1, "distance": "Dot"}}).status_code == 200
    server.put("/collections/printed/points", json={"points": [{"id": 1, "vector": [1]}]})
    server.post("/collections/printed/points/delete", json={"points": [1]})
    assert server.delete("/collections/printed").status_code == 200
    assert server.post("/user_tags", headers={"Idempotency-Key": "printed"}, json={
        "time": "2022-03-22T12:15:00.000Z", "cookie": "printed", "country": "PL", "device": "PC",
        "action": "VIEW", "origin": "o", "product_info": {
            "product_id": 1, "brand_id": "b", "category_id": "c", "price": 7}}).status_code == 204
    assert server.delete("/user_profiles/printed").status_code == 204
    done = server.post("/tasks", json={"type": "long_task",
                                       "args": {"total": 10, "step": 10}}).json()["id"]
    dropped = server.post("/tasks", json={"type": "long_task",
                                          "run_at": "2099-01-01T00:00:00Z"}).json()["id"]
    assert server.delete(f"/tasks/{dropped}").status_code == 200
    assert wait_until(lambda: server.get(f"/tasks/{done}").json()["status"] == "succeeded")
    return done, dropped


def test_every_healthy_record_is_printed_with_what_it_does(server):
    def journal(*arguments):
        done = millrace("journal", *arguments, "--data-dir", str(server.directory))
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    last = [json.loads(line)["lsn"] for line in journal("tail", "--limit", "1", "--json")]
    done, dropped = write_each_kind(server)
    own = ["--from", str(max(last, default=0) + 1)]
    records = [json.loads(line) for line in journal("dump", "--json", *own)]
    lines = journal("dump", *own)
    assert {r["kind"] for r in records} == {"points", "events", "tasks"}
    assert "unknown" not in [r["op"] for r in records]
    assert not [line for line in lines if "does not decode" in line]
    assert len(lines) == len(records)

    def of(task):
        said = ("type", "attempt", "outcome", "current")
        return [(r["op"], {name: r[name] for name in said if name in r})
                for r in records if r.get("id") == task and r["op"] != "save"]  # a slow one saves

    def lines_of(task):
        return [line.split(" bytes  ")[1] for line in lines if task in line and " save " not in line]

    assert of(done) == [("create", {"type": "long_task"}), ("start", {"attempt": 1}),
                        ("end", {"attempt": 1, "outcome": "succeeded", "current": 10})]
    assert of(dropped) == [("create", {"type": "long_task"}), ("cancel", {})]
    worker = server.get(f"/tasks/{done}").json()["worker"]
    assert [r["worker"] for r in records if r["op"] == "start"] == [worker]
    assert lines_of(done) == [f'create {done} "long_task"', f"start {done} attempt 1",
                              f"end {done} attempt 1 succeeded"]
    assert lines_of(dropped) == [f'create {dropped} "long_task"', f"cancel {dropped}"]


def on_a_terminal(command, until, timeout=120):
    """Runs a command on a terminal until a pattern shows; the process, its terminal, the text."""
    mine, its = pty.openpty()
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, close_fds=True,
                               env={**os.environ, "TERM": "xterm", "NO_COLOR": "1"})
    os.close(its)
    os.set_blocking(mine, False)
    text, deadline = "", time.monotonic() + timeout
    while not re.search(until, text, re.S) and time.monotonic() < deadline:
        try:
            text += os.read(mine, 65536).decode(errors="replace")
        except BlockingIOError:
            time.sleep(0.02)
        except OSError:
            break
    return process, mine, text


def test_a_terminal_gets_a_bar(server):
    process, terminal, text = on_a_terminal(
        [BINARY, "load", "records", "--count", "2000", "--rate", "4000", "--collection", "bar",
         "--url", server.url], r"errors +0")
    assert process.wait(60) == 0
    os.close(terminal)
    assert "\r[" in text and "100 %" in text and "2000 of 2000 records" in text


def test_the_banner_shows_commands_that_work(tmp_path):
    port, metrics = free_port(), free_port()
    process, terminal, text = on_a_terminal(
        [BINARY, "serve", "--data-dir", str(tmp_path / "d"), "--listen", f"localhost:{port}",
         "--metrics-listen", str(metrics)], r"Ctrl-C")
    try:
        assert f"http://localhost:{port}/console" in text and f"http://127.0.0.1:{metrics}/metrics" in text
        shown = re.search(r"(\S*millrace) (load movies --url \S+)", text)
        assert shown and shown.group(1) == BINARY, text
        done = subprocess.run([shown.group(1), *shown.group(2).split()], capture_output=True)
        assert done.returncode == 0, done.stderr
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        os.close(terminal)


def test_the_docs_page_asks_only_its_own_server(server):
    page = server.get("/docs")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    for target in re.findall(r'(?:src|href)="([^"]*)"', page.text):
        assert target.startswith("/"), target
        assert server.get(target).status_code == 200, target
    if "swagger" in page.text:
        assert "default-src 'self'" in page.text and "validatorUrl: null" in page.text
