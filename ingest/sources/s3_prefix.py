"""Photographs under an S3 prefix."""

from __future__ import annotations

from collections.abc import Iterator

from ingest.sources.base import Entry, ImageSource, is_image
from serve_app.contracts.job import Output
from serve_app.errors import InvalidConfig
from serve_app.storage.protocol import ObjectStore


class PrefixSource(ImageSource):
    """The images under a prefix, with the ETags that they have when they are listed."""

    ordered = True

    def __init__(
        self,
        store: ObjectStore,
        bucket: str,
        prefix: str,
        *,
        output: Output,
        ledger: tuple[str, str],
    ) -> None:
        """Begin with none.

        Args:
            store: Where they are.
            bucket: Their bucket.
            prefix: Of their keys.
            output: Where results go; nothing from there is taken for a source.
            ledger: Bucket and prefix of the ledger; the same.

        Raises:
            InvalidConfig: The results would land among the sources.
        """
        super().__init__()
        if output.bucket == bucket and prefix.startswith(output.prefix):
            raise InvalidConfig(
                f"results would be written to s3://{bucket}/{output.prefix}, which holds the "
                f"sources s3://{bucket}/{prefix}: choose another --output"
            )
        self._store, self._bucket, self._prefix = store, bucket, prefix
        self._own = reserved_prefixes(bucket, output, ledger)

    def entries(self, after: str | None = None) -> Iterator[Entry]:
        """See Photographs."""
        self.skipped = 0
        for item in self._store.list(self._bucket, self._prefix, after):
            if item.key.startswith(self._own):
                continue
            if is_image(item.key):
                yield Entry(self._bucket, item.key, item.etag)
            elif not item.key.endswith("/"):
                self.skipped += 1


def reserved_prefixes(bucket: str, output: Output, ledger: tuple[str, str]) -> tuple[str, ...]:
    """Return the prefixes of a bucket whose objects are ours: results, and the ledger."""
    places = ((output.bucket, output.prefix), ledger)
    return tuple(prefix for own_bucket, prefix in places if own_bucket == bucket)
