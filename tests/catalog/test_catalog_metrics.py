"""What a catalog records about its jobs and its database."""

from __future__ import annotations

from contextlib import closing
from functools import partial

import psycopg
import pytest

from ingest.catalog.catalog import Catalog
from ingest.catalog.database import Database
from ingest.catalog.finish import finish
from ingest.catalog.login import Login
from ingest.catalog.try_again import TryAgain
from serve_app.config import AwsConfig, CatalogConfig
from serve_app.serving.metrics import (
    CATALOG_DATABASE_HEALTHY,
    CATALOG_JOBS,
    CATALOG_OLDEST_PENDING_SECONDS,
    CATALOG_REPETITIONS,
    CATALOG_STALE_JOBS,
    CATALOG_TRANSACTION_SECONDS,
)
from tests.catalog.collection import Collection, photographs
from tests.catalog.quick_bench import FileStore
from tests.catalog.test_rows import cutout, take
from tests.support.recorded_metrics import RecordedMetrics


async def test_jobs_are_recorded_by_state_with_the_oldest_and_the_stale(
    settings: CatalogConfig, collection: Collection, tmp_path: object
) -> None:
    book, [one, two, three] = collection.add_book(*photographs(3))
    waiting = collection.queue(book, one)
    taken = collection.queue(book, two, "processing")
    collection.queue(book, three, "queue_failed")
    for job in (waiting, taken):
        collection.execute(
            "UPDATE image_processing_jobs SET updated_at = now() - interval '1 hour' WHERE id = %s",
            job.job_id,
        )
    metrics = RecordedMetrics()
    store = FileStore(tmp_path)  # type: ignore[arg-type]
    catalog = Catalog(settings, AwsConfig(), store, 600, metrics)
    await catalog.record()
    catalog.close()
    found = {state: number for (state,), number in metrics.values(CATALOG_JOBS).items()}
    assert found == {
        "pending": 1,
        "processing": 1,
        "queue_failed": 1,
        "completed": 0,
        "failed": 0,
        "permanently_failed": 0,
    }
    assert 3_590 < metrics.values(CATALOG_OLDEST_PENDING_SECONDS)[()] < 4_000
    assert metrics.values(CATALOG_STALE_JOBS) == {(): 1}
    assert metrics.values(CATALOG_DATABASE_HEALTHY) == {(): True}
    assert len(metrics.observed(CATALOG_TRANSACTION_SECONDS)[()]) == 2
    assert metrics.counts(CATALOG_REPETITIONS) == {}


async def test_a_database_that_does_not_answer_is_recorded(
    settings: CatalogConfig, collection: Collection, tmp_path: object
) -> None:
    collection.execute("DROP TABLE image_processing_jobs")
    metrics = RecordedMetrics()
    store = FileStore(tmp_path)  # type: ignore[arg-type]
    catalog = Catalog(settings, AwsConfig(), store, 600, metrics)
    await catalog.record()
    catalog.close()
    assert metrics.values(CATALOG_DATABASE_HEALTHY) == {(): False}
    assert metrics.values(CATALOG_JOBS) == {}


def test_transactions_that_are_tried_again_are_counted_by_their_reason(
    settings: CatalogConfig, collection: Collection, url: str
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    job = collection.queue(book, source)
    metrics = RecordedMetrics()
    with closing(Database(Login(settings, AwsConfig()), metrics=metrics)) as database:
        take(database, job)
        with psycopg.connect(url) as user:
            user.execute("UPDATE book_images SET caption = ''")
            with pytest.raises(TryAgain):
                database.run_once(partial(finish, job=job, cutout=cutout(job, source)))
        assert metrics.counts(CATALOG_REPETITIONS) == {("rows_held",): 1}
    elsewhere = CatalogConfig.model_validate(
        {"database_url": "postgresql://u:p@127.0.0.1:9/db", "images_bucket": "b"}
    )
    with (
        closing(Database(Login(elsewhere, AwsConfig()), metrics=metrics)) as database,
        pytest.raises(TryAgain),
    ):
        database.run_once(lambda connection: None)
    assert metrics.counts(CATALOG_REPETITIONS)["connection_lost",] == 1
