"""The OpenAPI description, the page at /docs, and paths without a route."""

from __future__ import annotations

import json

from serve_app.errors import concrete_errors
from serve_app.http.deployment import make_api
from serve_app.http.docs_page import describe_values, render_docs_page
from serve_app.http.openapi import list_operations
from serve_app.http.problems import reason_phrase
from tests.support.http_client import EndpointClient


def test_every_parameter_and_every_error_is_described() -> None:
    schema = make_api().openapi()
    codes = {error.code for error in concrete_errors()}
    for method, path, operation in list_operations(schema):
        where = f"{method} {path}"
        assert operation["description"], where
        for parameter in operation.get("parameters", []):
            assert parameter["description"], (where, parameter["name"])
        for status, answer in operation["responses"].items():
            assert answer["description"] not in {"", "Successful Response"}, (where, status)
            if int(status) < 400:
                continue
            content = answer["content"]["application/problem+json"]
            assert content["schema"]["$ref"] == "#/components/schemas/Problem"
            for code, example in content["examples"].items():
                assert code in codes
                assert example["value"]["status"] == int(status)
    text = json.dumps(schema)
    assert "HTTPValidationError" not in text
    assert "Problem" in schema["components"]["schemas"]
    body = schema["paths"]["/v1/cutout"]["post"]["requestBody"]["content"]
    assert {"image/jpeg", "multipart/form-data"} <= set(body)
    quality = next(
        item
        for item in schema["paths"]["/v1/cutout"]["post"]["parameters"]
        if item["name"] == "quality"
    )
    assert {"minimum": 1, "maximum": 100}.items() <= quality["schema"]["anyOf"][0].items()


async def test_the_docs_page_lists_every_route_and_needs_no_other_host(
    client: EndpointClient,
) -> None:
    answer = await client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    for _, path, _ in list_operations(make_api().openapi()):
        assert path in answer.text
    for outside in ("http://", "https://", "<script", "//cdn", "@import", "url("):
        assert outside not in answer.text, outside
    assert render_docs_page(make_api().openapi()) == answer.text


async def test_an_unknown_path_or_method_is_a_problem(client: EndpointClient) -> None:
    answer = await client.get("/nothing")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    answer = await client.get("/v1/cutout")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


def test_reason_phrases_are_the_same_on_every_python() -> None:
    assert reason_phrase(413) == "Content Too Large"
    assert reason_phrase(422) == "Unprocessable Content"
    assert reason_phrase(404) == "Not Found"


def test_values_are_described_in_words() -> None:
    bounded = {"type": "integer", "minimum": 1, "maximum": 100}
    assert describe_values({"anyOf": [bounded, {"type": "null"}]}) == "integer from 1 to 100"
    share = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
    assert describe_values(share) == "number above 0 and below 1"
    assert describe_values({"type": "integer", "minimum": 0}) == "integer at least 0"
    assert describe_values({"enum": ["png", "webp"]}) == "png, webp"
    assert describe_values({"type": "string", "pattern": "^a$"}) == "string matching ^a$"
    assert describe_values({}) == "any"
