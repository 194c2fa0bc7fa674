"""Events of S3: which objects were created, and which of them are images to process.

An event names no image if its object is a folder, has the name of another file, or was written by
this application. There is nothing to do for it, as ``foreedge bulk`` skips such names. Unlike in
``bulk``, an object whose name has no extension is a job if it is not empty: uploads often have no
other name than an id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import unquote_plus

from ingest.sources.base import is_image, leaves_kind_open
from serve_app.config import QueueConfig
from serve_app.contracts.job import DERIVED_ID_HEX_DIGITS
from serve_app.errors import InvalidMessage


class CreatedObject(NamedTuple):
    """An object that an event reports, with values that nobody has checked."""

    bucket: Any
    key: Any
    version_id: Any
    etag: Any
    sequencer: Any
    """Text by which S3 orders the events of one key."""
    size: Any
    """Size of the object, in bytes."""

    @property
    def job_id(self) -> str:
        """Id of the job, which is the same for every delivery of the event."""
        digest = hashlib.sha256()
        for part in (self.bucket, self.key, self.version_id, self.etag, self.sequencer):
            digest.update(f"{part}\0".encode(errors="surrogatepass"))
        return digest.hexdigest()[:DERIVED_ID_HEX_DIGITS]

    def is_to_be_processed(self, defaults: QueueConfig) -> bool:
        """Return whether the object is an image and not in the place of the results."""
        if not isinstance(self.key, str):
            return True  # The job says what is wrong with it.
        # With an empty prefix, every object of the bucket would look like a result.
        prefix = defaults.output_prefix
        if prefix and self.bucket == defaults.output_bucket:
            folder = prefix if prefix.endswith("/") else prefix + "/"
            if self.key.startswith(folder):
                return False
        if is_image(self.key, all_names=defaults.all_names):
            return True
        # Empty objects mark folders and ends of jobs.
        return leaves_kind_open(self.key) and self.size != 0


def created_by_records(records: object) -> Iterator[CreatedObject]:
    """Yield the created objects of an S3 event notification.

    Raises:
        InvalidMessage: A record is not one of S3, or its key is not UTF-8.
    """
    if not isinstance(records, list):
        raise InvalidMessage("Records: is not a list")
    for index, record in enumerate(records):
        where = f"Records.{index}"
        try:
            if record["eventSource"] != "aws:s3":
                raise InvalidMessage(f"{where}: eventSource is not aws:s3")
            # Some notifications have "s3:" before the event's name.
            if not record["eventName"].removeprefix("s3:").startswith("ObjectCreated:"):
                continue
            bucket, entity = record["s3"]["bucket"]["name"], record["s3"]["object"]
            key = unquote_plus(entity["key"], errors="strict")
            version_id = entity.get("versionId")
            etag, sequencer = entity.get("eTag"), entity.get("sequencer")
            size = entity.get("size")
        except UnicodeDecodeError as error:
            raise InvalidMessage(f"{where}: the key is not UTF-8 once it is decoded") from error
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidMessage(f"{where}: is not a record of an S3 event: {error!r}") from error
        yield CreatedObject(bucket, key, version_id, etag, sequencer, size)


def created_by_eventbridge(content: dict[str, Any]) -> Iterator[CreatedObject]:
    """Yield the created object of an S3 event from EventBridge.

    Raises:
        InvalidMessage: The event has no detail of S3.
    """
    if content["detail-type"] != "Object Created":
        return
    try:
        detail = content["detail"]
        bucket, entity = detail["bucket"]["name"], detail["object"]
        # Unlike notifications, EventBridge does not encode the key.
        key, version_id = entity["key"], entity.get("version-id")
        etag, sequencer = entity.get("etag"), entity.get("sequencer")
        size = entity.get("size")
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidMessage(f"detail: is not the detail of an S3 event: {error!r}") from error
    yield CreatedObject(bucket, key, version_id, etag, sequencer, size)
