"""The jobs of a book collection, around the pipeline and the ledger of a consumer.

``CatalogProcess`` takes the place of the function that runs a job. It claims the row, has the image
processed as an ordinary job, and enters the result. ``CatalogRecorder`` takes the place of the
ledger: it writes a final failure to the row before the ledger has it. A consumer then deletes the
message, so that the order is always row, ledger, deletion.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from ingest.catalog import rows
from ingest.catalog.finish import CutoutRow, finish
from ingest.catalog.rows import Claimed, Completed, Missing
from ingest.catalog.rules import (
    FOLDER,
    BookImage,
    cloudfront_url,
    cutout_stem,
    model_used,
    object_key,
)
from ingest.catalog.transactions import Transactions
from ingest.runs.ledger import OutcomeSink
from serve_app.config import CatalogConfig
from serve_app.contracts.job import AnyJob, CatalogJob, Job, NamedOutput, Source
from serve_app.contracts.outcome import Outcome
from serve_app.contracts.place import Place
from serve_app.contracts.recipe import parse_recipe
from serve_app.errors import (
    DatabaseUnavailable,
    ForeedgeError,
    InternalError,
    JobUnknown,
    PermanentError,
    StorageUnavailable,
)
from serve_app.storage.protocol import ObjectStore

Process = Callable[[Job], Awaitable[Outcome]]

JOB_GONE = "job_gone"
"""Code of a job whose book was deleted: there is nothing to do, and nothing to repair."""
SUPERSEDED = "superseded"
"""Code of a job that is left to a newer one for the same image."""

_DATABASE = Place("database")
_RECIPE = "catalog"
_ROUNDS = 3
"""Number of times that a result is made whose objects are deleted while they are made."""
_LOOKS_S = (0.2, 0.5, 1.0, 2.0)
"""Pauses, in seconds, between looks for a row that is not committed yet. The last one repeats."""

_logger = logging.getLogger(__name__)


class _Refusal(Exception):
    """A bucket refuses, which is not the job's fault."""

    def __init__(self, place: Place, error: ForeedgeError) -> None:
        super().__init__(error.message)
        self.place = place
        self.error = error


class CatalogProcess:
    """Runs jobs, those of a book collection included. Belongs to one event loop."""

    def __init__(
        self,
        process: Process,
        transactions: Transactions,
        store: ObjectStore,
        config: CatalogConfig,
    ) -> None:
        """Take the place of a function.

        Args:
            process: Function that runs an ordinary job.
            transactions: Transactions on the application's database.
            store: Object store of the images.
            config: Settings of the catalog.
        """
        self._process = process
        self._transactions = transactions
        self._store = store
        self._config = config
        self._recipe = parse_recipe(_RECIPE)

    async def run(self, job: AnyJob) -> Outcome:
        """Return the outcome of a job. Errors of the database are outcomes too.

        Args:
            job: Ordinary job, or one of a book collection.

        Raises:
            ForeedgeError: The function that runs an ordinary job has raised it.
        """
        if isinstance(job, Job):
            return await self._process(job)
        try:
            outcome = await self._claim_and_work(job)
        except _Refusal as refusal:
            failure = Outcome.failed(job, refusal.error)
            return failure.model_copy(update={"refused_by": refusal.place})
        except DatabaseUnavailable as error:
            return Outcome.failed(job, error).model_copy(update={"refused_by": _DATABASE})
        except PermanentError as error:
            outcome = Outcome.failed(job, error)
        # Whatever the job has met, its row was read and written.
        answered = (*outcome.answered_by, _DATABASE)
        return outcome.of_book(job).model_copy(update={"answered_by": answered})

    async def _claim_and_work(self, job: CatalogJob) -> Outcome:
        try:
            found = await self._claim(job)
        except rows.Superseded as error:
            return _nothing_to_do(job, SUPERSEDED, str(error))
        except asyncio.CancelledError:
            await self._give_back(job)
            raise
        if isinstance(found, Missing):
            return _gone(job)
        if isinstance(found, Completed):
            return await self._look_after(job, found)
        ended = False
        try:
            outcome = await self._work(job, found.source)
            ended = outcome.status != "failed"
            return outcome
        finally:
            if not ended:
                await self._give_back(job)

    async def _claim(self, job: CatalogJob) -> Claimed | Completed | Missing:
        """Claim a job, once its row is committed.

        Raises:
            JobUnknown: The row does not come, and the book exists.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._config.row_wait_s
        for look_s in itertools.chain(_LOOKS_S, itertools.repeat(_LOOKS_S[-1])):
            found = await self._transactions.run(partial(rows.claim, job=job))
            if not isinstance(found, Missing):
                return found
            pause_s = min(look_s, until - loop.time())
            if pause_s <= 0:
                break
            await asyncio.sleep(pause_s)
        if isinstance(found, Missing) and found.book_exists:
            raise JobUnknown(
                f"job {job.job_id} of book {job.book_id} has no row after "
                f"{self._config.row_wait_s:g} s; the application may have rolled it back"
            )
        return found

    async def _work(self, job: CatalogJob, source: BookImage) -> Outcome:
        """Make the cut-out of an image and enter it, until the rows and the objects agree."""
        again = False
        for _ in range(_ROUNDS):
            outcome = await self._process(self._job_of_image(job, source))
            if outcome.status == "failed":
                return outcome
            made = self._cutout_row(source, outcome)
            enter = partial(finish, job=job, cutout=made, again=again)
            entered = await self._transactions.run(enter)
            if isinstance(entered, Missing):
                return _gone(job)
            if entered.s3_key is None or await self._has_objects(entered.s3_key):
                return outcome
            # A user has deleted the cut-out of an earlier job, whose objects this one has found.
            again = True
        raise StorageUnavailable(
            f"the objects of job {job.job_id} are deleted as soon as they are made; try again"
        )

    async def _look_after(self, job: CatalogJob, found: Completed) -> Outcome:
        """Return the outcome of a completed job, whose objects are made again if one is missing."""
        key = found.s3_key
        if key is None or found.source is None or await self._has_objects(key):
            return _nothing_to_do(job, None, None, key, self._config.images_bucket)
        _logger.warning("job %s is completed, and an object of %s is missing", job.job_id, key)
        outcome = await self._process(self._job_of_image(job, found.source))
        if outcome.status != "failed":
            made = self._cutout_row(found.source, outcome)
            await self._transactions.run(partial(finish, job=job, cutout=made, again=True))
        return outcome

    def _job_of_image(self, job: CatalogJob, source: BookImage) -> Job:
        bucket = self._config.images_bucket
        name = cutout_stem(job.book_id, source.id)
        return Job(
            job_id=job.job_id,
            run_id=job.run_id,
            source=Source(bucket=bucket, key=object_key(source.s3_key)),
            output=NamedOutput(bucket=bucket, prefix=FOLDER, name=name),
            recipe=self._recipe,
        )

    def _cutout_row(self, source: BookImage, outcome: Outcome) -> CutoutRow:
        """Return what the rows say of a result.

        Raises:
            InternalError: The result exists, and its object does not name its model.
        """
        model = outcome.made_with if outcome.cutout is None else outcome.cutout.model
        if model is None or outcome.output_key is None:
            raise InternalError(
                f"s3://{outcome.output_bucket}/{outcome.output_key} does not name its model in its "
                "metadata; delete it, so that it is made again"
            )
        s3_key = outcome.output_key.removeprefix(FOLDER)
        url = cloudfront_url(self._config.cdn_domain, s3_key)
        return CutoutRow(source.id, s3_key, url, model_used(model, self._recipe))

    async def _has_objects(self, s3_key: str) -> bool:
        """Return whether a cut-out and its thumbnail exist. CloudFront hides that they do not."""
        bucket = self._config.images_bucket
        keys = (object_key(s3_key), f"{FOLDER}thumb_{s3_key}")

        def look() -> bool:
            return all(self._store.head(bucket, key) is not None for key in keys)

        try:
            return await asyncio.to_thread(look)
        except ForeedgeError as error:
            if not error.refusal:
                raise
            raise _Refusal(Place.of_bucket("output", bucket), error) from error

    async def _give_back(self, job: CatalogJob) -> None:
        """Let a job wait again that did not end, so that every worker can take it."""
        try:
            await self._transactions.run(partial(rows.give_back, job=job))
        except ForeedgeError as error:
            # The row says ``processing`` then, which the next delivery takes over.
            _logger.warning("job %s is not given back: %s", job.job_id, error.message)


class CatalogRecorder:
    """A ledger that writes the final failures of a collection's jobs to their rows first."""

    def __init__(self, ledger: OutcomeSink, transactions: Transactions) -> None:
        """Take the place of a ledger.

        Args:
            ledger: Ledger of the consumer.
            transactions: Transactions on the application's database.
        """
        self._ledger = ledger
        self._transactions = transactions

    async def record(self, outcome: Outcome) -> None:
        """Return when the row and the ledger have an outcome.

        Raises:
            ForeedgeError: The database or the ledger does not take it at present.
        """
        if outcome.book_id is not None and outcome.status == "failed":
            await self._fail_row(outcome)
        await self._ledger.record(outcome)

    async def _fail_row(self, outcome: Outcome) -> None:
        try:
            await self._transactions.run(partial(rows.fail, outcome=outcome))
        except InternalError as error:
            # The database would refuse it each time. The job is in the ledger and among the dead
            # letters, and the sweep sees to its row, which says that it waits.
            _logger.error(
                "the failure of job %s is not in its row: %s", outcome.job_id, error.message
            )

    async def close(self) -> None:
        """Store the outcomes of unfinished parts now."""
        await self._ledger.close()


def _gone(job: CatalogJob) -> Outcome:
    return _nothing_to_do(
        job, JOB_GONE, f"the row of the job was deleted, as with book {job.book_id}"
    )


def _nothing_to_do(
    job: CatalogJob,
    code: str | None,
    message: str | None,
    s3_key: str | None = None,
    bucket: str | None = None,
) -> Outcome:
    """Return the outcome of a job that leaves everything as it is."""
    return Outcome(
        job_id=job.job_id,
        run_id=job.run_id,
        status="skipped_existing",
        code=code,
        message=message,
        output_bucket=bucket,
        output_key=None if s3_key is None else object_key(s3_key),
    )
