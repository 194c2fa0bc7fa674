"""The images and the output that the arguments of ``foreedge bulk`` name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from ingest.sources.base import Entry, ImageSource, ListedImages, is_image, parse_s3_url
from ingest.sources.folder import FileUpload, image_files, plan_uploads
from ingest.sources.inventory import InventorySource, is_inventory
from ingest.sources.manifest import ManifestSource
from ingest.sources.s3_prefix import PrefixSource, reserved_prefixes
from serve_app.config import LedgerConfig, QueueConfig
from serve_app.contracts.base import describe_validation_error
from serve_app.contracts.job import Output
from serve_app.errors import InvalidConfig, SourceNotAllowed
from serve_app.storage import check_allowed
from serve_app.storage.protocol import ObjectStore


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """The options that decide how a source is read and to which place results are written."""

    output: str | None = None
    """s3:// URL of the results."""
    upload_to: str | None = None
    """s3:// URL under which the images of a folder are uploaded, below the run's id."""
    url_encoded_keys: bool = False
    """Whether the keys in a manifest are URL-encoded."""
    all_names: bool = False
    """Whether names without the extension of an image are those of images too."""


@dataclass(frozen=True, slots=True)
class RunSource:
    """The images of a run and the place of its results."""

    source: ImageSource
    output: Output
    buckets: frozenset[str]
    """Buckets of the images."""
    uploads: list[FileUpload] = field(default_factory=list)
    """Local files to upload before the run is sent. Empty unless the source is a folder."""
    upload_prefix: str = ""
    """Prefix of the keys of these uploads."""


@dataclass(frozen=True, slots=True)
class _Places:
    """The places of results, uploads and the ledger."""

    output: Output | None
    """The output that the command line names."""
    queue: QueueConfig | None
    ledger: LedgerConfig

    @property
    def reserved(self) -> tuple[str, str]:
        """Bucket and prefix of the ledger, whose objects are not images of a run."""
        return self.ledger.bucket, self.ledger.prefix or "runs/"

    def output_for(self, bucket: str | None) -> Output:
        """Return where the results of images in a bucket are written.

        Args:
            bucket: The bucket of all images. None if there are several.

        Raises:
            InvalidConfig: There are several buckets and nothing names the output.
        """
        if self.output is not None:
            return self.output
        bucket = (self.queue.output_bucket if self.queue else None) or bucket
        if not bucket:
            raise InvalidConfig(
                "the images are in several buckets, so the bucket of the results must be given: "
                "--output s3://bucket/prefix"
            )
        return Output(bucket=bucket, prefix=self.queue.output_prefix if self.queue else "cutouts/")


def resolve_source(
    source: str,
    options: SourceOptions,
    run_id: str,
    store: ObjectStore,
    ledger: LedgerConfig,
    queue: QueueConfig | None,
) -> RunSource:
    """Return the images that the source argument of ``foreedge bulk`` names.

    Blocks. Nothing is written.

    Args:
        source: ``s3://bucket/prefix``, an S3 Inventory's ``manifest.json`` (in S3 or a local
            copy), a local folder, or a manifest file.
        options: How the source is read and to which place the results are written.
        run_id: Id of the run, which becomes part of the keys of uploaded images.
        store: The object store that holds the images.
        ledger: Excluded from the sources. Its bucket receives uploads unless ``upload_to`` is
            given.
        queue: The queue, whose settings have the default output.

    Raises:
        InvalidConfig: A URL or the manifest is wrong, or results would be written among the
            sources.
    """
    places = _Places(_parse_output(options.output), queue, ledger)
    if is_inventory(source):
        return _inventory_source(store, source, options, places)
    if source.startswith("s3://"):
        bucket, prefix = parse_s3_url(source)
        output = places.output_for(bucket)
        listed = PrefixSource(
            store,
            bucket,
            prefix,
            output=output,
            ledger=places.reserved,
            all_names=options.all_names,
        )
        return RunSource(listed, output, frozenset({bucket}))
    if Path(source).is_dir():
        return _folder_source(Path(source), options, run_id, places)
    if not Path(source).exists():
        raise InvalidConfig(
            f"the source {source} does not exist. It must be a folder, a manifest file or a URL of "
            "the form s3://bucket/prefix"
        )
    if is_image(Path(source).name):
        raise InvalidConfig(
            f"the source {source} is one image. Give the folder that it is in, or a manifest: a "
            "CSV or JSON-lines file that lists images in S3"
        )
    manifest = ManifestSource(Path(source), url_encoded=options.url_encoded_keys)
    only = next(iter(manifest.buckets)) if len(manifest.buckets) == 1 else None
    return RunSource(manifest, places.output_for(only), frozenset(manifest.buckets))


def check_run_buckets(run: RunSource, allowed: tuple[str, ...]) -> None:
    """Check that jobs may name the buckets of a run, before anything is uploaded or sent.

    Args:
        run: The images and the place of their results.
        allowed: Buckets that a job may name (``storage.allowed_buckets``). Empty for all of them.

    Raises:
        SourceNotAllowed: The consumers would refuse every job that names one of the buckets.
    """
    extend = "Extend storage.allowed_buckets, here and for the consumers"
    if run.uploads:
        extend = "Give --upload-to s3://BUCKET/PREFIX, which the consumers may read"
    places = [(bucket, "read its images from", extend) for bucket in sorted(run.buckets)]
    results = "Give --output s3://BUCKET/PREFIX, to which the consumers may write"
    for bucket, purpose, remedy in [*places, (run.output.bucket, "write its results to", results)]:
        try:
            check_allowed(bucket, allowed)
        except SourceNotAllowed as error:
            raise SourceNotAllowed(
                f"the run would {purpose} bucket {bucket!r}, which no job may name, so nothing was "
                f"sent. {remedy}. Allowed buckets (storage.allowed_buckets): {', '.join(allowed)}"
            ) from error


def _inventory_source(
    store: ObjectStore, url: str, options: SourceOptions, places: _Places
) -> RunSource:
    inventory = InventorySource(store, url, all_names=options.all_names)
    output = places.output_for(inventory.bucket)
    if output == Output(bucket=inventory.bucket, prefix=""):
        raise InvalidConfig(
            f"the results would be written among the source images in s3://{inventory.bucket}/. "
            "Choose another --output"
        )
    inventory.reserved = reserved_prefixes(inventory.bucket, output, places.reserved)
    return RunSource(inventory, output, frozenset({inventory.bucket}))


def _folder_source(folder: Path, options: SourceOptions, run_id: str, places: _Places) -> RunSource:
    bucket, prefix = parse_s3_url(options.upload_to or f"s3://{places.ledger.bucket}/uploads/")
    prefix = f"{prefix.rstrip('/')}/{run_id}/" if prefix else f"{run_id}/"
    images, skipped = image_files(folder, all_names=options.all_names)
    uploads = plan_uploads(folder, images, bucket, prefix)
    uploads.sort(key=lambda item: item.key)
    source = ListedImages((Entry(item.bucket, item.key) for item in uploads), ordered=True)
    source.total, source.skipped = len(uploads), skipped
    return RunSource(source, places.output_for(bucket), frozenset({bucket}), uploads, prefix)


def _parse_output(url: str | None) -> Output | None:
    if url is None:
        return None
    bucket, prefix = parse_s3_url(url)
    try:
        return Output(bucket=bucket, prefix=prefix)
    except ValidationError as error:
        raise InvalidConfig(f"--output {url}: {describe_validation_error(error)}") from error
