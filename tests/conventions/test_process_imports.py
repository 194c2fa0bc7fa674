"""No replica loads the libraries and modules of another deployment.

Serve gives a replica two pickles: the class of its deployment and the arguments of its constructor.
The tests open both in a fresh interpreter, and look at what that imported.
"""

from __future__ import annotations

import ast
import json
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from ray import cloudpickle
from ray.serve._private.build_app import build_app

from serve_app.app import build
from tests.conftest import NEED_CATALOG

ROOT = Path(__file__).parents[2]
SETTINGS = {"queue.url": "http://127.0.0.1:9/queue", "ledger.bucket": "ledger"}
PIXELS = {"cv2", "PIL", "isal", "serve_app.imaging", "serve_app.imaging.png"}
MODELS = {"onnxruntime", "onnx", "serve_app.models", "serve_app.segmenter"}
AWS = {"boto3", "botocore", "serve_app.aws", "serve_app.storage"}
HTTP = {"jinja2", "serve_app.http"}
NOWHERE = {
    "rembg",
    "pymatting",
    "rich",
    "typer",
    "ingest.cli",
    "ingest.local",
    "serve_app.app",
    "serve_app.replica_options",
    "sqlalchemy",
    "psycopg",
    "ingest.catalog",
}
"""Packages and modules that no replica loads when it starts with the default settings."""

FOREIGN = {
    "HttpApi": {*PIXELS, *MODELS, "serve_app.pipeline", "ingest.consumer"},
    "CutoutPipeline": {*MODELS, *HTTP, "aiohttp", "ingest"},
    "Segmenter-folio": {*AWS, *HTTP, "aiohttp", "cv2", "isal", "serve_app.pipeline", "ingest"},
    "SqsIngest": {*PIXELS, *MODELS, *HTTP, "serve_app.pipeline"},
}
"""Packages and modules of the other deployments, by the deployment that must not load them."""

PRINT_MODULES = "\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
OPEN_PICKLES = """
import sys
from ray import cloudpickle
for blob in cloudpickle.load(sys.stdin.buffer):
    cloudpickle.loads(blob)
"""
"""What a replica does before it calls the constructor."""


def imported_by(code: str, data: bytes = b"") -> set[str]:
    """Return the names of all modules that a fresh interpreter has loaded after some code."""
    answer = subprocess.run(
        [sys.executable, "-c", code + PRINT_MODULES],
        input=data,
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    return set(json.loads(answer.stdout))


def loaded_of(names: set[str], modules: set[str]) -> set[str]:
    """Return those of the names that are among the modules, or that are their packages."""
    packages = {module.rsplit(".", up)[0] for module in modules for up in range(4)}
    return names & packages


@pytest.fixture(scope="module")
def loaded() -> dict[str, set[str]]:
    """Return the modules that a replica of each deployment loads."""
    application = build_app(build(SETTINGS), name="default")
    return {
        deployment.name: imported_by(
            OPEN_PICKLES,
            pickle.dumps(
                [
                    cloudpickle.dumps(deployment.func_or_class),
                    cloudpickle.dumps(deployment.init_args),
                ]
            ),
        )
        for deployment in application.deployments
    }


@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_a_replica_loads_nothing_of_another_deployment(
    name: str, loaded: dict[str, set[str]]
) -> None:
    assert loaded_of(FOREIGN[name] | NOWHERE, loaded[name]) == set()


def test_all_deployments_and_existing_names_are_checked(loaded: dict[str, set[str]]) -> None:
    assert loaded.keys() == FOREIGN.keys()
    checked = PIXELS | MODELS | AWS | HTTP
    assert loaded_of(checked, set().union(*loaded.values())) == checked
    # The catalog's packages are an extra, which the tests do without.
    missing = {name for name in NOWHERE if find_spec(name) is None}
    assert missing - {"psycopg", "sqlalchemy"} == set()


@pytest.mark.parametrize(
    ("module", "foreign"),
    [
        # Ray Serve itself imports FastAPI, so that the replicas above cannot do without.
        ("serve_app.models.inference", {"ray", "fastapi", "starlette", "boto3"}),
        # Every process that starts Ray imports this for the path of a middleware.
        ("serve_app.serving.ray_environment", {"fastapi", "starlette", "serve_app.http"}),
        ("serve_app", {"ray", "pydantic", "serve_app.app", "serve_app.config"}),
        ("serve_app.contracts.job", {"ray", "numpy", "serve_app.config"}),
        # The catalog's packages are in an extra that few installations have.
        ("ingest.consumer.deployment", {"sqlalchemy", "psycopg", "ingest.catalog"}),
        ("ingest.cli.main", {"sqlalchemy", "psycopg"}),
        ("ingest.smoke.doctor", {"sqlalchemy", "psycopg"}),
    ],
)
def test_a_module_loads_nothing_that_it_does_not_use(module: str, foreign: set[str]) -> None:
    assert loaded_of(foreign, imported_by(f"import {module}")) == set()


WITHOUT_EXTRA = """
import sys
sys.modules |= {"sqlalchemy": None, "psycopg": None}
from ingest.cli.main import main
sys.argv = ["foreedge", *%r]
main()
"""
"""The command in an interpreter in which the packages of the catalog cannot be imported."""
CATALOG = (
    "--set", "queue.url=http://127.0.0.1:9/1/q", "--set", "ledger.bucket=l",
    "--set", "catalog.database_url=postgresql://u@127.0.0.1:9/d",
    "--set", "catalog.images_bucket=b",
)  # fmt: skip


@pytest.mark.parametrize(
    "words", [("doctor",), ("catalog", "check"), ("catalog", "verify"), ("catalog", "manifest")]
)
def test_without_the_extra_a_catalog_is_refused_with_what_to_install(
    words: tuple[str, ...],
) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRA % ([*words, *CATALOG],)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert answer.returncode == 2, answer.stderr
    assert answer.stderr.startswith(
        "error: invalid_config: catalog needs packages that are missing"
    )
    assert "pip install -e '.[catalog]'" in answer.stderr


def imports_of(file: Path) -> set[str]:
    """Return the modules that a file of the tests imports, with those of the tests' own modules."""
    names: set[str] = set()
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    own = [ROOT / f"{name.replace('.', '/')}.py" for name in names if name.startswith("tests.")]
    return names.union(*(imports_of(each) for each in own if each.exists()))


def test_only_the_tests_that_are_left_out_need_the_extra() -> None:
    tests = ROOT / "tests"
    needing = {
        file.relative_to(tests)
        for file in tests.rglob("test_*.py")
        if {name.partition(".")[0] for name in imports_of(file)} & {"psycopg", "sqlalchemy"}
    }
    left_out = {
        name: {file for file in needing if file.is_relative_to(name)} for name in NEED_CATALOG
    }
    assert needing == set().union(*left_out.values())
    assert all(left_out.values()), left_out
