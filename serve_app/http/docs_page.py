"""The page at /docs: the OpenAPI description as HTML that needs no script and no other host."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup, escape

from serve_app.http.openapi import list_operations
from serve_app.http.problems import reason_phrase

_CODE = re.compile("`+([^`]+)`+")
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


def render_docs_page(description: dict[str, Any]) -> str:
    """Return an OpenAPI description as HTML."""
    template = _environment().get_template("docs.html.j2")
    return template.render(schema=description, operations=list_operations(description))


def describe_values(schema: dict[str, Any]) -> str:
    """Return in a few words which values a JSON schema allows."""
    if "anyOf" in schema:
        parts = [describe_values(item) for item in schema["anyOf"] if item.get("type") != "null"]
        return " or ".join(parts)
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    words = [str(schema.get("type", "any"))]
    if "minimum" in schema and "maximum" in schema:
        words.append(f"from {schema['minimum']:g} to {schema['maximum']:g}")
    else:
        bounds = [f"{text} {schema[name]:g}" for name, text in _BOUNDS.items() if name in schema]
        words += [" and ".join(bounds)] * bool(bounds)
    if "pattern" in schema:
        words.append(f"matching {schema['pattern']}")
    return " ".join(words)


def prose_to_html(text: str) -> Markup:
    """Return a description as HTML, with its paragraphs, and text in backticks as code."""
    paragraphs = [_CODE.sub(r"<code>\1</code>", str(escape(part))) for part in text.split("\n\n")]
    return Markup("</p><p>").join(Markup(part) for part in paragraphs)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("serve_app.http"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        # Many members of a description are optional.
        undefined=jinja2.ChainableUndefined,
    )
    environment.filters["describe_values"] = describe_values
    environment.filters["prose"] = prose_to_html
    environment.filters["phrase"] = lambda status: reason_phrase(int(status))
    return environment
