"""From the words of a command line to values: settings, and the photographs of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ingest.sources import base as sources
from ingest.sources.folder import FileUpload, image_files, uploads
from ingest.sources.inventory import InventorySource, is_inventory
from ingest.sources.manifest import ManifestSource
from ingest.sources.s3_prefix import PrefixSource, own_prefixes
from serve_app.config import AppConfig, LedgerConfig, QueueConfig
from serve_app.contracts.base import describe_validation_error
from serve_app.contracts.job import Output
from serve_app.errors import InvalidConfig
from serve_app.storage.protocol import ObjectStore


@dataclass(frozen=True, slots=True)
class OutputPlaces:
    """Where things go, as far as the command line says."""

    output: str | None = None
    """s3:// URL of the results."""
    upload_to: str | None = None
    """s3:// URL of a folder's photographs; a folder of the run's name is made there."""
    url_encoded_keys: bool = False
    """Of a manifest."""


@dataclass(frozen=True, slots=True)
class Collected:
    """The photographs of a run."""

    photographs: sources.PhotographSource
    output: Output
    uploads: list[FileUpload] = field(default_factory=list)
    """Files that become these photographs."""


def collect(
    source: str,
    places: OutputPlaces,
    run_id: str,
    store: ObjectStore,
    ledger: LedgerConfig,
    queue: QueueConfig | None,
) -> Collected:
    """Return the photographs that a command's source stands for; blocks, writes nothing.

    Args:
        source: ``s3://bucket/prefix``, an S3 Inventory's ``manifest.json`` (in S3 or here), a
            local folder, or a manifest file.
        places: Where things go.
        run_id: Part of the keys of uploaded photographs.
        store: Where photographs are.
        ledger: Its place is no source; its bucket takes uploads where nothing else is said.
        queue: Its output is the default.

    Raises:
        InvalidConfig: A URL or the manifest is wrong, or results would land among the sources.
    """
    out = _output_argument(places.output)
    own = (ledger.bucket, ledger.prefix or "runs/")
    if is_inventory(source):
        inventory = InventorySource(store, source)
        out = out or _default_output(queue, inventory.bucket)
        if out == Output(bucket=inventory.bucket, prefix=""):
            raise InvalidConfig(
                f"results would be written among the sources in s3://{inventory.bucket}/: choose "
                "another --output"
            )
        inventory.own = own_prefixes(inventory.bucket, out, own)
        return Collected(inventory, out)
    if source.startswith("s3://"):
        bucket, prefix = sources.parse_s3_url(source)
        out = out or _default_output(queue, bucket)
        listed = PrefixSource(store, bucket, prefix, output=out, ledger=own)
        return Collected(listed, out)
    if Path(source).is_dir():
        bucket, prefix = sources.parse_s3_url(places.upload_to or f"s3://{ledger.bucket}/uploads/")
        prefix = f"{prefix.rstrip('/')}/{run_id}/" if prefix else f"{run_id}/"
        images, skipped = image_files(Path(source))
        files = sorted(uploads(Path(source), images, bucket, prefix), key=lambda item: item.key)
        entries = [sources.Entry(item.bucket, item.key) for item in files]
        folder = sources.ListedPhotographs(entries, ordered=True)
        folder.total, folder.skipped = len(entries), skipped
        return Collected(folder, out or _default_output(queue, bucket), files)
    found = ManifestSource(Path(source), url_encoded=places.url_encoded_keys)
    only = next(iter(found.buckets)) if len(found.buckets) == 1 else None
    return Collected(found, out or _default_output(queue, only))


def _output_argument(url: str | None) -> Output | None:
    if url is None:
        return None
    bucket, prefix = sources.parse_s3_url(url)
    try:
        return Output(bucket=bucket, prefix=prefix)
    except ValidationError as error:
        raise InvalidConfig(f"--output: {describe_validation_error(error)}") from error


def load_file(path: Path) -> dict[str, Any]:
    """Return the settings of a YAML file: plain ones, or the ``args`` of a Serve file.

    Raises:
        InvalidConfig: The file cannot be read, or is neither.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidConfig(f"{path}: {error}") from error
    if content is None:
        return {}
    if isinstance(content, dict) and "applications" in content:
        applications = content["applications"]
        if not isinstance(applications, list) or len(applications) != 1:
            raise InvalidConfig(f"{path}: applications must hold exactly one application")
        content = applications[0].get("args") or {}
    if not isinstance(content, dict):
        raise InvalidConfig(f"{path}: is not a mapping of settings")
    return content


def override(args: dict[str, Any], name: str, value: Any) -> None:
    """Put a dotted setting into nested ones.

    Raises:
        InvalidConfig: The name goes through a setting that is not a section.
    """
    *parents, leaf = name.split(".")
    section = args
    for parent in parents:
        if section.get(parent) is None:
            section[parent] = {}
        section = section[parent]
        if not isinstance(section, dict):
            raise InvalidConfig(f"{name}: {parent} has no settings of its own")
    section[leaf] = value


def settings(
    file: Path | None,
    queue: str | None,
    ledger_bucket: str | None,
    endpoint_url: str | None,
    assignments: list[str] | None = None,
) -> dict[str, Any]:
    """Return nested settings from a file and what the command line puts over it.

    Args:
        file: See ``load_file``.
        queue: URL of the queue.
        ledger_bucket: Bucket of the ledger.
        endpoint_url: Of a local server.
        assignments: Dotted settings, as in ``segmenter.threads=4``; values are YAML.

    Raises:
        InvalidConfig: The file or an assignment cannot be read.
    """
    args = load_file(file) if file else {}
    for setting in assignments or []:
        name, equals, text = setting.partition("=")
        if not name or not equals:
            raise InvalidConfig(f"--set {setting}: must be key=value")
        try:
            override(args, name, yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise InvalidConfig(f"--set {setting}: {error}") from error
    flags = {
        "queue.url": queue,
        "ledger.bucket": ledger_bucket,
        "aws.endpoint_url": endpoint_url,
    }
    for name, value in flags.items():
        if value is not None:
            override(args, name, value)
    return args


def app_config(
    file: Path | None, queue: str | None, ledger_bucket: str | None, endpoint_url: str | None
) -> AppConfig:
    """Return the configuration; see ``settings``."""
    return AppConfig.load(settings(file, queue, ledger_bucket, endpoint_url))


def _default_output(queue: QueueConfig | None, bucket: str | None) -> Output:
    """Return where results go when the command does not say.

    Args:
        queue: Its output bucket and prefix, where set.
        bucket: That of all sources; None where there are several.
    """
    bucket = (queue.output_bucket if queue else None) or bucket
    if not bucket:
        raise InvalidConfig("the photographs are in several buckets: say --output s3://…")
    return Output(bucket=bucket, prefix=queue.output_prefix if queue else "cutouts/")
