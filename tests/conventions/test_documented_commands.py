"""Every command of the pages about catalogs and queues is one that its program knows.

Commands of ``foreedge`` are parsed by the command itself, those of ``aws`` are held against the
models of AWS's operations. Nothing is run here. `tests/catalog/test_pages.py`
runs those of two of the pages.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
import typer
from botocore import xform_name
from botocore.validate import validate_parameters

from ingest.cli.main import app
from ingest.cli.settings import merge_settings
from serve_app.config import AppConfig
from tests.support.pages import blocks, section, typed

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (
    "catalog.md",
    "cut-over.md",
    "new-queue.md",
    "operations/failures.md",
    "operations/messages.md",
    "operations/monitoring.md",
)
_PROGRAMS = ("foreedge ", "aws ", "python3 ")
_OWN_OPTIONS = {"query", "output"}
"""Options of the AWS CLI that belong to no operation."""
_OWN_COMMANDS = {("s3", "cp"): 2}
"""Commands of the AWS CLI that are no operation, with the number of their arguments."""


def commands(page: str) -> Iterator[list[str]]:
    """Yield the words of each command of a page."""
    for script in typed((DOCS / page).read_text("utf-8")):
        for line in script.splitlines():
            for command in re.findall(r"\$\((aws .*?)\)", line) or [line]:
                if command.startswith(_PROGRAMS):
                    yield shlex.split(re.split(r" (?:> |\|\|? |&$)", command)[0])


ALL = [(page, words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize("page", PAGES)
def test_each_page_has_commands(page: str) -> None:
    assert any(of == page for of, _ in ALL)


@pytest.mark.parametrize("words", [words for _, words in ALL], ids=" ".join)
def test_the_command_is_known(words: list[str]) -> None:
    program, *arguments = words
    if program == "foreedge":
        parse(typer.main.get_command(app), arguments)
    elif program == "python3":
        assert find_spec(arguments[1]) is not None
    else:
        service, operation, *options = arguments
        if (service, operation) in _OWN_COMMANDS:
            assert len(options) == _OWN_COMMANDS[service, operation]
            return
        check_operation(service, operation, options)


def test_the_shadow_consumer_has_no_catalog(tmp_path: Path) -> None:
    """One that has a catalog sweeps the application's jobs into the queue of the shadow run."""
    file = tmp_path / "settings.yaml"
    file.write_text(
        "aws: {region: eu-west-1}\n"
        "queue: {url: https://sqs.eu-west-1.amazonaws.com/123456789012/images}\n"
        "ledger: {bucket: ledger}\n"
        "catalog: {database_url: 'postgresql://u:p@h/d', images_bucket: images}\n"
    )
    [words] = [words for _, words in ALL if words[1] == "serve" and "$SHADOW_QUEUE" in words]
    options = parse(typer.main.get_command(app), words[1:])
    settings = merge_settings(file, options["queue"], None, None, options["settings"])
    config = AppConfig.load(settings)
    assert config.queue is not None
    assert config.queue.url == "$SHADOW_QUEUE"
    assert config.catalog is None


def test_the_files_of_the_events_are_what_aws_takes(tmp_path: Path) -> None:
    text = section(DOCS / "operations" / "messages.md", "How events reach the queue")
    variables = "QUEUE_ARN=arn:aws:sqs:eu-west-1:123456789012:q FOREEDGE_QUEUE__URL=u BUCKET=b"
    # Without the commands of AWS, of which the files are arguments.
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    script = "\n".join(line for line in lines if "aws s" not in line)
    command = ["bash", "-euc", f"{variables} ACCOUNT=123456789012\n{script}"]
    subprocess.run(command, cwd=tmp_path, check=True)
    read = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert json.loads(read["attributes"]["Policy"]) == read["policy"]
    [statement] = read["policy"]["Statement"]
    assert statement["Resource"] == "arn:aws:sqs:eu-west-1:123456789012:q"
    assert set(statement["Condition"]["StringEquals"].values()) == {"123456789012"}
    operation: Any = boto3.client("s3", region_name="eu-west-1").meta.service_model.operation_model(
        "PutBucketNotificationConfiguration"
    )
    validate_parameters(
        {"Bucket": "b", "NotificationConfiguration": read["notification"]}, operation.input_shape
    )


def parse(command: Any, arguments: list[str]) -> dict[str, Any]:
    """Return the options of a command. A wrong one or a missing argument raises."""
    context = command.context_class(command)
    while hasattr(command, "resolve_command"):
        _, command, arguments = command.resolve_command(context, arguments)
        context = command.context_class(command, parent=context)
    if not arguments:
        # A sentence that only names the command.
        return {}
    options: dict[str, Any] = command.make_context(command.name, list(arguments)).params
    return options


def check_operation(service: str, operation: str, options: list[str]) -> None:
    """Hold the options of an AWS command against the parameters of its operation."""
    name_of_service = cast(Any, "s3" if service == "s3api" else service)
    client: Any = boto3.client(name_of_service, region_name="eu-west-1")
    name = client.meta.method_to_api_mapping[operation.replace("-", "_")]
    shape = client.meta.service_model.operation_model(name).input_shape
    given = {option[2:] for option in options if option.startswith("--")} - _OWN_OPTIONS
    # As the AWS CLI names them.
    known = {xform_name(member, "-") for member in shape.members}
    switches = {f"no-{member}" for member in known}
    assert given - known - switches == set()
    required = {xform_name(member, "-") for member in shape.required_members}
    assert required - given == set()
