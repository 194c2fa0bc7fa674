"""The examination of an installation: the places that its settings name, in one list.

``foreedge doctor`` and ``foreedge catalog check`` are this code. It looks at the places first, at
the same time, and cuts out images with the models if all places are well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ingest.findings import Finding, checked, with_quick_answers
from ingest.runs.bucket_check import check_listed_bucket, check_result_bucket
from ingest.runs.ledger_check import check_ledger
from ingest.smoke.child import run_smoke
from ingest.sqs.queue_check import check_queue
from ingest.units import counted
from serve_app.config import AppConfig, CatalogConfig, LedgerConfig
from serve_app.config.catalog import missing_packages
from serve_app.storage import open_store

Group = Callable[[], Iterable[Finding]]


def examine(settings: dict[str, Any]) -> Iterator[Finding]:
    """Yield the result of each check. Blocks. Nothing of others is changed.

    Args:
        settings: Settings of the application.

    Raises:
        InvalidConfig: A setting is wrong, or the packages that it needs are missing.
    """
    config = AppConfig.load(settings)
    well = True
    for finding in examine_places(config):
        well &= finding.problem is None
        yield finding
    if well:
        report = run_smoke(settings, matting=False)
        names = ", ".join(report.facts.get("models", {}))
        yield Finding("models", report.reason, f"{names} cut out an image")


def examine_places(config: AppConfig) -> Iterator[Finding]:
    """Yield the findings about each place, all of which are asked at the same time. Blocks.

    Args:
        config: Settings of the application.

    Raises:
        InvalidConfig: The packages that the settings need are missing.
    """
    groups = list(_groups(with_quick_answers(config)))
    if groups:
        with ThreadPoolExecutor(len(groups), "doctor") as pool:
            for found in pool.map(lambda group: list(group()), groups):
                yield from found


def _groups(config: AppConfig) -> Iterator[Group]:
    if config.http.api_keys_file is not None or config.http.api_keys_secret is not None:
        yield lambda: [checked("API keys", lambda: _count_api_keys(config))]
    if config.catalog is not None:
        yield from _catalog_groups(config, config.catalog)
    if (queue := config.queue) is not None:
        yield lambda: check_queue(config, queue)
        if (bucket := queue.output_bucket) is not None and config.storage.local_root is None:
            yield lambda: check_result_bucket(config.aws, bucket, queue.output_prefix)
    if (listed := _listed_buckets(config)) and config.storage.local_root is None:
        yield lambda: [
            found for bucket in listed for found in check_listed_bucket(config.aws, bucket)
        ]
    if (ledger := config.ledger) is not None:
        yield lambda: [checked("ledger", lambda: _try_ledger(config, ledger))]


def _listed_buckets(config: AppConfig) -> list[str]:
    """Return the buckets that jobs may name, apart from those for results, which are listed too."""
    results = {
        None if config.queue is None else config.queue.output_bucket,
        None if config.catalog is None else config.catalog.images_bucket,
    }
    return [bucket for bucket in config.storage.allowed_buckets if bucket not in results]


def _catalog_groups(config: AppConfig, catalog: CatalogConfig) -> Iterator[Group]:
    try:
        # SQLAlchemy and psycopg are in the extra ``catalog``, which few installations have.
        from ingest.catalog import check
    except ImportError as error:
        raise missing_packages(error) from error

    def check_both() -> Iterator[Finding]:
        """Look for the images once the database and the bucket are known to be well."""
        with ThreadPoolExecutor(1) as beside:
            bucket = beside.submit(lambda: list(check.check_catalog_bucket(config, catalog)))
            found = list(check.check_catalog_database(config, catalog)) + bucket.result()
        yield from found
        if all(each.problem is None for each in found):
            yield check.check_catalog_images(config, catalog)

    yield check_both


def _count_api_keys(config: AppConfig) -> str:
    # Lazy: FastAPI is slow to load.
    from serve_app.http.api_keys import read_api_keys

    return counted(len(read_api_keys(config.http, config.aws)), "key")


def _try_ledger(config: AppConfig, ledger: LedgerConfig) -> str:
    check_ledger(open_store(config), ledger)
    return f"records can be stored in s3://{ledger.bucket}"
