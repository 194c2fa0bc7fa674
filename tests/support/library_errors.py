"""Instances of the exceptions that libraries define, made by their own constructors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from string import Formatter
from types import SimpleNamespace
from typing import Any, NoReturn

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from botocore.exceptions import BotoCoreError
from ray.serve._private.common import DeploymentID
from yarl import URL

Kind = type[BaseException]

ARGUMENTS: dict[str, Any] = {
    "actor_id": bytes(16),
    "certificate_error": OSError("expired"),
    "client_exc": OSError("broken"),
    "connection_key": ConnectionKey("host.example", 443, True, True, None, None, None),
    "deployment_id": DeploymentID("Segmenter"),
    "error_response": {"Error": {"Code": "SlowDown"}},
    "expected": 1,
    "history": (),
    "length": b"1",
    "max_queued_requests": 1,
    "num_queued_requests": 1,
    "os_error": OSError("refused"),
    "owner_address": None,
    "partial": 1,
    "port": 443,
    "ray_exception": SimpleNamespace(language=0, formatted_exception_string="x"),
    "request_info": aiohttp.RequestInfo(URL("http://host.example"), "GET", None, None),  # type: ignore[arg-type]
    "response": SimpleNamespace(tell=lambda: 0, length_remaining=1),
}
"""Arguments of constructors, by the parameter's name. All other parameters take a text."""


def instance_of(kind: Kind) -> BaseException:
    """Return an exception that was made by its own constructor."""
    try:
        parameters = inspect.signature(kind).parameters.values()
    except ValueError:
        return kind("reason")
    named = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    if issubclass(kind, BotoCoreError):
        named += [name for _, name, _, _ in Formatter().parse(kind.fmt) if name]
    return kind(**{name: ARGUMENTS.get(name, "reason") for name in named})


def exceptions_in(*modules: Any) -> set[Kind]:
    """Return the exception classes in some modules, without the warnings."""
    found = {
        member
        for module in modules
        for member in vars(module).values()
        if isinstance(member, type) and issubclass(member, Exception)
    }
    return {kind for kind in found if not issubclass(kind, Warning)}


def raising(error: BaseException) -> Callable[..., NoReturn]:
    """Return a function that takes anything and raises an exception."""

    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise error

    return refuse
