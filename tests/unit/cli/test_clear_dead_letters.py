"""``foreedge redrive --clear-dead-letters``, and its repetition."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ingest.cli import options
from tests.unit.cli.test_cli import Workshop, put
from tests.unit.runs.test_dead_letters import LargeQueue


class WorkshopWithDeadLetters(Workshop):
    """A workshop whose queue has a dead-letter queue."""

    dead = LargeQueue([], hidden_receives=10_000)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dead, name)

    def get_queue_attributes(self, **call: Any) -> dict[str, Any]:
        counts = super().get_queue_attributes(**call)["Attributes"]
        return {"Attributes": {**counts, **self.dead.get_queue_attributes()["Attributes"]}}


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorkshopWithDeadLetters:
    made = WorkshopWithDeadLetters(tmp_path)
    monkeypatch.setattr(options, "aws_client", lambda *_, **__: made)
    return made


def test_it_can_be_repeated_once_the_jobs_have_ended(workshop: WorkshopWithDeadLetters) -> None:
    put(workshop, "in/1.jpg", "in/bad.jpg")
    workshop.run("bulk", "s3://b/in/", "--queue", "http://q", "--run-id", "r1")
    failed = json.loads(workshop.run("errors", "r1", "--json")[1])["job_id"]
    command = ("redrive", "r1", "--json", "--clear-dead-letters")

    # Nothing failed with this code, and nothing was redriven before: there is nothing to look for.
    answer = json.loads(workshop.run(*command, "--code", "corrupt_image")[1])
    assert (answer["redriven"], answer["dead_letters_deleted"], workshop.dead.receives) == (0, 0, 0)

    # The first search ends before it has found the letter.
    answer = json.loads(workshop.run(*command)[1])
    assert (answer["redriven"], answer["dead_letters_deleted"]) == (1, 0)
    workshop.record("r1", failed, "in/good.jpg")
    workshop.dead = LargeQueue(["other", failed], hidden_receives=10_000)

    answer = json.loads(workshop.run(*command)[1])

    assert (answer["redriven"], answer["waiting"], answer["dead_letters_deleted"]) == (0, 0, 1)
    assert workshop.dead.deleted == {failed}
    assert workshop.dead.released == {"other"}
