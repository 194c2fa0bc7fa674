"""The known faults of the old worker around its rows: models, logins, leases, keys and tests.

Each check holds for ours, and its model of the old one fails it.
"""

from __future__ import annotations

import ast
import asyncio
import io
import re
import sys
from collections.abc import Callable, Set
from contextlib import suppress
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

from ingest.catalog import rules
from ingest.catalog.login import read_secret
from ingest.cli.main import app
from ingest.smoke.doctor import examine_places
from ingest.sqs.queue_check import check_queue
from serve_app.aws import aws_client
from serve_app.config import AppConfig
from serve_app.contracts.priority import Priority
from serve_app.contracts.recipe import parse_recipe
from serve_app.errors import InvalidConfig, NoSubject
from serve_app.pipeline.image_pipeline import ImagePipeline, imaging_threads
from serve_app.pipeline.segmenters import LocalSegmenters
from serve_app.storage import open_store
from serve_app.storage.local import LocalStore
from tests.catalog import old_worker
from tests.catalog.bench import Bench
from tests.catalog.old_worker import OldWorker, queue_health
from tests.support import graphs
from tests.support.consumer_bench import ConsumerBench, success
from tests.support.fault_effects import refuse
from tests.support.fault_proxy import Proxy
from tests.support.in_memory_queue import InMemoryQueue
from tests.support.postgres_server import PASSWORD, PostgresServer
from tests.support.virtual_time import now, virtual

ROOT = Path(__file__).parents[2]


class Asked(LocalSegmenters):
    """Models that note in which order they are asked."""

    names: list[str]

    async def segment(
        self, name: str, image: npt.NDArray[np.uint8], priority: Priority
    ) -> npt.NDArray[np.uint8]:
        self.names.append(name)
        return await super().segment(name, image, priority)


def check_attempts(models: list[str]) -> None:
    assert len(set(models)) == len(models), f"an attempt repeats another: {models}"


async def test_9_each_model_is_asked_once(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="an attempt repeats another"):
        check_attempts([*old_worker.MODELS])
    files = {name: str(graphs.channel(tmp_path / f"{name}.onnx", 0)) for name in ("one", "two")}
    storage = {"storage.local_root": str(tmp_path)}
    config = AppConfig.load({"models": list(files), "model_files": files, **storage})
    threads = imaging_threads(config.pipeline)
    asked = Asked(config, threads)
    asked.names = []
    black = io.BytesIO()
    Pillow.new("RGB", (400, 400)).save(black, "PNG")
    with pytest.raises(NoSubject, match="two found no subject"):
        await ImagePipeline(config, open_store(config), asked, threads).cut_out(
            black.getvalue(), parse_recipe("catalog")
        )
    check_attempts(asked.names)
    assert asked.names == ["one", "two"]


def test_19_a_password_with_any_character_logs_in(postgres: PostgresServer) -> None:
    secret = {
        "username": "postgres",
        "password": PASSWORD,
        "host": "127.0.0.1",
        "port": postgres.port,
        "dbname": "postgres",
    }
    with pytest.raises(psycopg.Error):
        psycopg.connect(
            "postgresql://{username}:{password}@{host}:{port}/{dbname}".format(**secret)
        )
    text = str(secret).replace("'", '"')
    psycopg.connect(**read_secret(text, "name")).close()


def check_smoke(passes: bool) -> None:
    assert not passes, "the smoke test passes without a database"


def test_20_the_check_needs_what_a_job_needs(tmp_path: Path) -> None:
    nowhere = "postgresql://u:p@127.0.0.1:9/db"
    old = OldWorker(nowhere, LocalStore(tmp_path), "b")
    with pytest.raises(AssertionError, match="passes without a database"):
        check_smoke(old.invoke({"smoke_test": True})["statusCode"] == 200)
    body = '{"job_id": "7b0e7a0c-3f0e-4d55-8f3c-1c1d7d0a4b11", "book_id": 1, "image_id": null}'
    with pytest.raises(psycopg.OperationalError):
        old.invoke({"Records": [{"messageId": "1", "body": body}]})
    config = AppConfig.load(
        {
            "queue.url": "https://sqs/q",
            "ledger.bucket": "ledger",
            "catalog": {"database_url": nowhere, "images_bucket": "b"},
        }
    )
    check_smoke(next(examine_places(config)).problem is None)


def check_receives(receives: int) -> None:
    assert receives == 1, f"the message was delivered {receives} times"


@virtual
async def test_21_a_job_that_is_longer_than_the_visibility_is_delivered_once() -> None:
    async def work(job: Any) -> Any:
        await asyncio.sleep(500)
        return success(job)

    bench = ConsumerBench(work, visibility_timeout_s=360, job_deadline_s=900)
    await bench.serve("a", for_s=600)
    check_receives(len(bench.events("receive")))
    await bench.stop()

    queue = InMemoryQueue(asyncio.get_running_loop().time)
    queue.send("{}")
    until, receives = now() + 500, 0
    while now() < until:
        receives += len(await queue.receive(1, 20, 360))
    with pytest.raises(AssertionError, match="delivered 2 times"):
        check_receives(receives)


def imports(source: str) -> set[str]:
    """Return the packages that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module)
    return {name.partition(".")[0] for name in found}


def check_imports(source: str, known: Set[str]) -> None:
    strange = imports(source) - known
    assert not strange, f"the application's own package is needed: {strange}"


def test_24_the_tables_are_defined_here() -> None:
    # It reads every distribution, which takes a second.
    known = sys.stdlib_module_names | packages_distributions().keys() | {"ingest", "serve_app"}
    with pytest.raises(AssertionError, match="own package is needed"):
        check_imports("from app.models.image import BookImage", known)
    for path in (ROOT / "ingest" / "catalog").glob("*.py"):
        check_imports(path.read_text("utf-8"), known)


def check_empty(start: Callable[[], object]) -> None:
    with suppress(InvalidConfig):
        start()
        raise AssertionError("an empty name is accepted")


def test_25_an_empty_name_is_refused_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(AssertionError, match="an empty name is accepted"):
        check_empty(lambda: OldWorker.start({"IMAGES_BUCKET": ""}, LocalStore(tmp_path)))
    names = {
        "FOREEDGE_QUEUE__URL": "https://sqs/q",
        "FOREEDGE_LEDGER__BUCKET": "ledger",
        "FOREEDGE_CATALOG__DATABASE_SECRET": "secret",
        "FOREEDGE_CATALOG__IMAGES_BUCKET": "images",
    }
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    AppConfig.load({})
    for name, value in names.items():
        monkeypatch.setenv(name, "")
        check_empty(lambda: AppConfig.load({}))
        monkeypatch.setenv(name, value)


def check_named(told: str | None) -> None:
    assert "sqs:GetQueueUrl" in str(told), f"the missing right is not named: {told}"


def test_25_a_right_that_looks_like_a_missing_queue_is_named(bench: Bench) -> None:
    with Proxy(bench.aws.endpoint_url) as proxy:
        # What SQS says to a role that may not ask for the URL of a queue.
        proxy.add("sqs:GetQueueUrl", refuse(400, "AWS.SimpleQueueService.NonExistentQueue"))
        aws = bench.config.aws.model_copy(update={"endpoint_url": proxy.endpoint_url})
        with pytest.raises(AssertionError, match=r"is not named: .*NonExistentQueue"):
            check_named(queue_health(aws_client("sqs", aws), bench.bucket))
        config, queue = bench.config.model_copy(update={"aws": aws}), bench.config.queue
        assert queue is not None
        check_named(next(check_queue(config, queue)).problem)


def check_commands(document: str) -> None:
    """Check that the commands of a document exist, with their options."""
    for line in re.findall(r"`foreedge ((?:[a-z-]+ ?){1,2})", document):
        command = line.split()
        answer = CliRunner().invoke(app, [*command, "--help"])
        assert answer.exit_code == 0, f"no such command: foreedge {line}"


def test_26_the_commands_of_the_document_exist() -> None:
    with pytest.raises(AssertionError, match="no such command"):
        check_commands("Dead letters are moved back by `foreedge retry-dead`.")
    check_commands((ROOT / "docs" / "catalog.md").read_text("utf-8"))


def check_no_stand_ins(source: str) -> None:
    found = re.findall(r"MagicMock|unittest\.mock|mocker|setattr\(|sqlite", source)
    assert not found, f"the database or our own code is replaced: {found}"


def test_27_no_test_replaces_the_database() -> None:
    with pytest.raises(AssertionError, match="is replaced"):
        check_no_stand_ins("from unittest.mock import MagicMock; session = MagicMock()")
    for path in Path(__file__).parent.glob("*.py"):
        if path != Path(__file__):
            check_no_stand_ins(path.read_text("utf-8"))


def check_object_key(key: str) -> None:
    assert key == "books/7/image_01.png", f"another object is read: {key}"


def test_28_a_key_with_the_folder_names_the_same_object() -> None:
    legacy = "books/7/image_01.png"
    with pytest.raises(AssertionError, match="books/books/7"):
        # The application's readers put the folder in front of every key.
        check_object_key(f"books/{legacy}")
    check_object_key(rules.object_key(legacy))
    check_object_key(old_worker.object_key(legacy))
