"""What the Terraform that is run here does not know of cluster/terraform (`make check-terraform`).

The provider that runs here is of 2021. Every name is compared with the provider that the module
demands, and checkov reads the module for what AWS would accept and nobody should want.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.deployment.provider_names import (
    Kind,
    count_names,
    parsed_files,
    provider_kinds,
    used_kinds,
    wrong_names,
)
from tests.deployment.terraform import MODULE, NEWER, TOOLS, missing_tools

PAGES = [MODULE.parents[1] / "docs/operations" / name for name in ("aws.md", "permissions.md")]
Files = Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def files() -> Files:
    if reason := missing_tools():
        pytest.skip(reason)
    return parsed_files(MODULE)


@pytest.fixture(scope="module")
def kinds(files: Files) -> dict[str, Kind]:
    return provider_kinds(used_kinds(files))


def test_the_provider_knows_every_name(
    files: Files, kinds: dict[str, Kind], capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(wrong_names(files, kinds)) == []
    with capsys.disabled():
        types, names = len(used_kinds(files)), count_names(files)
        print(f"\n{names} names of {types} types compared with provider 6.62: 0 differ")


@pytest.mark.parametrize(
    ("file", "text", "mistake", "finding"),
    [
        ("queue.tf", "redrive_policy =", "redrive_polcy =", "aws_sqs_queue.jobs: no argument redr"),
        ("queue.tf", "aws_sqs_queue.dead.arn", "aws_sqs_queue.dead.anr", "has no attribute anr"),
        ("alarms.tf", "alarm_name ", "# alarm_name ", "alarm_name is missing"),
        (
            "alarms.tf",
            "    expression ",
            "    expression_ ",
            "metric_query: no argument expression_",
        ),
        (
            "alarms.tf",
            "    content {",
            "    content {\n      call = 1",
            "metric_query: no argument call",
        ),
        (
            "alarms.tf",
            "        stat ",
            "        statistic ",
            "metric_query: metric: no argument sta",
        ),
        ("registry.tf", "scan_on_push", "scan_on_psh", "configuration: scan_on_push is missing"),
        ("registry.tf", "encryption_configuration {", "encryption {", "no argument encryption"),
        ("github.tf", "    principals {", "    principal {", "statement: no argument principal"),
        ("github.tf", "aws_iam_role_policy", "aws_iam_role_polcy", "is no type of the provider"),
        ("redrive_allow.tf", "queue_url", "queue_uri", "queue_url is missing"),
    ],
)
def test_a_wrong_name_is_found(
    kinds: dict[str, Kind], tmp_path: Path, file: str, text: str, mistake: str, finding: str
) -> None:
    good = (MODULE / file).read_text()
    assert text in good
    (tmp_path / file).write_text(good.replace(text, mistake))
    assert finding in "\n".join(wrong_names(parsed_files(tmp_path), kinds))


def test_opentofu_knows_every_block(files: Files) -> None:
    known = {"data", "locals", "output", "provider", "resource", "terraform", "variable"}
    assert {block for content in files.values() for block in content} <= known
    # Write-only arguments are younger than the demanded version of both.
    assert re.findall(r"\b\w+_wo(?:_version)?\b", json.dumps(files)) == []


def test_the_pages_name_every_variable_and_output(files: Files) -> None:
    pages = "".join(page.read_text() for page in PAGES if page.exists())
    for section in ("variable", "output"):
        names = {
            name for content in files.values() for item in content.get(section, []) for name in item
        }
        assert names
        assert {name for name in names if f"`{name}`" not in pages} == set()


def test_what_is_not_run_is_there(files: Files) -> None:
    assert set(files) >= NEWER
    assert {kind for name in NEWER for kind in used_kinds({name: files[name]})} == {
        "aws_sqs_queue_redrive_allow_policy",
        # A reference.
        "aws_sqs_queue",
    }


def checkov(folder: Path) -> dict[str, Any]:
    """Return what checkov finds in a folder of Terraform files."""
    options = ["--framework", "terraform", "--skip-download", "--quiet", "--compact"]
    command = [str(TOOLS / "bin" / "checkov"), "-d", str(folder), "-o", "json", *options]
    ended = subprocess.run(command, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def test_checkov_finds_nothing_without_a_reason(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = checkov(MODULE)["summary"]
    assert (summary["failed"], summary["parsing_errors"]) == (0, 0)
    skips = re.findall(
        r"checkov:skip=\w+(.*)", "\n".join(path.read_text() for path in MODULE.glob("*.tf"))
    )
    # Each is for a finding that exists, and says why.
    assert summary["skipped"] == len(skips)
    assert all(len(reason) > 20 for reason in skips)
    with capsys.disabled():
        print(f"\ncheckov: {summary['passed']} passed, {summary['skipped']} have reasons, 0 failed")


def test_checkov_finds_mistakes(files: Files, tmp_path: Path) -> None:
    folder = shutil.copytree(MODULE, tmp_path / "module")
    for file, text, mistake in (
        ("registry.tf", "scan_on_push = true", "scan_on_push = false"),
        ("registry.tf", '"IMMUTABLE"', '"MUTABLE"'),
        ("queue.tf", "#checkov:skip", "#"),
    ):
        good = (folder / file).read_text()
        assert text in good
        (folder / file).write_text(good.replace(text, mistake))
    failed = checkov(folder)["results"]["failed_checks"]
    assert {(check["check_id"], check["resource"]) for check in failed} == {
        ("CKV_AWS_163", "aws_ecr_repository.image"),
        ("CKV_AWS_51", "aws_ecr_repository.image"),
        ("CKV_AWS_27", "aws_sqs_queue.dead"),
        ("CKV_AWS_27", "aws_sqs_queue.jobs"),
    }
