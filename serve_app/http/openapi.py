"""OpenAPI's description of the endpoint, and a page of it that needs no network and no script."""

from __future__ import annotations

import re
from functools import cache
from http import HTTPStatus
from typing import Any

import jinja2
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup, escape

from serve_app.http.problems import Problem

router = APIRouter()

_CODE = re.compile("`+([^`]+)`+")
_VALIDATION = {"HTTPValidationError", "ValidationError"}
_RANGES = {
    "minimum": "at least",
    "exclusiveMinimum": "over",
    "maximum": "at most",
    "exclusiveMaximum": "under",
}


class Api(FastAPI):
    """An application whose description says of errors what this one answers."""

    def openapi(self) -> dict[str, Any]:
        """Return the description, version 3.1."""
        if self.openapi_schema is None:
            schema = super().openapi()
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            for name in _VALIDATION:
                schemas.pop(name, None)
            schemas["Problem"] = Problem.model_json_schema()
            for _, _, operation in operations(schema):
                _drop_validation(operation["responses"])
                operation["responses"] = dict(sorted(operation["responses"].items()))
        return self.openapi_schema or {}


def operations(schema: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return method, path and description of every operation."""
    return [
        (method.upper(), path, operation)
        for path, item in schema["paths"].items()
        for method, operation in item.items()
    ]


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Return the description as a page."""
    assert isinstance(request.app, FastAPI)
    return HTMLResponse(page(request.app.openapi()))


def page(schema: dict[str, Any]) -> str:
    """Return an OpenAPI description as HTML."""
    template = _environment().get_template("docs.html.j2")
    return template.render(schema=schema, operations=operations(schema))


def type_of(schema: dict[str, Any]) -> str:
    """Return in a few words what a JSON schema allows."""
    if "anyOf" in schema:
        parts = [type_of(item) for item in schema["anyOf"] if item.get("type") != "null"]
        return " or ".join(parts)
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    words = [str(schema.get("type", "any"))]
    words += [f"{text} {schema[name]:g}" for name, text in _RANGES.items() if name in schema]
    if "pattern" in schema:
        words.append(schema["pattern"])
    return " ".join(words)


def prose(text: str) -> Markup:
    """Return a description as HTML: its paragraphs, and what is between backticks as code."""
    paragraphs = [_CODE.sub(r"<code>\1</code>", str(escape(part))) for part in text.split("\n\n")]
    return Markup("</p><p>").join(Markup(part) for part in paragraphs)


def _drop_validation(answers: dict[str, Any]) -> None:
    answer = answers.get(str(HTTPStatus.UNPROCESSABLE_ENTITY.value))
    # FastAPI's own, in place of which we answer a problem with status 400.
    if answer is not None and "application/json" in answer.get("content", {}):
        del answers[str(HTTPStatus.UNPROCESSABLE_ENTITY.value)]


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("serve_app.http"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        # Much of a description may be left out.
        undefined=jinja2.ChainableUndefined,
    )
    environment.filters["type_of"] = type_of
    environment.filters["prose"] = prose
    environment.filters["phrase"] = lambda status: HTTPStatus(int(status)).phrase
    return environment
