"""Breaking changes between two OpenAPI descriptions: what clients rely on and is gone or narrower.

Additions are not breaking: a path, an optional parameter, a response property, or an enum value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

Direction = Literal["request", "response"]
"""Whether clients write or read a value: requests may only accept more, responses offer more."""

_LOWER_BOUNDS = ("minimum", "exclusiveMinimum", "minLength", "minItems")
_UPPER_BOUNDS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")


def breaking_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return a sentence for each change that can break a client of the old description."""
    changes = sorted(set(_Comparison(old, new).compare_paths()))
    return [change[0].upper() + change[1:] for change in changes]


class _Comparison:
    """The comparison of two descriptions, each of which resolves its own references."""

    def __init__(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        self._old = old
        self._new = new

    def compare_paths(self) -> Iterator[str]:
        for path, old_methods in self._old["paths"].items():
            new_methods = self._new["paths"].get(path)
            if new_methods is None:
                yield f"the path {path} is gone."
                continue
            for method, old in old_methods.items():
                where = f"{method.upper()} {path}"
                if method not in new_methods:
                    yield f"{where} is gone."
                else:
                    yield from self._compare_operations(where, old, new_methods[method])

    def _compare_operations(
        self, where: str, old: dict[str, Any], new: dict[str, Any]
    ) -> Iterator[str]:
        if old.get("operationId") != new.get("operationId"):
            yield f"{where} has another operationId: {new.get('operationId')}."
        yield from _compare_security(where, old.get("security", []), new.get("security", []))
        yield from self._compare_parameters(
            where, old.get("parameters", []), new.get("parameters", [])
        )
        yield from self._compare_bodies(
            f"the body of {where}", old.get("requestBody"), new.get("requestBody")
        )
        for status, response in old["responses"].items():
            if status not in new["responses"]:
                yield f"{where} no longer has the response {status}."
            else:
                yield from self._compare_responses(
                    f"the response {status} of {where}", response, new["responses"][status]
                )

    def _compare_parameters(
        self, where: str, old: list[dict[str, Any]], new: list[dict[str, Any]]
    ) -> Iterator[str]:
        before = {(item["in"], item["name"]): item for item in old}
        after = {(item["in"], item["name"]): item for item in new}
        for place, name in before.keys() - after.keys():
            yield f"{where} no longer has the {place} parameter {name}."
        for (place, name), parameter in after.items():
            known = before.get((place, name))
            subject = f"the {place} parameter {name} of {where}"
            if parameter.get("required") and not (known or {}).get("required"):
                yield f"{subject} is now required."
            if known is not None:
                yield from self._compare_schemas(
                    subject, known["schema"], parameter["schema"], "request"
                )

    def _compare_bodies(
        self, subject: str, old: dict[str, Any] | None, new: dict[str, Any] | None
    ) -> Iterator[str]:
        if new is None:
            if old is not None:
                yield f"{subject} is gone."
            return
        if new.get("required") and not (old or {}).get("required"):
            yield f"{subject} is now required."
        yield from self._compare_contents(
            subject, (old or {}).get("content", {}), new["content"], "request"
        )

    def _compare_responses(
        self, subject: str, old: dict[str, Any], new: dict[str, Any]
    ) -> Iterator[str]:
        for name in old.get("headers", {}).keys() - new.get("headers", {}).keys():
            yield f"{subject} no longer has the header {name}."
        yield from self._compare_contents(
            subject, old.get("content", {}), new.get("content", {}), "response"
        )

    def _compare_contents(
        self, subject: str, old: dict[str, Any], new: dict[str, Any], direction: Direction
    ) -> Iterator[str]:
        for media_type, before in old.items():
            after = new.get(media_type)
            if after is None:
                yield f"{subject} no longer has the type {media_type}."
                continue
            # The examples of an error response are named after its codes.
            for code in before.get("examples", {}).keys() - after.get("examples", {}).keys():
                yield f"{subject} no longer has the code {code}."
            yield from self._compare_schemas(
                subject, before.get("schema", {}), after.get("schema", {}), direction
            )

    def _compare_schemas(
        self, subject: str, old: dict[str, Any], new: dict[str, Any], direction: Direction
    ) -> Iterator[str]:
        """Compare two schemas, pairing their alternatives by type."""
        before, after = _alternatives(old, self._old), _alternatives(new, self._new)
        for kind in before.keys() - after.keys():
            if "any" not in after:
                yield f"{subject} can no longer be of type {kind}."
        if direction == "response" and "any" not in before:
            for kind in after.keys() - before.keys():
                yield f"{subject} can now be of type {kind}."
        for kind in before.keys() & after.keys():
            for one, other in zip(before[kind], after[kind], strict=False):
                yield from self._compare_alternatives(subject, one, other, direction)

    def _compare_alternatives(
        self, subject: str, old: dict[str, Any], new: dict[str, Any], direction: Direction
    ) -> Iterator[str]:
        for value in old.get("enum", []):
            if value not in new.get("enum", [value]):
                yield f"{subject} no longer has the value {value}."
        if direction == "request":
            yield from _new_restrictions(subject, old, new)
        yield from _compare_required(subject, old, new, direction)
        for name, schema in old.get("properties", {}).items():
            if name not in new.get("properties", {}):
                yield f"{subject} no longer has the property `{name}`."
            else:
                yield from self._compare_schemas(
                    f"`{name}` in {subject}", schema, new["properties"][name], direction
                )
        for member in ("items", "additionalProperties"):
            if isinstance(old.get(member), dict) and isinstance(new.get(member), dict):
                yield from self._compare_schemas(
                    f"an entry of {subject}", old[member], new[member], direction
                )


def _compare_security(
    where: str, old: list[dict[str, Any]], new: list[dict[str, Any]]
) -> Iterator[str]:
    if new and not old:
        yield f"{where} now needs credentials."
        return
    for scheme in old:
        if new and scheme not in new:
            yield f"{where} no longer accepts the credentials {', '.join(scheme)}."


def _compare_required(
    subject: str, old: dict[str, Any], new: dict[str, Any], direction: Direction
) -> Iterator[str]:
    before, after = set(old.get("required", ())), set(new.get("required", ()))
    if direction == "request":
        for name in after - before:
            yield f"{subject} now requires the property `{name}`."
    else:
        for name in (before - after) & new.get("properties", {}).keys():
            yield f"{subject} no longer always has the property `{name}`."


def _alternatives(
    schema: dict[str, Any], description: dict[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """Return the alternatives of a schema by their type, with references resolved."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _alternatives(description["components"]["schemas"][name], description)
    found: dict[str, list[dict[str, Any]]] = {}
    for item in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        for kind, schemas in _alternatives(item, description).items():
            found.setdefault(kind, []).extend(schemas)
    if found:
        return found
    kinds = schema.get("type", "any")
    return {kind: [schema] for kind in ([kinds] if isinstance(kinds, str) else kinds)}


def _new_restrictions(subject: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Yield what a value in a request must fulfil from now on."""
    if "enum" in new and "enum" not in old:
        yield f"{subject} is now one of {', '.join(map(str, new['enum']))}."
    for name in _LOWER_BOUNDS:
        if name in new and (name not in old or new[name] > old[name]):
            yield f"{subject} now has a {name} of {new[name]}."
    for name in _UPPER_BOUNDS:
        if name in new and (name not in old or new[name] < old[name]):
            yield f"{subject} now has a {name} of {new[name]}."
    if "pattern" in new and new["pattern"] != old.get("pattern"):
        yield f"{subject} now has the pattern {new['pattern']}."
    if new.get("additionalProperties") is False and old.get("additionalProperties") is not False:
        yield f"{subject} can no longer have further properties."
