"""The options that several commands share, and the session that they open."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ingest.cli.settings import load_config
from ingest.runs.folder import RunFolder
from ingest.runs.live import named_run_id
from ingest.runs.manifest import RunManifest
from ingest.sqs.queue_client import QueueClient
from ingest.sqs.sender import SEND_THREADS
from serve_app.aws import aws_client
from serve_app.config import AppConfig, LedgerConfig
from serve_app.contracts.job import check_run_id
from serve_app.errors import InvalidConfig
from serve_app.storage import open_store
from serve_app.storage.protocol import ObjectStore


def home_text(text: str) -> str:
    """Return an argument in which ``~`` at its beginning is replaced by the home folder.

    Make and some shells pass ``IMAGES=~/images`` on as it is.
    """
    return os.path.expanduser(text)  # noqa: PTH111 (Path.expanduser fails for unknown users)


def home_path(text: str) -> Path:
    """Return an argument as a path. See ``home_text``."""
    return Path(home_text(text))


ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="YAML file with settings, or a Serve file with one application."),
]
QueueOption = Annotated[str | None, typer.Option("--queue", help="URL of the SQS queue.")]
UnusedQueueOption = Annotated[
    str | None,
    typer.Option(
        "--queue",
        hidden=True,
        help="Not used: for scripts that give all commands about runs the same options.",
    ),
]
LedgerOption = Annotated[
    str | None,
    typer.Option("--ledger-bucket", help="Bucket of the ledger, which records results of runs."),
]
EndpointOption = Annotated[
    str | None,
    typer.Option("--endpoint-url", help="URL of a local server to use in place of AWS."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Setting to override, written NAME=VALUE. Repeatable."),
]
RateOption = Annotated[
    float | None,
    typer.Option(
        "--rate",
        min=0.1,
        max=1_000_000,
        help="Maximum number of messages per second.",
    ),
]
CodeOption = Annotated[
    str | None, typer.Option("--code", help="Only failures with this error code.")
]
CsvOption = Annotated[
    str | None,
    typer.Option("--csv", help="File to write the whole list to as CSV, or - for standard output."),
]
RawOption = Annotated[
    bool,
    typer.Option("--raw", help="Write CSV cells as they are, also those that look like formulas."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
RunArgument = Annotated[str, typer.Argument(help="Id of the run, as printed by foreedge bulk.")]


@dataclass(frozen=True, slots=True)
class Session:
    """What a command works with: the configuration, the object store and the ledger."""

    config: AppConfig
    store: ObjectStore
    ledger: LedgerConfig
    queue_named: bool = False
    """Whether the command line names the queue."""

    def run_folder(self, run_id: str) -> RunFolder:
        """Return the folder of a run in the ledger. ``live`` is that of today's messages.

        Raises:
            InvalidConfig: The id cannot be the name of a folder.
        """
        try:
            return RunFolder(self.store, self.ledger, named_run_id(check_run_id(run_id)))
        except ValueError as error:
            raise InvalidConfig(f"invalid run id {run_id!r}: it {error}") from error

    def queue_client(self, manifest: RunManifest | None = None) -> QueueClient:
        """Return the queue of a run, or the configured one if none is given.

        A run's own queue comes before that of the settings, where its messages would reach another
        worker, or be missed although they wait. Only ``--queue`` comes before it. The host of its
        URL does not matter: boto3 calls the endpoint of the settings, so a local server may have
        moved since.

        Args:
            manifest: The run, or None if it is not sent yet.

        Raises:
            InvalidConfig: No queue is configured, or the configured one is not a URL.
        """
        if manifest is not None and not self.queue_named:
            url = manifest.queue_url
        elif self.config.queue is None:
            raise InvalidConfig(
                "no queue is configured. Give --queue, or set FOREEDGE_QUEUE__URL to its URL"
            )
        else:
            url = self.config.queue.url
            if not url.startswith(("https://", "http://")):
                raise InvalidConfig(
                    f"the queue {url!r} is not a URL. Use the one that SQS shows, such as "
                    "https://sqs.eu-west-1.amazonaws.com/123456789012/images"
                )
        return QueueClient(aws_client("sqs", self.config.aws, connections=SEND_THREADS), url)


def open_session(
    file: Path | None,
    queue: str | None,
    ledger_bucket: str | None,
    endpoint_url: str | None,
    assignments: list[str] | None = None,
) -> Session:
    """Return the session that the shared options of a command describe.

    Raises:
        InvalidConfig: A setting is wrong, or no ledger is configured.
    """
    config = load_config(file, queue, ledger_bucket, endpoint_url, assignments)
    if config.ledger is None:
        raise InvalidConfig(
            "no ledger is configured. Give --ledger-bucket, or set FOREEDGE_LEDGER__BUCKET to the "
            "bucket in which runs are recorded"
        )
    return Session(config, open_store(config), config.ledger, queue_named=queue is not None)
