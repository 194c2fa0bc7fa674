"""The application class whose OpenAPI description matches how this endpoint reports errors."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from serve_app.http.problems import Problem

_VALIDATION_SCHEMAS = {"HTTPValidationError", "ValidationError"}


class DescribedApi(FastAPI):
    """An application that describes its errors as problem documents."""

    def __init__(self, **options: Any) -> None:
        """Create an application without routes.

        Args:
            **options: Options of ``FastAPI``.
        """
        super().__init__(**options, generate_unique_id_function=_operation_id)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI description, version 3.1."""
        if self.openapi_schema is None:
            description = super().openapi()
            schemas = description.setdefault("components", {}).setdefault("schemas", {})
            for name in _VALIDATION_SCHEMAS:
                schemas.pop(name, None)
            schemas["Problem"] = Problem.model_json_schema()
            for _, _, operation in list_operations(description):
                _drop_validation_response(operation["responses"])
                operation["responses"] = dict(sorted(operation["responses"].items()))
        return self.openapi_schema or {}


def list_operations(description: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the method, the path and the description of every operation."""
    return [
        (method.upper(), path, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]


def _operation_id(route: APIRoute) -> str:
    """Return the name of the route's function, which generated clients use as method name."""
    return route.name


def _drop_validation_response(responses: dict[str, Any]) -> None:
    """Remove the response that FastAPI adds for invalid parameters. Ours has status 400."""
    status = str(HTTPStatus.UNPROCESSABLE_ENTITY.value)
    if "application/json" in responses.get(status, {}).get("content", {}):
        del responses[status]
