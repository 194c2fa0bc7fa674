"""Settings of the services outside of this application: AWS, object stores, the queue."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from serve_app.config.section import NonEmpty, Positive, Seconds, Section, WrittenAsText
from serve_app.contracts.object_names import BucketName, KeyPrefix
from serve_app.contracts.recipe import PRESETS

_LONGEST_HIDDEN_S = 43_200
"""Longest time, in seconds, for which SQS hides a message: 12 hours."""

_QUEUE_HOST = re.compile(
    r"(?:.+\.)?sqs(?:-fips)?\.([a-z0-9-]+)\.(?:vpce\.)?(?:amazonaws\.com(?:\.cn)?|api\.aws)"
    r"|([a-z0-9-]+)\.queue\.amazonaws\.com(?:\.cn)?"
)
"""Hosts of queues, from https://docs.aws.amazon.com/general/latest/gr/sqs-service.html. One of an
interface endpoint begins with the endpoint's own name."""


class AwsConfig(Section):
    """How S3, SQS and Secrets Manager are reached."""

    region: NonEmpty = "us-east-1"
    """AWS region of the buckets, the queue and the secret. It comes from here alone: replicas on
    other machines have another environment, so that ``AWS_REGION`` and the region of a profile are
    not read."""
    endpoint_url: str | None = None
    """URL of a local server that speaks the protocols of AWS. None stands for AWS itself."""
    max_attempts: Positive = 4
    """Maximum number of attempts for one AWS call, made by boto3 in its ``standard`` mode."""
    connect_timeout_s: Seconds = 5
    """Time, in seconds, within which a connection to AWS must be open."""
    read_timeout_s: Seconds = 30
    """Time, in seconds, within which AWS must answer. It must exceed ``queue.long_poll_s``. The
    queue's calls are given less, by ``queue.visibility_timeout_s``."""


class StorageConfig(Section):
    """The object store that images are read from and results are written to."""

    allowed_buckets: Annotated[tuple[NonEmpty, ...], NoDecode, WrittenAsText] = ()
    """Buckets that a job may name. If empty, a job may name every bucket that the credentials can
    reach."""
    local_root: Path | None = None
    """Folder that takes the place of S3. Each of its subfolders is a bucket."""


class QueueConfig(Section):
    """The SQS queue that SqsIngest consumes."""

    CONSUMER_CPUS: ClassVar[float] = 0.1
    """CPU cores that Ray reserves for each consumer, which waits for others most of the time."""

    url: NonEmpty
    """URL of the queue."""
    consumers: Positive = 1
    """Number of SqsIngest replicas. Each node runs at most one."""
    max_in_flight: Positive = 64
    """Number of jobs that one consumer may have in the pipeline at the same time. It must exceed
    the number of images that the replicas can process at once. Otherwise their autoscaler never
    sees the demand."""
    visibility_timeout_s: Annotated[int, Field(ge=3, le=_LONGEST_HIDDEN_S)] = 120
    """Time, in seconds, for which SQS hides a received message from other consumers. It is extended
    every third of that time, at least every 15 s, until the job ends. SQS hides a message for 12
    hours in all."""
    long_poll_s: Annotated[int, Field(ge=0, le=20)] = 20
    """Time, in seconds, for which one receive waits for messages. An empty queue is asked once a
    second if it is 0."""
    job_deadline_s: Seconds = 600
    """Time, in seconds, from the receipt of a message until its job counts as a transient failure.
    It includes the wait for a replica. The waits of the consumer are not counted: for one of its
    ``max_in_flight`` places, for jobs that run alone, and for a bucket or models that refuse. No
    job runs for more than 12 hours."""
    retry_base_s: Seconds = 2
    """Back-off, in seconds, after the first transient failure of a job. It doubles with each
    receive."""
    retry_max_s: Annotated[Seconds, Field(le=_LONGEST_HIDDEN_S)] = 300
    """Longest back-off, in seconds, after a transient failure. It must not be below
    ``retry_base_s``."""
    default_max_receives: Positive = 5
    """Number of receives after which a transient or unexpected failure is final if the queue has no
    redrive policy."""
    stop_grace_s: Seconds = 20
    """Time, in seconds, that jobs in flight have to end once a stop was requested."""
    output_bucket: BucketName | None = None
    """Bucket of the results of messages that name no output, such as S3 event notifications. None
    rejects such messages."""
    output_prefix: KeyPrefix = "cutouts/"
    """Key prefix of the results of messages that name no output."""
    recipe: str = "cutout"
    """Name of the preset for messages that name no recipe."""
    all_names: bool = False
    """Whether an event of S3 is a job whatever the name of its object is. Otherwise it is none if
    the name has an extension, and not that of an image. Folders and Foreedge's own objects never
    are."""

    @property
    def region(self) -> str | None:
        """AWS region that the URL of the queue names, or None if it names none."""
        found = _QUEUE_HOST.fullmatch(urlsplit(self.url).hostname or "")
        return found and (found[1] or found[2])

    @field_validator("recipe")
    @classmethod
    def _check_that_the_preset_exists(cls, value: str) -> str:
        if value not in PRESETS:
            raise ValueError(f"{value!r} is not a preset; choose from {', '.join(PRESETS)}")
        return value

    @model_validator(mode="after")
    def _check_retries(self) -> Self:
        if self.retry_max_s < self.retry_base_s:
            raise ValueError(
                f"queue.retry_max_s ({self.retry_max_s:g}) must not be below queue.retry_base_s "
                f"({self.retry_base_s:g})"
            )
        return self


class LedgerConfig(Section):
    """The ledger, in which the results of runs are recorded."""

    bucket: BucketName
    """Bucket of the ledger."""
    prefix: str = "_foreedge/"
    """Key prefix of everything in the ledger."""
    part_records: Positive = 1_000
    """Maximum number of records in one part, which is one object of the ledger."""
    part_interval_s: Seconds = 2
    """Longest time, in seconds, that a record waits before its part is written."""
