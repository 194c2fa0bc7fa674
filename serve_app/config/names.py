"""The names of all settings, as they are written in files and in the environment."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import AliasChoices, BaseModel, ValidationError

from serve_app.config.section import Section
from serve_app.contracts.base import describe_validation_error

PREFIX = "FOREEDGE_"
"""Beginning of the environment variables that are settings."""

_DELIMITER = "__"
_SERVICE_VARIABLE = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$"
)
"""End of a variable that Kubernetes sets in every container for a service, such as
``FOREEDGE_HEAD_SVC_SERVICE_HOST`` for KubeRay's service ``foreedge-head-svc``."""
_SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a field holds, if it holds one."""
    for candidate in (annotation, *get_args(annotation)):
        if inspect.isclass(candidate) and issubclass(candidate, BaseModel):
            return candidate
    return None


def find_unknown_variable(model: type[BaseModel], environment: Mapping[str, str]) -> str | None:
    """Return what is wrong with the first variable that looks like a setting and is none.

    Args:
        model: All settings.
        environment: Variables by name.
    """
    known = {PREFIX + name.replace(".", _DELIMITER).upper() for name in _names(model)}
    known |= {PREFIX + name.replace(".", _DELIMITER).upper() for name in _former_names(model)}
    # A variable may stand for a whole section, as a JSON object.
    known |= {name.rpartition(_DELIMITER)[0] for name in known if _DELIMITER in name}
    aliases = _aliases(model)
    mappings = tuple(f"{PREFIX}{name}{_DELIMITER}".upper() for name in _mappings(model))
    for variable, value in environment.items():
        name = variable.upper()
        if not name.startswith(PREFIX) or name in known - set(aliases):
            continue
        if name.startswith(mappings) or _is_of_kubernetes(name, value):
            continue
        nearest = aliases.get(name) or _nearest(name, known)
        return f"the environment variable {variable} is not a setting{_suggestion(nearest)}"
    return None


def describe_invalid_settings(error: ValidationError, model: type[BaseModel]) -> str:
    """Return an error about settings as one line, with the nearest names of unknown ones."""
    names = [*_names(model), *model.model_fields]

    def describe_unknown(name: str) -> str:
        return f"{name} is not a setting{_suggestion(_nearest(name, names))}"

    return describe_validation_error(error, describe_unknown)


def _names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted name of every setting."""
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section is None:
            yield prefix + name
        else:
            yield from _names(section, f"{prefix}{name}.")


def _former_names(model: type[BaseModel]) -> Iterator[str]:
    """Yield the dotted name of every setting that is read by a former name."""
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section is not None and issubclass(section, Section):
            yield from (f"{name}.{former}" for former in section.former_names)


def _mappings(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the names of the settings that are mappings, with the delimiter of the environment."""
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section is not None:
            yield from _mappings(section, f"{prefix}{name}{_DELIMITER}")
        elif get_origin(field.annotation) is dict:
            yield prefix + name


def _aliases(model: type[BaseModel]) -> dict[str, str]:
    """Return the variables of settings that have one without our prefix, by the name with it."""
    return {
        (PREFIX + name).upper(): str(field.validation_alias.choices[-1])
        for name, field in model.model_fields.items()
        if isinstance(field.validation_alias, AliasChoices)
    }


def _is_of_kubernetes(name: str, value: str) -> bool:
    if _SERVICE_VARIABLE.search(name):
        return True
    return name.endswith("_PORT") and _SERVICE_ADDRESS.match(value) is not None


def _nearest(name: str, names: Iterable[str]) -> str | None:
    # All variables begin alike, which would make every one of them similar.
    by_text = {each.removeprefix(PREFIX): each for each in names}
    found = difflib.get_close_matches(name.removeprefix(PREFIX), by_text, n=1)
    return by_text[found[0]] if found else None


def _suggestion(nearest: str | None) -> str:
    return f"; did you mean {nearest}?" if nearest else "; docs/configuration.md lists all settings"
