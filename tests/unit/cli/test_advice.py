"""What a command says if it cannot do what is asked: the advice is one that works."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ingest.cli import options
from ingest.cli.main import app, main
from ingest.sqs.queue_client import QueueClient, check_answers
from serve_app.aws import aws_client
from serve_app.config import AwsConfig
from serve_app.errors import InvalidConfig, QueueUnavailable, SourceNotFound
from tests.unit.cli.test_cli import Workshop, start_run

End = Callable[..., tuple[int, str]]
COMMANDS = {command.callback.__name__ for command in app.registered_commands if command.callback}


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    made = Workshop(tmp_path)
    monkeypatch.setattr(options, "aws_client", lambda *_, **__: made)
    return made


@pytest.fixture
def without_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let boto3 find neither a variable, nor a file, nor the service of a machine."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def end(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> End:
    """Return a function that runs a command, and returns its exit code and its one error."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["foreedge", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        [line] = capsys.readouterr().err.splitlines()
        assert isinstance(ended.value.code, int)
        return ended.value.code, line

    return run


@pytest.mark.parametrize("run", ["live", "live-2026-01-31", "invalid", "orders"])
def test_a_redrive_of_what_bulk_did_not_send_names_what_works(workshop: Workshop, run: str) -> None:
    workshop.record(run, "a", "bad.jpg")

    with pytest.raises(InvalidConfig) as refused:
        workshop.run("redrive", run, "--queue", "http://q")

    # SQS does not know the queue of messages that the consumer itself has moved.
    command = r"aws sqs start-message-move-task --source-arn [A-Z_]+ --destination-arn [A-Z_]+\."
    assert re.search(command, refused.value.message)
    assert "foreedge catalog sweep --failed" in refused.value.message
    assert workshop.sent == []


def test_a_redrive_of_an_unknown_run_says_that_it_is_unknown(workshop: Workshop) -> None:
    with pytest.raises(SourceNotFound, match="check the run's name"):
        workshop.run("redrive", "orders", "--queue", "http://q")


@pytest.mark.usefixtures("without_credentials")
def test_without_credentials_it_says_how_to_get_some(end: End) -> None:
    where = ("--ledger-bucket", "b", "--queue", "http://127.0.0.1:9/q")

    code, error = end("bulk", "s3://b/in/", *where)

    assert code == 4
    assert error.startswith("error: storage_unavailable: s3://b/in/: ")
    assert "AWS_PROFILE" in error
    assert "aws sso login" in error
    client = aws_client("sqs", AwsConfig())
    with pytest.raises(QueueUnavailable, match="AWS_PROFILE"):
        check_answers(QueueClient(client, "http://127.0.0.1:9/q"))


@pytest.mark.usefixtures("without_credentials")
def test_a_profile_that_does_not_exist_is_named(end: End, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nowhere")

    code, error = end("status", "r1", "--ledger-bucket", "b")

    assert code == 2
    assert error.startswith("error: invalid_config: ")
    assert "(nowhere)" in error
    assert "Correct AWS_PROFILE" in error


def test_only_commands_that_use_a_queue_offer_to_name_it(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    offered = {
        name
        for name in COMMANDS
        if re.search(r"--queue\b", CliRunner().invoke(app, [name, "--help"]).stdout)
    }
    assert offered & {"report", "errors", "runs", "cancel"} == set()
    assert {"bulk", "status", "verify", "redrive"} <= offered

    # A script may give all of them the same options.
    start_run(workshop, "1.jpg")
    for command in (["errors", "r1"], ["runs"], ["cancel", "r1"]):
        assert workshop.run(*command, "--queue", "http://q")[0] == 0
