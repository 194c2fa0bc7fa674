"""Stand-ins around a consumer that is measured alone: a pipeline, a queue and a store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ingest.sqs.queue import Message
from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Box, Cutout, Outcome
from serve_app.storage.protocol import ObjectInfo


class InstantPipeline:
    """A pipeline in which every job is done at once."""

    async def process(self, job: Job) -> Outcome:
        """Return the outcome of a job that was done."""
        return Outcome(
            job_id=job.job_id,
            run_id=job.run_id,
            status="done",
            source=job.source,
            output_bucket=job.output.bucket,
            output_key=f"{job.output.prefix}{job.source.key}/0123456789abcdef0123.png",
            output_bytes=1_000_000,
            cutout=Cutout(
                model="standin",
                width=1600,
                height=1200,
                subject=Box(left=10, top=10, right=1500, bottom=1100),
                mask_confidence=0.98,
                stages_ms={"fetch": 10.0, "decode": 10.0, "segment": 10.0, "encode": 10.0},
            ),
        )

    async def models(self) -> list[Any]:
        """Return no models."""
        return []


class GeneratedQueue:
    """A queue in memory that creates its messages when they are received."""

    max_receives = 5

    def __init__(self, messages: int, call_s: float) -> None:
        """Create a full queue.

        Args:
            messages: Number of messages that the queue hands out.
            call_s: Duration of each call, in seconds.
        """
        self._messages = messages
        self._call_s = call_s
        self._sent = 0
        self._held: set[str] = set()
        self.deleted = 0

    async def receive(self, max_messages: int, wait_s: int, visibility_s: int) -> list[Message]:
        """See Queue."""
        await asyncio.sleep(self._call_s)
        count = min(max_messages, self._messages - self._sent)
        if count == 0:
            await asyncio.sleep(0.1)
        found = [self._message(self._sent + n) for n in range(count)]
        self._sent += count
        self._held.update(item.receipt_handle for item in found)
        return found

    async def extend(self, handles: Sequence[str], visibility_s: float) -> set[str]:
        """See Queue."""
        await asyncio.sleep(self._call_s)
        return {handle for handle in handles if handle not in self._held}

    async def delete(self, handles: Sequence[str]) -> set[str]:
        """See Queue."""
        await asyncio.sleep(self._call_s)
        assert self._held.issuperset(handles)
        self._held.difference_update(handles)
        self.deleted += len(handles)
        return set()

    async def release(self, delays_s: Mapping[str, float]) -> set[str]:
        """See Queue."""
        raise AssertionError("a job failed, but InstantPipeline fails none")

    async def dead_letter(
        self, message: Message, code: str, reason: str, job_id: str | None = None
    ) -> bool:
        """See Queue."""
        raise AssertionError("a job failed, but InstantPipeline fails none")

    def _message(self, number: int) -> Message:
        name = f"m{number}"
        return Message(name, name, job_message(number), 1, datetime.now(UTC))


class DiscardingStore:
    """An object store that drops what is written, so that the ledger's parts cost no I/O."""

    def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo | None:
        """See ObjectStore."""
        return None

    def get(self, bucket: str, key: str, **conditions: Any) -> bytes:
        """See ObjectStore."""
        raise AssertionError(f"{key} was read from a store that keeps nothing")

    def put(self, bucket: str, key: str, data: bytes, media_type: str) -> None:
        """See ObjectStore."""

    def put_if_absent(
        self, bucket: str, key: str, data: bytes, media_type: str, *, model: str | None = None
    ) -> bool:
        """See ObjectStore."""
        return True

    def chunks(self, bucket: str, key: str) -> Any:
        """See ObjectStore."""
        return iter(())

    def list(self, bucket: str, prefix: str, after: str | None = None) -> Any:
        """See ObjectStore."""
        return iter(())

    def keys(self, bucket: str, prefix: str, after: str | None = None) -> Any:
        """See ObjectStore."""
        return iter(())

    def folders(self, bucket: str, prefix: str) -> Any:
        """See ObjectStore."""
        return iter(())

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        """See ObjectStore."""


def job_message(number: int) -> str:
    """Return the body of a message as ``foreedge bulk`` sends it."""
    fields = {
        "schema": 1,
        "job_id": f"{number:032x}",
        "run_id": "bench",
        "source": {"bucket": "photographs", "key": f"in/{number}.jpg", "etag": "0" * 32},
        "output": {"bucket": "photographs", "prefix": "cutouts/"},
        "recipe": "cutout",
    }
    return json.dumps(fields)
