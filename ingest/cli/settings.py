"""Settings from a file, from ``--set`` assignments and from the options that all commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from serve_app.config import AppConfig
from serve_app.errors import InvalidConfig
from serve_app.models.registry import BUNDLED_MODEL


def read_settings_file(path: Path) -> dict[str, Any]:
    """Return the settings in a YAML file.

    Args:
        path: A file of plain settings, or a Serve file, whose application's ``args`` are the
            settings.

    Raises:
        InvalidConfig: The file cannot be read or holds neither.
    """
    try:
        content = _load(path.read_text("utf-8"))
    except OSError as error:
        raise InvalidConfig(f"cannot read settings from {path}: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidConfig(
            f"the settings in {path} are not YAML: {_on_one_line(error)}"
        ) from error
    if content is None:
        return {}
    if isinstance(content, dict) and "applications" in content:
        applications = content["applications"]
        if not isinstance(applications, list) or len(applications) != 1:
            raise InvalidConfig(f"{path}: applications must hold exactly one application")
        [application] = applications
        if not isinstance(application, dict):
            raise InvalidConfig(f"{path}: the application must be a mapping with args")
        content = application.get("args") or {}
    if not isinstance(content, dict):
        raise InvalidConfig(f"{path}: the settings must be a mapping of names to values")
    return content


def apply_setting(settings: dict[str, Any], name: str, value: Any) -> None:
    """Assign a value to a dotted name within nested settings, such as ``segmenter.threads``.

    Raises:
        InvalidConfig: The name passes through a setting that is not a section.
    """
    *parents, leaf = name.split(".")
    section = settings
    for parent in parents:
        if section.get(parent) is None:
            section[parent] = {}
        section = section[parent]
        if not isinstance(section, dict):
            raise InvalidConfig(f"cannot set {name}: {parent} is not a section of settings")
    section[leaf] = value


def merge_settings(
    file: Path | None,
    queue: str | None,
    ledger_bucket: str | None,
    endpoint_url: str | None,
    assignments: list[str] | None = None,
) -> dict[str, Any]:
    """Return the settings of a file, overridden by those of the command line.

    Args:
        file: The file that ``read_settings_file`` reads.
        queue: URL of the queue.
        ledger_bucket: Bucket of the ledger.
        endpoint_url: URL of a local server to use in place of AWS.
        assignments: Dotted settings such as ``segmenter.threads=4``. Values are YAML.

    Raises:
        InvalidConfig: The file or an assignment cannot be read.
    """
    settings = read_settings_file(file) if file else {}
    for assignment in assignments or []:
        name, equals, text = assignment.partition("=")
        if not name or not equals:
            raise InvalidConfig(
                f"--set {assignment} is not an assignment. Write it as name=value, such as "
                "segmenter.threads=4"
            )
        try:
            apply_setting(settings, name, _load(text))
        except yaml.YAMLError as error:
            reason = f"the value is not YAML: {_on_one_line(error)}"
            raise InvalidConfig(f"--set {assignment}: {reason}") from error
    flags = {
        "queue.url": queue,
        "ledger.bucket": ledger_bucket,
        "aws.endpoint_url": endpoint_url,
    }
    for name, value in flags.items():
        if value is not None:
            apply_setting(settings, name, value)
    return settings


def load_config(
    file: Path | None,
    queue: str | None,
    ledger_bucket: str | None,
    endpoint_url: str | None,
    assignments: list[str] | None = None,
) -> AppConfig:
    """Return the configuration that ``merge_settings`` describes, completed and validated."""
    return AppConfig.load(merge_settings(file, queue, ledger_bucket, endpoint_url, assignments))


def with_bundled_model(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings that also serve the bundled model on request, unless they choose models.

    Raises:
        InvalidConfig: A setting is unknown or has an invalid value.
    """
    if AppConfig.load(settings).chooses_models:
        return settings
    return {**settings, "models_on_request": [BUNDLED_MODEL]}


def _load(text: str) -> Any:
    """Return the content of a YAML text.

    Raises:
        YAMLError: It is none. PyYAML lets errors of Python pass for texts that look like a number
            or a date and are none, such as ``0b_`` and ``2026-02-30``, and for tags that do not
            fit.
    """
    try:
        return yaml.safe_load(text)
    except (ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from error


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
