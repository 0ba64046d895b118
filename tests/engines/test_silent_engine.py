# SPDX-License-Identifier: Apache-2.0
"""A start whose engine takes connections and says nothing: it is seconds until that is known."""
import socket
import time

import pytest
import requests

from conftest import Server, wait_until


def ask(url):
    try:
        return requests.get(url, timeout=5)
    except requests.ConnectionError:
        return None


@pytest.mark.parametrize("roles", ["api", "worker", None])
def test_it_lives_before_the_engine_has_answered(tmp_path, roles):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/"
        shared = "--journal", url + "?partitions=2", "--tasks", url, "--roles", roles
        server = Server(tmp_path / "data", *(shared if roles else ("--journal", url)))
        begun = time.monotonic()
        server.spawn()
        try:
            for url in [server.metrics_url] + ([] if roles == "worker" else [server.url]):
                assert wait_until(lambda url=url: ask(url + "/livez"))
                assert ask(url + "/livez").status_code == 200
            assert time.monotonic() - begun < 3
            answer = ask(server.metrics_url + "/readyz")
            assert answer.status_code == 503
            assert answer.json()["parts"] == {"server": {"ready": False, "reason": "starting"}}
            if roles != "worker":
                answer = server.post("/tasks", json={"type": "long_task"})
                assert answer.status_code == 503 and answer.headers["Retry-After"]
                assert answer.json()["error"]["code"] == "unavailable"
            assert wait_until(
                lambda: "waits for the " in ask(server.metrics_url + "/readyz").text)
        finally:
            server.kill()
