"""``foreedge smoke``: check that an installation works, in seconds and without a network."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ingest.cli.exit_codes import FAILED
from ingest.cli.options import ConfigOption, SetOption
from ingest.cli.serve import ModelsOption
from ingest.cli.settings import merge_settings, with_bundled_model
from ingest.cli.terminal import print_line
from ingest.smoke.child import DEFAULT_TIMEOUT_S, run_smoke
from ingest.units import format_duration, parse_duration
from serve_app.config import AppConfig
from serve_app.error_text import visible
from serve_app.errors import InvalidConfig
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.registry import BUNDLED_MODEL, find_downloaded_file

_DEFAULT_TIMEOUT = format_duration(DEFAULT_TIMEOUT_S)
_MAX_TIMEOUT_S = 7 * 86_400.0
"""A week. Linux waits for a process for less than 25 days at a time."""

InstalledOption = Annotated[
    bool,
    typer.Option("--installed", help="Check every model on this machine, not the configured ones."),
]
MattingOption = Annotated[
    bool, typer.Option("--matting", help="Load matting too (a minute if it was never used).")
]
TimeoutOption = Annotated[
    str, typer.Option("--timeout", help="Maximum time of all checks together, such as 10min.")
]
AlwaysJsonOption = Annotated[
    bool, typer.Option("--json", help="Taken as by every command. The output is always JSON.")
]


def smoke(
    config: ConfigOption = None,
    settings: SetOption = None,
    model: ModelsOption = None,
    installed: InstalledOption = False,
    matting: MattingOption = False,
    timeout: TimeoutOption = _DEFAULT_TIMEOUT,
    as_json: AlwaysJsonOption = False,
) -> None:
    """Cut out an image with every model, and print one line of JSON. Exits with 1 if it fails.

    It also starts HAProxy's binary and writes to each folder that must be writable.
    """
    timeout_s = parse_duration(timeout)
    if timeout_s > _MAX_TIMEOUT_S:
        raise InvalidConfig(f"--timeout {timeout} is longer than a week, which no check takes")
    args = merge_settings(config, None, None, None, settings)
    if model:
        args["models"] = list(model)
    if installed:
        here = AppConfig.load(args)
        found = [name for name in MODEL_FACTS if find_downloaded_file(name, here)]
        args["models"] = [BUNDLED_MODEL, *found]
        args["models_on_request"] = []
    args = with_bundled_model(args)
    AppConfig.load(args)
    report = run_smoke(args, matting=matting, timeout_s=timeout_s)
    print_line(report.to_json())
    if report.reason is not None:
        print(f"error: {visible(report.reason)}", file=sys.stderr)
        raise typer.Exit(FAILED)
