"""``foreedge doctor``: examine an installation, whatever its settings name."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import typer

from ingest.cli.exit_codes import FAILED
from ingest.cli.options import ConfigOption, EndpointOption, JsonOption, SetOption
from ingest.cli.settings import merge_settings, with_bundled_model
from ingest.cli.terminal import print_json, print_line
from ingest.smoke.doctor import examine


def doctor(
    config: ConfigOption = None,
    settings: SetOption = None,
    endpoint_url: EndpointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check the places that the settings name, and exit with 1 if something is wrong.

    It looks at the queue, its dead-letter queue, the bucket of the results, the buckets that jobs
    may name, the ledger, the API keys, and the catalog's database and bucket, as far as they are
    configured. It names each right to them that is missing, and changes nothing but a probe in the
    ledger. Which images may be read is not asked. If all is well, it cuts out an image with each
    model.
    """
    print_findings(
        with_bundled_model(merge_settings(config, None, None, endpoint_url, settings)), as_json
    )


def print_findings(settings: dict[str, Any], as_json: bool) -> None:
    """Examine an installation and print each finding. Exit with 1 if something is wrong.

    Args:
        settings: Settings of the application, which are valid.
        as_json: Whether each finding is a line of JSON.
    """
    failed = False
    for finding in examine(settings):
        well = finding.problem is None
        failed |= not well
        if as_json:
            print_json({"ok": well, **asdict(finding)})
        elif well:
            print_line(f"ok      {finding.check}: {finding.detail}")
        else:
            print_line(f"FAILED  {finding.check}: {finding.problem}")
    if failed:
        raise typer.Exit(FAILED)
