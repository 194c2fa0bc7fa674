"""The images under an S3 prefix."""

from __future__ import annotations

from collections.abc import Iterator

from ingest.sources.base import Entry, ImageSource, count_skipped, is_image, kind_of
from serve_app.contracts.job import Output
from serve_app.errors import InvalidConfig
from serve_app.storage.protocol import ObjectStore


class PrefixSource(ImageSource):
    """The images under a prefix, each with its ETag at the time of listing."""

    ordered = True

    def __init__(
        self,
        store: ObjectStore,
        bucket: str,
        prefix: str,
        *,
        output: Output,
        ledger: tuple[str, str],
        all_names: bool = False,
    ) -> None:
        """Prepare to list the prefix.

        Args:
            store: The object store that holds the images.
            bucket: Bucket of the images.
            prefix: Prefix of their keys.
            output: Place of the results, which are not taken for images.
            ledger: Bucket and prefix of the ledger, whose objects are not taken for images.
            all_names: Whether objects without the extension of an image are images too.

        Raises:
            InvalidConfig: The results would be written among the images.
        """
        super().__init__()
        if output.bucket == bucket and prefix.startswith(output.prefix):
            raise InvalidConfig(
                f"the results would be written to s3://{bucket}/{output.prefix}, which contains "
                f"the source images s3://{bucket}/{prefix}. Choose another --output"
            )
        self._store, self._bucket, self._prefix = store, bucket, prefix
        self._all_names = all_names
        self._reserved = reserved_prefixes(bucket, output, ledger)

    def entries(self, after: str | None = None) -> Iterator[Entry]:
        """Yield the images. See ``ImageSource``."""
        self.skipped.clear()
        for item in self._store.list(self._bucket, self._prefix, after):
            if item.key.startswith(self._reserved):
                continue
            if is_image(item.key, all_names=self._all_names):
                yield Entry(self._bucket, item.key, item.etag)
            elif not item.key.endswith("/"):
                count_skipped(self.skipped, kind_of(item.key))


def reserved_prefixes(bucket: str, output: Output, ledger: tuple[str, str]) -> tuple[str, ...]:
    """Return the prefixes of a bucket that belong to the results or the ledger of a run."""
    places = ((output.bucket, output.prefix), ledger)
    return tuple(prefix for place_bucket, prefix in places if place_bucket == bucket)
