"""A PostgreSQL server for all tests of the catalog, and a database for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.catalog.database import Database
from ingest.catalog.login import Login
from ingest.local.aws import LocalAws, use_dummy_credentials
from serve_app.config import AwsConfig, CatalogConfig
from tests.catalog.bench import Bench
from tests.catalog.collection import Collection, create_database
from tests.catalog.quick_bench import QuickBench
from tests.support.postgres_server import PostgresServer

BUCKET = "collection"


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def template(postgres: PostgresServer) -> str:
    return create_database(postgres)


@pytest.fixture
def url(postgres: PostgresServer, template: str) -> Iterator[str]:
    name = postgres.create(template)
    yield postgres.url(name)
    postgres.drop(name)


@pytest.fixture
def collection(url: str) -> Iterator[Collection]:
    opened = Collection(url)
    yield opened
    opened.close()


@pytest.fixture
def settings(url: str) -> CatalogConfig:
    return CatalogConfig.model_validate({"database_url": url, "images_bucket": BUCKET})


@pytest.fixture
def database(settings: CatalogConfig) -> Iterator[Database]:
    opened = Database(Login(settings, AwsConfig()))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def aws() -> Iterator[LocalAws]:
    use_dummy_credentials()
    with LocalAws() as server:
        yield server


@pytest.fixture
def bench(aws: LocalAws, collection: Collection) -> Bench:
    return Bench(aws, collection)


@pytest.fixture
def quick_bench(tmp_path: Path, collection: Collection) -> QuickBench:
    return QuickBench(tmp_path, collection)
