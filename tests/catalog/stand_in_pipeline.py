"""What the pipeline does with objects, and nothing that it does with pixels."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

from PIL import Image as Pillow

from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Box, Cutout, Outcome
from serve_app.contracts.place import Place
from serve_app.contracts.result_keys import fingerprint, output_key, thumbnail_key
from serve_app.errors import ForeedgeError
from serve_app.storage.protocol import ObjectStore

Process = Callable[[Job], Awaitable[Outcome]]


@cache
def jpeg() -> bytes:
    """Return a small image."""
    file = io.BytesIO()
    Pillow.new("RGB", (8, 6), "red").save(file, "JPEG")
    return file.getvalue()


class StandInPipeline:
    """A pipeline that copies its image."""

    def __init__(self, store: ObjectStore, model: str = "u2net") -> None:
        self.store = store
        self.model = model
        self.processed: list[str] = []
        self.cpu_s: list[float] = []
        """Processor time of each job, in seconds."""
        self.in_threads = True
        """Whether jobs run in threads. Otherwise the event loop waits for each."""

    async def process(self, job: Job) -> Outcome:
        self.processed.append(job.job_id)
        try:
            if self.in_threads:
                return await asyncio.to_thread(self._process, job)
            return self._process(job)
        except ForeedgeError as error:
            place = Place.of_bucket("source", job.source.bucket) if error.refusal else None
            return Outcome.failed(job, error).model_copy(update={"refused_by": place})

    def _process(self, job: Job) -> Outcome:
        began_s = time.thread_time()
        try:
            return self._copy(job)
        finally:
            self.cpu_s.append(time.thread_time() - began_s)

    def _copy(self, job: Job) -> Outcome:
        bucket = job.output.bucket
        data = self.store.get(job.source.bucket, job.source.key)
        info = self.store.head(job.source.bucket, job.source.key)
        assert info is not None
        source = job.source.model_copy(update={"etag": info.etag})
        name = fingerprint(source, job.recipe, [self.model])
        result, small = output_key(job, name), thumbnail_key(job, name)
        places = {"output_bucket": bucket, "output_key": result, "source": source}
        common: dict[str, Any] = {"job_id": job.job_id, "run_id": job.run_id, **places}
        existing = self.store.head(bucket, result)
        if existing is not None and self.store.head(bucket, small) is not None:
            return Outcome(status="skipped_existing", made_with=existing.model, **common)
        self.store.put_if_absent(bucket, small, data, "image/jpeg", model=self.model)
        self.store.put_if_absent(bucket, result, data, "image/png", model=self.model)
        box = Box(left=0, top=0, right=8, bottom=6)
        cutout = Cutout(model=self.model, width=8, height=6, subject=box, mask_confidence=1)
        return Outcome(status="done", cutout=cutout, **common)
