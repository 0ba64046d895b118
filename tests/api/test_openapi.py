# SPDX-License-Identifier: Apache-2.0
"""/openapi.json whole: valid, every route and parameter and error in it, and examples that are what
their schemas say and what the server takes."""
import re

import jsonschema
import pytest
import requests
from openapi_spec_validator import OpenAPIV31SpecValidator

from conftest import ROOT

pytestmark = pytest.mark.one_thread

# Answered 204: there is no body.
NO_CONTENT = {("post", "/user_tags"), ("delete", "/user_profiles/{cookie}"),
              ("delete", "/dead-letters/{kind}/{number}")}


@pytest.fixture(scope="module")
def document(server):
    return server.get("/openapi.json").json()


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def checker(document, schema):
    """A validator of one schema of the document, which may name its components."""
    return jsonschema.Draft202012Validator({**schema, "components": document["components"]},
                                           format_checker=jsonschema.FormatChecker())


def test_the_document_is_valid(document):
    assert document["openapi"].startswith("3.1")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_every_route_is_in_it(document):
    """As the rows say it, in whichever file they are."""
    rows = set()
    for file in [*(ROOT / "src").glob("*/*.c")]:
        if not file.name.startswith("test_"):
            rows |= set(re.findall(r'\.method = HTTP_(\w+),\s*\.path = "([^"]+)"', file.read_text()))
    assert len(rows) > 40
    assert rows == {(method.upper(), path) for path, method, _ in operations(document)}


def test_every_operation_has_its_schemas_and_examples(document):
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    for path, method, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"] and operation["tags"], where
        assert {"4XX", "5XX"} <= set(operation["responses"]), where
        in_path = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert in_path == set(re.findall(r"{(\w+)}", path)), where
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        if (method, path) in NO_CONTENT:
            assert "content" not in operation["responses"]["2XX"], where
        else:
            bodies.append(operation["responses"]["2XX"])
        for body in bodies:
            for media, content in body["content"].items():
                assert content["schema"], where
                assert "example" in content or media.startswith("text/"), where
        for parameter in operation["parameters"]:
            assert "example" in parameter, (where, parameter["name"])


def test_every_example_is_what_its_schema_says(document):
    seen = 0
    for path, method, operation in operations(document):
        bodies = [operation.get("requestBody", {}), operation["responses"]["2XX"]]
        described = [c for body in bodies for c in body.get("content", {}).values()]
        for one in [*described, *operation["parameters"]]:
            if "example" in one:
                errors = [e.message for e in checker(document, one["schema"]).iter_errors(
                    one["example"])]
                assert errors == [], (method, path, one)
                seen += 1
    assert seen > 80


def test_every_error_is_an_example(document):
    rows = re.findall(r'HTTP_ERROR\(\w+, (\d+), "(\w+)", "([^"]+)"', (
        ROOT / "src/http/errors.def").read_text())
    for style in ["error", "qdrant_error"]:
        content = document["components"]["responses"][style]["content"]["application/json"]
        assert {(e["summary"], code) for code, e in content["examples"].items()} == {
            (status, code) for status, code, _ in rows}
        for example in content["examples"].values():
            assert list(checker(document, content["schema"]).iter_errors(example["value"])) == []


def fill(path, operation):
    """The path with the examples of its parameters, and those of the query."""
    query = {}
    for parameter in operation["parameters"]:
        value = parameter["example"]
        if parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", str(value))
        elif parameter["required"] or parameter["name"] == "wait":
            query[parameter["name"]] = str(value).lower() if value is True else value
    return path, query


def answer_schema(document, operation, status):
    response = operation["responses"][status]
    if "$ref" in response:
        response = document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
    content = response["content"].get("application/json")
    return content and content["schema"]


ORDER = {"put": 0, "post": 1, "get": 2, "delete": 4}
# What must wait until the others have used what it takes away; then a second collection comes and
# goes by the other routes.
LATER = {("post", "/collections/{name}/points/delete"): 3, ("post", "/all"): 5,
         ("delete", "/collection/delete"): 6}
# What the examples alone cannot know: the id of a task, the number of a dead letter.
EXPECTED = {"get /tasks/{id}": 404, "delete /tasks/{id}": 404, "get /tasks/{id}/events": 404,
            "post /tasks/{id}/retry": 404, "get /dead-letters/{kind}/{number}": 404,
            "delete /dead-letters/{kind}/{number}": 404,
            "post /dead-letters/{kind}/{number}/replay": 404}


def test_the_examples_work_one_after_the_other(server, document):
    """Create, write, read, delete, each as its example says: what the server takes and answers is
    what the document says."""
    todo = sorted(operations(document), key=lambda o: (
        LATER.get((o[1], o[0]), ORDER[o[1]]), len(o[0].split("/")), o[0]))
    outcomes = {}
    for path, method, operation in todo:
        where, query = fill(path, operation)
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        answer = server.request(method, where, params=query, json=body and body["example"])
        outcomes[f"{method} {path}"] = answer.status_code
        if answer.status_code // 100 != 2:
            schema = answer_schema(document, operation, "4XX")
        elif "content" in operation["responses"]["2XX"]:
            schema = answer_schema(document, operation, "2XX")
        else:
            assert answer.status_code == 204 and answer.content == b""
            continue
        if schema is not None:
            errors = [e.message for e in checker(document, schema).iter_errors(answer.json())]
            assert errors == [], (method, path, answer.text)
    refused = {operation: status for operation, status in outcomes.items() if status // 100 != 2}
    assert refused == EXPECTED, outcomes
