"""The commands of ``foreedge catalog`` in this process, with the settings of a bench."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from ingest.cli.main import app
from tests.catalog.bench import Bench


def settings_file(bench: Bench, folder: Path) -> str:
    """Write the settings of a bench to a file, and return its name."""
    file = folder / "settings.yaml"
    settings = {
        "models": ["folio"],
        "aws": {"endpoint_url": bench.aws.endpoint_url},
        "queue": {"url": bench.url},
        "ledger": {"bucket": bench.bucket},
        "catalog": {"database_url": bench.collection.url, "images_bucket": bench.bucket},
    }
    file.write_text(json.dumps(settings))
    return str(file)


def command(*words: str, settings: str, code: int = 0) -> str:
    """Return what a command of ``foreedge`` prints, which must end with an exit code."""
    answer = CliRunner().invoke(app, [*words, "--config", settings])
    assert answer.exit_code == code, (answer.output, answer.exception)
    return answer.stdout


def json_answer(*words: str, settings: str) -> Any:
    """Return the JSON that a command of ``foreedge`` prints."""
    return json.loads(command(*words, "--json", settings=settings))
