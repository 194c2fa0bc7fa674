"""The worker that Foreedge replaces and ours, behind one interface, for scenarios that both run."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

from serve_app.contracts.job import CatalogJob, Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import ForeedgeError
from tests.catalog.collection import Collection
from tests.catalog.old_worker import MAX_RECEIVES, Cut, Died, OldWorker, nothing
from tests.catalog.quick_bench import QuickBench


class System(ABC):
    """A worker with its database, its bucket and its queue."""

    def __init__(self, bench: QuickBench) -> None:
        self.bench = bench
        self.collection: Collection = bench.collection
        self.dead: list[CatalogJob] = []
        """Jobs whose messages are on the dead-letter queue."""

    @abstractmethod
    async def serve(self, *jobs: CatalogJob, cut: Cut = nothing) -> None:
        """Deliver messages at once, and again until each is acknowledged or a dead letter.

        Args:
            *jobs: Jobs of the messages.
            cut: Called with the name of the model whenever an image is cut out. It may raise.
        """

    @abstractmethod
    def receives_of(self, job: CatalogJob) -> int:
        """Return how often the message of a job was received."""

    @abstractmethod
    async def die(self, job: CatalogJob, *, after_upload: bool = False) -> None:
        """Deliver a message to a process that is killed while it works.

        Args:
            job: Job of the message.
            after_upload: Whether the objects of the cut-out were stored before.
        """


class Old(System):
    """The model of the old worker, and a queue of three receives."""

    def __init__(self, bench: QuickBench) -> None:
        super().__init__(bench)
        self.receives: Counter[str] = Counter()
        self.hidden: Callable[[], object] = nothing
        """Called while a message that was given back is hidden, which takes 6 minutes."""
        self.version: dict[str, Callable[..., Any]] = {}
        """Differences of the worker's version from its last one."""

    async def serve(self, *jobs: CatalogJob, cut: Cut = nothing) -> None:
        await asyncio.gather(*(asyncio.to_thread(self._deliver, job, cut) for job in jobs))

    def _deliver(self, job: CatalogJob, cut: Cut) -> None:
        for _ in range(MAX_RECEIVES):
            self.receives[job.job_id] += 1
            if self.worker(cut=cut).deliver(job):
                return
            self.hidden()
        self.dead.append(job)

    def receives_of(self, job: CatalogJob) -> int:
        return self.receives[job.job_id]

    async def die(self, job: CatalogJob, *, after_upload: bool = False) -> None:
        def die(*_: object) -> NoReturn:
            raise Died

        hooks = {"uploaded" if after_upload else "cut": die}
        try:
            await asyncio.to_thread(self.worker(**hooks).deliver, job)
        except Died:
            return
        raise AssertionError("the worker did not work")

    def worker(self, **hooks: Callable[..., Any]) -> OldWorker:
        bench = self.bench
        hooks = {**self.version, **hooks}
        return OldWorker(self.collection.url, bench.store, bench.bucket, **hooks)


class Ours(System):
    """The consumer with its catalog, whose pipeline does what it does with objects."""

    async def serve(self, *jobs: CatalogJob, cut: Cut = nothing) -> None:
        async def process(job: Job) -> Outcome:
            try:
                await asyncio.to_thread(cut, self.bench.pipeline.model)
            except ForeedgeError as error:
                return Outcome.failed(job, error)
            return await self.bench.pipeline.process(job)

        await self.bench.serve(*jobs, process=process)
        self.dead += [CatalogJob.model_validate(body) for _, body in self.bench.dead_letters()]
        self.bench.queue.dead.clear()

    def receives_of(self, job: CatalogJob) -> int:
        [receives] = [
            record.receive_count
            for record in self.bench.records(job.run_id)
            if record.job_id == job.job_id
        ]
        return receives or 0

    async def die(self, job: CatalogJob, *, after_upload: bool = False) -> None:
        working = asyncio.Event()

        async def process(inner: Job) -> Outcome:
            if after_upload:
                await self.bench.pipeline.process(inner)
            working.set()
            return await asyncio.Future[Outcome]()

        self.bench.send(job)
        async with self.bench.consuming(process):
            await working.wait()
        # A process that is killed gives back neither its row nor its message.
        assert self.collection.job(job)["status"] == "pending"
        self.collection.execute(
            "UPDATE image_processing_jobs SET status = 'processing' WHERE id = %s", job.job_id
        )
        self.bench.queue.stored.clear()
