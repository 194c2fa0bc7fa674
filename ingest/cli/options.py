"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ingest.runs.manifest import RunManifest
from serve_app.aws import aws_client
from serve_app.config import AppConfig, LedgerConfig
from serve_app.errors import InvalidConfig

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file: settings, or a Serve file with applications."),
]
QueueOption = Annotated[str | None, typer.Option("--queue", help="URL of the SQS queue.")]
LedgerOption = Annotated[
    str | None, typer.Option("--ledger-bucket", help="Bucket where results of runs are recorded.")
]
EndpointOption = Annotated[
    str | None, typer.Option("--endpoint-url", help="Of a local server instead of AWS.")
]
RateOption = Annotated[
    float | None, typer.Option("--rate", min=0.1, help="Most messages per second.")
]
CodeOption = Annotated[str | None, typer.Option("--code", help="Only failures with this code.")]
CsvOption = Annotated[
    str | None, typer.Option("--csv", help="Write all of them as CSV to a file, or - for here.")
]
RunArgument = Annotated[str, typer.Argument(help="The run's id, as foreedge bulk prints it.")]


def ledger_of(config: AppConfig) -> LedgerConfig:
    """Return where the ledger is.

    Raises:
        InvalidConfig: Nobody said.
    """
    if config.ledger is None:
        raise InvalidConfig("which ledger? Give --ledger-bucket or FOREEDGE_LEDGER__BUCKET")
    return config.ledger


def queue_of(config: AppConfig, manifest: RunManifest) -> tuple[SQSClient, str]:
    """Return a client, and the queue: the one that was asked for, or else that of the run."""
    url = config.queue.url if config.queue else manifest.queue_url
    client: SQSClient = aws_client("sqs", config.aws)
    return client, url
