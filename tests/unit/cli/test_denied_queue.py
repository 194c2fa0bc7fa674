"""What the commands say if the operator's role may not ask the queue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ingest.cli import options
from tests.unit.cli.test_cli import Workshop, put


class DeniedWorkshop(Workshop):
    """A workshop whose queue takes messages and does not say how many it holds."""

    denied = False

    def get_queue_attributes(self, **arguments: Any) -> dict[str, Any]:
        if not self.denied:
            return super().get_queue_attributes(**arguments)
        error: Any = {"Error": {"Code": "AccessDenied", "Message": "no [bold]"}}
        raise ClientError(error, "GetQueueAttributes")


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DeniedWorkshop:
    made = DeniedWorkshop(tmp_path)
    monkeypatch.setattr(options, "aws_client", lambda *_, **__: made)
    monkeypatch.setenv("COLUMNS", "400")
    return made


def test_status_says_why_the_queue_is_not_known(workshop: DeniedWorkshop) -> None:
    put(workshop, "in/1.jpg")
    workshop.run("bulk", "s3://b/in/", "--queue", "http://q", "--run-id", "r1")
    workshop.denied = True

    code, out, _ = workshop.run("status", "r1", "--queue", "http://q")
    assert code == 0
    assert "queue    queue_unavailable: http://q: GetQueueAttributes: " in out
    assert "no [bold]" in out
    assert "the role's policy must allow this action on the queue" in out

    _, out, _ = workshop.run("status", "r1", "--queue", "http://q", "--json")
    status = json.loads(out)
    assert status["queue"] is None
    assert status["queue_error"].startswith("queue_unavailable: http://q: GetQueueAttributes: ")


def test_status_has_no_error_of_a_queue_that_answers(workshop: DeniedWorkshop) -> None:
    put(workshop, "in/1.jpg")
    workshop.run("bulk", "s3://b/in/", "--queue", "http://q", "--run-id", "r1")
    _, out, _ = workshop.run("status", "r1", "--queue", "http://q", "--json")
    assert json.loads(out)["queue_error"] is None
