"""``--json`` of the commands that are not about runs."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ingest.cli.main import app
from serve_app.models.facts import MODEL_FACTS


def answer(*arguments: str) -> tuple[int, list[Any]]:
    found = CliRunner().invoke(app, [*arguments, "--json"])
    return found.exit_code, [json.loads(line) for line in found.stdout.splitlines()]


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))


def test_models() -> None:
    code, models = answer("models", "list")
    assert (code, [model["model"] for model in models]) == (0, list(MODEL_FACTS))
    code, [folio, missing] = answer("models", "verify", "folio", "u2net")
    assert (code, folio["ok"], missing["code"]) == (1, True, "model_unavailable")
    _, [found] = answer("models", "path", "folio")
    assert found["path"] == folio["path"]


def test_a_plan() -> None:
    code, [plan] = answer("plan", "--images", "1M", "--deadline", "24h")
    assert (code, plan["images"]) == (0, 1_000_000)


def test_every_command_has_the_option() -> None:
    commands = [command.callback for command in app.registered_commands]
    for group in app.registered_groups:
        assert group.typer_instance is not None
        commands += [command.callback for command in group.typer_instance.registered_commands]
    assert len(commands) > 12
    without = [
        command.__name__
        for command in commands
        if command is not None and "as_json" not in inspect.signature(command).parameters
    ]
    assert without == []
