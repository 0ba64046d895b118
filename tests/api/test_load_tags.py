# SPDX-License-Identifier: Apache-2.0
"""`millrace load tags`: the real server passes it; a server that lies in any one way does not."""
import collections
import datetime
import http.server
import json
import threading
import urllib.parse

import pytest

from conftest import SANITIZED, millrace

pytestmark = pytest.mark.long

FILTERS = ("origin", "brand_id", "category_id")


class StandIn(http.server.ThreadingHTTPServer):
    """The routes of events over dictionaries, with one lie."""
    request_queue_size = 256
    daemon_threads = True

    def __init__(self, lie):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lie = lie
        self.lock = threading.Lock()
        self.taken = 0
        self.profiles = collections.defaultdict(list)
        self.cells = collections.defaultdict(lambda: [0, 0])
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def take(self, tag):
        with self.lock:
            self.taken += 1
            times = {"drops a tag": 0, "takes a tag twice": 2}.get(self.lie, 1)
            for _ in range(times if self.taken % 50 == 0 else 1):
                self.profiles[tag["cookie"]].append(tag)
                for filters in range(8):
                    values = (tag["origin"], tag["product_info"]["brand_id"],
                              tag["product_info"]["category_id"])
                    cell = self.cells[tag["time"][:16], tag["action"],
                                      *(v if filters >> i & 1 else None
                                        for i, v in enumerate(values))]
                    cell[0] += 1
                    cell[1] += tag["product_info"]["price"]

    def profile(self, cookie, query):
        start, end = query["time_range"][0].split("_")
        with self.lock:
            tags = [dict(t, country="XX") if self.lie == "changes a tag" else t
                    for t in self.profiles[cookie] if start <= t["time"][:-1] < end]
        tags.sort(key=lambda t: t["time"], reverse=self.lie != "turns the order")
        newest = 3 if self.lie == "keeps three" else int(query["limit"][0])
        return {"cookie": cookie, **{name: [t for t in tags if t["action"] == action][:newest]
                                     for name, action in (("views", "VIEW"), ("buys", "BUY"))}}

    def aggregate(self, query):
        start, end = map(datetime.datetime.fromisoformat, query["time_range"][0].split("_"))
        action = query["action"][0]
        values = [query.get(f, [None])[0] for f in FILTERS]
        given = [v for v in values if v is not None]
        rows = []
        while start < end:
            with self.lock:
                count, total = self.cells.get((start.isoformat()[:16], action, *values), (0, 0))
            total += self.lie == "adds wrongly" and count > 0
            rows.append([start.isoformat(), action, *given,
                         *(str(count if a == "COUNT" else total) for a in query["aggregates"])])
            start += datetime.timedelta(minutes=1)
        return {"columns": ["1m_bucket", "action", *(f for f in FILTERS if f in query),
                            *(a.lower() for a in query["aggregates"])], "rows": rows}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(url.query)
        status, answer = 200, None
        if url.path == "/user_tags":
            self.server.take(json.loads(body))
            status = 204
        elif url.path == "/user_tags/batch":
            lines = body.splitlines()
            for line in lines:
                self.server.take(json.loads(line))
            answer = {"accepted": len(lines), "rejected": []}
        elif url.path == "/aggregates":
            answer = self.server.aggregate(query)
        else:
            answer = self.server.profile(urllib.parse.unquote(url.path.split("/")[2]), query)
        data = json.dumps(answer).encode() if answer else b""
        self.send_response(status)
        if answer:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def load(url, *arguments):
    done = millrace("load", "tags", "--url", url, "--json", *arguments)
    return done, json.loads(done.stdout) if done.stdout else None


@pytest.mark.one_thread  # the next one shows ThreadSanitizer the same threads
@pytest.mark.parametrize("lie, words", [
    (None, ""),
    ("drops a tag", "acknowledged"),
    ("takes a tag twice", ""),
    ("changes a tag", "other contents"),
    ("turns the order", "behind an older one"),
    ("keeps three", "lacks tag"),
    ("adds wrongly", "sum"),
])
def test_a_lie_is_found(lie, words):
    server = StandIn(lie)
    url = f"http://127.0.0.1:{server.server_port}"
    for more in ([], ["--batch-size", "7", "--threads", "2"]):
        done, report = load(url, "--count", "1500", "--cookies", "100", "--connections", "8",
                            "--visible-within", "1s", *more)
        if lie is None:
            assert done.returncode == 0, done.stderr
            assert report["wrong"] == 0 and report["tags"] == report["acknowledged"] == 1500
        else:
            assert done.returncode == 1 and "answers were wrong" in done.stderr
            assert report["wrong"] > 0 and words in report["first_wrong"], report["first_wrong"]
    server.shutdown()


@pytest.mark.parametrize("more", [
    ["--count", "2000", "--rate", "1000"],
    ["--count", "20000", "--threads", "2", "--connections", "32", "--cookies", "300"],
    ["--count", "50000", "--batch-size", "500", "--connections", "4"],
    ["--count", "20000", "--batch-size", "100", "--cookies", "2000", "--heavy-cookies", "72",
     "--no-queries"],
])
def test_nothing_is_wrong(server, more):
    done, report = load(server.url, *more)
    assert done.returncode == 0, done.stderr
    assert report["wrong"] == report["errors"] == 0 and report["complete"]
    queries = report["kinds"]["profiles"]["answers"], report["kinds"]["aggregates"]["answers"]
    assert queries == ((0, 0) if "--no-queries" in more else
                       (report["tags"] // 10, report["tags"] // 1000))
    assert report["checked_profiles_at_end"] > 100 and report["checked_aggregates_at_end"] > 0
    if not SANITIZED and "--no-queries" not in more:
        assert report["checked_profiles"] > 0 and report["checked_aggregates"] > 0


def test_words_and_start(server):
    done = millrace("load", "tags", "--url", server.url, "--count", "1000", "--start",
                    "2024-02-29T23:59:00")
    assert done.returncode == 0, done.stderr
    for word in ("aggregates", "at the end", "wrong         0", "late "):
        assert word in done.stdout
    done = millrace("load", "tags", "--url", server.url, "--start", "2023-02-29T00:00:00")
    assert done.returncode == 2 and "--start 2023-02-29T00:00:00" in done.stderr
    done = millrace("load", "tags", "--url", server.url, "--cookies", "9", "--heavy-cookies", "9")
    assert done.returncode == 2 and "fewer than --cookies, 9" in done.stderr
