# SPDX-License-Identifier: Apache-2.0
"""Clients made from /openapi.json by the usual generators work against the server it came from:
Python by openapi-python-client, TypeScript by openapi-typescript, type-checked."""
import importlib
import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT, SANITIZED

# The document is the same whatever the build, and the generators take their time.
pytestmark = [pytest.mark.skipif(SANITIZED, reason="the plain build's document is this one"),
              pytest.mark.long]

PATIENCE = 600
SOURCES = ROOT / "tests" / "clients"
WORK = ROOT / "build" / "clients"  # kept, so that npm fetches once


@pytest.fixture(scope="module")
def document(server, tmp_path_factory):
    path = tmp_path_factory.mktemp("openapi") / "openapi.json"
    path.write_bytes(server.get("/openapi.json").content)
    return path


@pytest.fixture(scope="module")
def python(document, tmp_path_factory):
    """Imports a module of the generated package, by its name in there."""
    place = tmp_path_factory.mktemp("python")
    (place / "config.yml").write_text("post_hooks: []\n")
    done = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", "generate", "--path", str(document),
         "--output-path", str(place / "millrace_client"), "--meta", "none", "--config",
         str(place / "config.yml"), "--fail-on-warning"],
        capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(place))
    yield lambda name: importlib.import_module("millrace_client." + name)
    sys.path.remove(str(place))


def test_every_operation_is_in_the_python_client(python, document):
    root = python("api").__path__[0]
    made = {p.stem for p in pathlib.Path(root).glob("*/*.py")} - {"__init__"}
    operations = [operation["operationId"] for path in json.loads(document.read_text())[
        "paths"].values() for operation in path.values()]
    assert {name.lower().rstrip("_") for name in operations} == {m.rstrip("_") for m in made}


def test_the_python_client(server, python):
    client = python("client").Client(base_url=server.url)
    models = python("models")

    def call(module, **arguments):
        return python("api." + module).sync_detailed(client=client, **arguments)

    config = models.PutCollectionsNameBody.from_dict({"vectors": {"size": 2, "distance": "Dot"}})
    created = call("collections.put_collections_name", name="python", body=config)
    assert created.status_code == 200 and created.parsed.result is True
    points = {"points": [{"id": 7, "vector": [1, 2], "payload": {"title": "Dune"}}]}
    from_dict = [m for m in vars(models).values() if getattr(m, "__name__", "").startswith(
        "PutCollectionsNamePointsBodyType0")][0].from_dict
    written = call("points.put_collections_name_points", name="python", wait=True,
                   body=from_dict(points))
    assert written.status_code == 200 and written.parsed.result.status == "completed"
    found = call("search.post_collections_name_points_search", name="python",
                 body=models.Search.from_dict({"vector": [1, 2], "limit": 1}))
    assert [(hit.id, hit.score) for hit in found.parsed.result] == [(7, 5.0)]
    missing = call("points.get_collections_name_points_id", name="python", id=8)
    assert missing.status_code == 404 and isinstance(missing.parsed, models.QdrantError)
    tag = models.Tag(
        time="2022-03-22T12:15:00.000Z", cookie="python", country="PL",
        device=models.TagDevice.PC, action=models.TagAction.BUY, origin="campaign-5",
        product_info=models.Product(product_id="p7", brand_id="b3", category_id="shoes",
                                    price=199))
    assert call("events.post_user_tags", body=tag).status_code == 204
    assert call("health.get_healthz").parsed.status == "ok"


def run(*command):
    done = subprocess.run(command, cwd=WORK, capture_output=True, text=True, timeout=PATIENCE,
                          stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def node_modules():
    """Installed as the lock file says, when that has changed."""
    lock = (SOURCES / "package-lock.json").read_bytes()
    stamp = WORK / "node_modules" / ".installed"
    if not stamp.exists() or stamp.read_bytes() != lock:
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir(parents=True)
        for name in ["package.json", "package-lock.json", ".npmrc"]:
            shutil.copy(SOURCES / name, WORK / name)
        run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        stamp.write_bytes(lock)
    for name in ["smoke.ts", "tsconfig.json"]:
        shutil.copy(SOURCES / name, WORK / name)


def test_the_typescript_client(server, document, node_modules):
    run("node_modules/.bin/openapi-typescript", str(document), "-o", "api.d.ts")
    run("node_modules/.bin/tsc", "--outDir", "out")
    assert run("node", "out/smoke.js", server.url) == "done\n"
