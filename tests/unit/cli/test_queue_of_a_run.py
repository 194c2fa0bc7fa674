"""Which queue the commands about a run call: its own, unless the command line names another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.cli import options
from tests.unit.cli.test_cli import Workshop, put

APPLICATION, SHADOW, OTHER = "http://application", "http://shadow", "http://other"


class NotingWorkshop(Workshop):
    """A workshop that notes which queue each call names, and in which a job may be lost."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.called: list[str] = []

    def get_queue_attributes(self, **call: Any) -> dict[str, Any]:
        self.called.append(call["QueueUrl"])
        return super().get_queue_attributes(**call)

    def send_message_batch(self, QueueUrl: str, Entries: list[Any]) -> dict[str, Any]:  # noqa: N803
        self.called.append(QueueUrl)
        return super().send_message_batch(QueueUrl, Entries)

    def record(self, run_id: str, job_id: str, key: str) -> None:
        if "lost" not in key:
            super().record(run_id, job_id, key)

    def queues_of(self, *command: str) -> tuple[set[str], str]:
        """Return the queues that a command calls, and what it prints."""
        self.called.clear()
        _, out, _ = self.run(*command)
        return set(self.called), out


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NotingWorkshop:
    """Return one whose settings name ``APPLICATION``, with a run that was sent to ``SHADOW``."""
    made = NotingWorkshop(tmp_path)
    monkeypatch.setattr(options, "aws_client", lambda *_, **__: made)
    monkeypatch.setenv("COLUMNS", "200")
    settings = json.loads(made.config.read_text())
    made.config.write_text(json.dumps({**settings, "queue": {"url": APPLICATION}}))
    put(made, "in/bad.jpg", "in/lost.jpg")
    made.run("bulk", "s3://b/in/", "--queue", SHADOW, "--run-id", "r1", "--output", "s3://b/out/")
    assert set(made.called) == {SHADOW}
    return made


COMMANDS = [("redrive", "r1"), ("verify", "r1", "--enqueue-missing"), ("status", "r1")]
COMMANDS += [("status", "r1", "--watch", "--stalled-after", "1s")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_run_stays_in_the_queue_that_it_was_sent_to(
    workshop: NotingWorkshop, command: tuple[str, ...]
) -> None:
    queues, out = workshop.queues_of(*command)

    assert queues == {SHADOW}
    assert ("http://shadow, to which the run was sent" in out) == (command[0] != "status")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_command_line_can_name_another_queue(
    workshop: NotingWorkshop, command: tuple[str, ...]
) -> None:
    queues, out = workshop.queues_of(*command, "--queue", OTHER)

    assert queues == {OTHER}
    assert "to which the run was sent" not in out
    if command[0] == "redrive":
        assert "To watch:  foreedge status r1 --watch --queue http://other\n" in out


def test_nothing_is_said_of_a_queue_that_the_settings_name_too(workshop: NotingWorkshop) -> None:
    settings = json.loads(workshop.config.read_text())
    workshop.config.write_text(json.dumps({**settings, "queue": {"url": SHADOW}}))

    queues, out = workshop.queues_of("redrive", "r1")

    assert queues == {SHADOW}
    assert "to which the run was sent" not in out
