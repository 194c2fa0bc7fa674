"""Write docs/configuration.md from ``serve_app.config``: ``make docs``."""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from serve_app.config import AppConfig
from serve_app.config.names import section_of

PAGE = Path(__file__).with_name("configuration.md")
_DECISIONS = Path(__file__).with_name("decisions")

_INTRODUCTION = """\
# Configuration

This page is made from [`serve_app/config/`](../serve_app/config) by `make docs`. A test fails when
it is out of date.

There is one way to configure Foreedge. The value of a setting comes from the first of these that
has it:

1. An argument: `args` in a Serve file (`import_path: serve_app.app:build`), or
   `foreedge serve --config FILE` and `--set NAME=VALUE`.
2. An environment variable: `FOREEDGE_`, then the name in capitals with `__` for the dot.
3. The default.

A list may be written with commas between its items, as in
`FOREEDGE_MODELS=u2net,isnet-general-use`, or as JSON, as in
`FOREEDGE_MODELS='["u2net", "isnet-general-use"]'`.

An unknown name, an empty value and a value of the wrong type stop the start with `invalid_config`,
which names the setting. That includes every variable that begins with `FOREEDGE_`, except those
that Kubernetes sets for its services.
[Deploying](operations/deploy.md) says which of these settings to think about, and
which environment variables Ray itself needs.
"""


def page() -> str:
    """Return the page."""
    schema = AppConfig.model_json_schema()
    parts = [_INTRODUCTION, "## General\n", _table(AppConfig, schema, schema)]
    for name, field in AppConfig.model_fields.items():
        section = section_of(field.annotation)
        if section is None:
            continue
        own = schema["$defs"][section.__name__]
        about = _prose(inspect.getdoc(section) or "")
        optional = "" if field.default is not None else "This section is off unless it is given.\n"
        parts += [f"## `{name}`\n", f"{about}\n", *filter(None, [optional])]
        parts.append(_table(section, own, schema, f"{name}."))
    return "\n".join(parts)


def _table(
    model: type[BaseModel], schema: Mapping[str, Any], whole: Mapping[str, Any], prefix: str = ""
) -> str:
    descriptions = dict(_descriptions(model))
    rows = ["| setting | type | default | description |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if section_of(field.annotation) is not None:
            continue
        variable = "FOREEDGE_" + (prefix + name).replace(".", "__").upper()
        if name == "u2net_home":
            variable = "U2NET_HOME"
        described = schema["properties"][name]
        default = "required" if field.is_required() else _value(field.default)
        kind = _type(described, whole)
        about = _prose(descriptions[name])
        rows.append(f"| `{prefix}{name}`<br>`{variable}` | {kind} | {default} | {about} |")
    return "\n".join(rows) + "\n"


def _descriptions(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Yield the names of a model's fields with the docstrings below them."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(following, ast.Expr):
            continue
        target, text = statement.target, following.value
        if isinstance(target, ast.Name) and isinstance(text, ast.Constant):
            yield target.id, str(text.value)


def _type(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    """Return a JSON schema in words."""
    if "anyOf" in schema:
        kinds = [_type(part, whole) for part in schema["anyOf"] if part.get("type") != "null"]
        return " or ".join(kinds)
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    match schema["type"]:
        case "array":
            return f"list of {_plural(schema['items'])}"
        case "object":
            return f"names and {_plural(schema['additionalProperties'])}"
        case "boolean":
            return "`true` or `false`"
        case "string":
            return {"path": "path"}.get(schema.get("format", ""), "text")
        case number:
            return f"{number}{_bounds(schema)}"


def _plural(schema: Mapping[str, Any]) -> str:
    formats = {"path": "paths", "ipvanynetwork": "networks", "password": "secrets"}
    plain = "integers" if schema.get("type") == "integer" else "texts"
    return formats.get(schema.get("format", ""), plain)


def _bounds(schema: Mapping[str, Any]) -> str:
    words = {
        "exclusiveMinimum": "over",
        "minimum": "at least",
        "maximum": "at most",
    }
    found = [f"{word} {schema[key]:g}" for key, word in words.items() if key in schema]
    return "".join(f", {text}" for text in found)


def _value(value: Any) -> str:
    plain = to_jsonable_python(value)
    if plain is None:
        return "none"
    if isinstance(plain, float) and plain.is_integer():
        plain = int(plain)
    return f"`{plain if isinstance(plain, str) else json.dumps(plain)}`"


def _prose(text: str) -> str:
    """Return a docstring as one line of Markdown, with links to the decisions that it names."""
    line = " ".join(text.split()).replace("``", "`").replace("|", "\\|")
    return re.sub(r"docs/decisions/(\d{4})", _link, line)


def _link(number: re.Match[str]) -> str:
    [path] = _DECISIONS.glob(f"{number[1]}-*.md")
    return f"[decision {number[1]}](decisions/{path.name})"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
