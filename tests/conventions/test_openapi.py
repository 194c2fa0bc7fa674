"""docs/openapi.json describes the API of the code, and only additions may change it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_changes import breaking_changes
from tests.support.openapi_file import (
    COMMAND,
    OPENAPI_FILE,
    current_description,
    render_description,
    stored_description,
    write_description,
)


def test_the_api_breaks_no_client_of_the_stored_description() -> None:
    changes = breaking_changes(stored_description(), current_description())
    assert not changes, "\n".join([*changes, f"If that is intended: {COMMAND} --breaking"])


def test_the_stored_description_is_up_to_date() -> None:
    is_current = OPENAPI_FILE.read_text("utf-8") == render_description(current_description())
    assert is_current, f"The API or its description has changed. Write it with: {COMMAND}"


# --- the comparison ---

DESCRIPTION: dict[str, Any] = {
    "paths": {
        "/items": {
            "get": {"operationId": "list_items", "responses": {"200": {"description": "All."}}},
            "post": {
                "operationId": "add_item",
                "security": [{"key": []}, {"bearer": []}],
                "parameters": [
                    {
                        "in": "query",
                        "name": "format",
                        "schema": {"anyOf": [{"type": "string", "enum": ["png", "webp"]}]},
                    },
                    {
                        "in": "query",
                        "name": "quality",
                        "schema": {
                            "anyOf": [
                                {"type": "integer", "minimum": 1, "maximum": 100},
                                {"type": "null"},
                            ]
                        },
                    },
                ],
                "requestBody": {
                    "required": False,
                    "content": {
                        "image/png": {"schema": {"type": "string"}},
                        "application/json": {"schema": {"$ref": "#/components/schemas/Item"}},
                    },
                },
                "responses": {
                    "200": {
                        "headers": {"ETag": {}},
                        "content": {
                            "application/json": {"schema": {"$ref": "#/components/schemas/Result"}}
                        },
                    },
                    "400": {"content": {"application/problem+json": {"examples": {"bad": {}}}}},
                },
            },
        }
    },
    "components": {
        "schemas": {
            "Item": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "maxLength": 100},
                    "tags": {"type": "array", "items": {"type": ["string", "null"]}},
                },
            },
            "Result": {
                "type": "object",
                "required": ["status"],
                "properties": {
                    "status": {"type": "string", "enum": ["queued", "refused"]},
                    "counts": {"type": "object", "additionalProperties": {"type": "integer"}},
                },
            },
        }
    },
}

Place = tuple[str | int, ...]
"""Keys and indices that lead to a part of a description."""

POST: Place = ("paths", "/items", "post")
FORMAT: Place = (*POST, "parameters", 0)
QUALITY: Place = (*POST, "parameters", 1)
BODY: Place = (*POST, "requestBody")
OK: Place = (*POST, "responses", "200")
ITEM: Place = ("components", "schemas", "Item")
RESULT: Place = ("components", "schemas", "Result")


def part_at(description: Any, place: Place) -> Any:
    for step in place:
        description = description[step]
    return description


def without(description: dict[str, Any], place: Place) -> dict[str, Any]:
    """Return a copy of a description that lacks one part."""
    copied = copy.deepcopy(description)
    del part_at(copied, place[:-1])[place[-1]]
    return copied


def with_members(place: Place, **members: Any) -> dict[str, Any]:
    """Return a copy of the description in which a part has other members."""
    copied = copy.deepcopy(DESCRIPTION)
    part_at(copied, place).update(members)
    return copied


REMOVALS: list[tuple[Place, str]] = [
    (("paths", "/items"), "The path /items is gone."),
    (POST, "POST /items is gone."),
    (FORMAT, "POST /items no longer has the query parameter format."),
    (
        (*FORMAT, "schema", "anyOf", 0, "enum", 1),
        "The query parameter format of POST /items no longer has the value webp.",
    ),
    (
        (*QUALITY, "schema", "anyOf", 1),
        "The query parameter quality of POST /items can no longer be of type null.",
    ),
    (BODY, "The body of POST /items is gone."),
    (
        (*BODY, "content", "image/png"),
        "The body of POST /items no longer has the type image/png.",
    ),
    ((*ITEM, "properties", "tags"), "The body of POST /items no longer has the property `tags`."),
    (
        (*ITEM, "properties", "tags", "items", "type", 1),
        "An entry of `tags` in the body of POST /items can no longer be of type null.",
    ),
    ((*POST, "responses", "400"), "POST /items no longer has the response 400."),
    ((*OK, "headers", "ETag"), "The response 200 of POST /items no longer has the header ETag."),
    (
        (*OK, "content", "application/json"),
        "The response 200 of POST /items no longer has the type application/json.",
    ),
    (
        (*POST, "responses", "400", "content", "application/problem+json", "examples", "bad"),
        "The response 400 of POST /items no longer has the code bad.",
    ),
    (
        (*RESULT, "properties", "counts"),
        "The response 200 of POST /items no longer has the property `counts`.",
    ),
    (
        (*RESULT, "required", 0),
        "The response 200 of POST /items no longer always has the property `status`.",
    ),
    (
        (*RESULT, "properties", "status", "enum", 1),
        "`status` in the response 200 of POST /items no longer has the value refused.",
    ),
    (
        (*POST, "security", 1),
        "POST /items no longer accepts the credentials bearer.",
    ),
]


@pytest.mark.parametrize(("place", "message"), REMOVALS)
def test_a_removal_breaks_clients(place: Place, message: str) -> None:
    assert breaking_changes(DESCRIPTION, without(DESCRIPTION, place)) == [message]
    assert breaking_changes(DESCRIPTION, DESCRIPTION) == []


@pytest.mark.parametrize(
    ("place", "members", "message"),
    [
        (POST, {"operationId": "add"}, "POST /items has another operationId: add."),
        (
            ("paths", "/items", "get"),
            {"security": [{"key": []}]},
            "GET /items now needs credentials.",
        ),
        (
            ("paths", "/items", "get"),
            {"parameters": [{"in": "query", "name": "page", "required": True, "schema": {}}]},
            "The query parameter page of GET /items is now required.",
        ),
        (
            FORMAT,
            {"required": True},
            "The query parameter format of POST /items is now required.",
        ),
        (BODY, {"required": True}, "The body of POST /items is now required."),
        (
            ("paths", "/items", "get"),
            {"requestBody": {"required": True, "content": {}}},
            "The body of GET /items is now required.",
        ),
        (
            (*QUALITY, "schema", "anyOf", 0),
            {"minimum": 2},
            "The query parameter quality of POST /items now has a minimum of 2.",
        ),
        (
            (*QUALITY, "schema", "anyOf", 0),
            {"maximum": 99},
            "The query parameter quality of POST /items now has a maximum of 99.",
        ),
        (
            (*QUALITY, "schema", "anyOf", 0),
            {"enum": [50, 100]},
            "The query parameter quality of POST /items is now one of 50, 100.",
        ),
        (
            (*ITEM, "properties", "name"),
            {"minLength": 1},
            "`name` in the body of POST /items now has a minLength of 1.",
        ),
        (
            (*ITEM, "properties", "name"),
            {"pattern": "^a"},
            "`name` in the body of POST /items now has the pattern ^a.",
        ),
        (
            (*ITEM, "properties", "name"),
            {"type": "integer"},
            "`name` in the body of POST /items can no longer be of type string.",
        ),
        (
            ITEM,
            {"required": ["name", "tags"]},
            "The body of POST /items now requires the property `tags`.",
        ),
        (
            ITEM,
            {"additionalProperties": False},
            "The body of POST /items can no longer have further properties.",
        ),
        (
            (*RESULT, "properties", "counts"),
            {"type": ["object", "null"]},
            "`counts` in the response 200 of POST /items can now be of type null.",
        ),
    ],
)
def test_a_restriction_breaks_clients(place: Place, members: dict[str, Any], message: str) -> None:
    assert message in breaking_changes(DESCRIPTION, with_members(place, **members))


@pytest.mark.parametrize(
    ("place", "members"),
    [
        (("paths",), {"/more": {}}),
        (("paths", "/items"), {"put": {}}),
        (("paths", "/items", "get"), {"parameters": [{"in": "query", "name": "p", "schema": {}}]}),
        (("paths", "/items", "get"), {"requestBody": {"content": {"text/plain": {}}}}),
        ((*FORMAT, "schema", "anyOf", 0), {"enum": ["png", "webp", "jpeg"]}),
        ((*QUALITY, "schema", "anyOf", 0), {"minimum": 0, "maximum": 1000}),
        ((*BODY, "content"), {"image/webp": {"schema": {"type": "string"}}}),
        (ITEM, {"required": [], "description": "An item."}),
        ((*ITEM, "properties"), {"more": {"type": "string"}}),
        ((*POST, "responses"), {"503": {}}),
        ((*OK, "headers"), {"Age": {}}),
        ((*RESULT, "properties"), {"more": {"type": "string"}}),
        ((*RESULT, "properties", "status"), {"enum": ["queued", "refused", "late"]}),
        (RESULT, {"required": ["status", "counts"]}),
        (POST, {"security": []}),
    ],
)
def test_an_addition_breaks_no_client(place: Place, members: dict[str, Any]) -> None:
    assert breaking_changes(DESCRIPTION, with_members(place, **members)) == []


def removable_parts(description: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the places of all paths, methods, responses, media types, properties and values."""
    part = part_at(description, place)
    if isinstance(part, list):
        steps: list[str | int] = list(range(len(part)))
    else:
        steps = list(part) if isinstance(part, dict) else []
    removable = place[-1:] in {
        ("paths",), ("responses",), ("content",), ("properties",), ("parameters",), ("enum",)
    } or (len(place) == 2 and place[0] == "paths")  # fmt: skip
    for step in steps:
        if removable:
            yield (*place, step)
        if step not in {"example", "examples", "default"}:
            yield from removable_parts(description, (*place, step))


def test_every_removal_from_our_own_api_is_found() -> None:
    description = current_description()
    places = list(removable_parts(description))
    assert len(places) > 200
    missed = [
        place for place in places if not breaking_changes(description, without(description, place))
    ]
    assert missed == []


# --- the command ---


def test_the_command_writes_additions_and_refuses_breaking_changes(tmp_path: Path) -> None:
    path = tmp_path / "openapi.json"
    assert write_description(DESCRIPTION, path) == []
    assert stored_description(path) == DESCRIPTION
    more = with_members(("paths",), **{"/more": {}})
    assert write_description(more, path) == []
    assert stored_description(path) == more
    assert write_description(DESCRIPTION, path) == ["The path /more is gone."]
    assert stored_description(path) == more
    assert write_description(DESCRIPTION, path, breaking=True) == []
    assert stored_description(path) == DESCRIPTION
