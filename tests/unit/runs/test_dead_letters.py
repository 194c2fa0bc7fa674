"""The search for dead letters ends, whatever the size of the queue and the time that it takes."""

from __future__ import annotations

import json
from collections import deque
from typing import Any

import pytest

from ingest.runs import redrive
from ingest.runs.redrive import clear_dead_letters
from ingest.sqs.queue_client import QueueClient


class LargeQueue:
    """A dead-letter queue that shows hidden messages again after so many receives."""

    def __init__(self, job_ids: list[str], hidden_receives: int) -> None:
        self._visible = deque(job_ids)
        self._hidden: deque[tuple[int, str]] = deque()
        self._hidden_receives = hidden_receives
        self.receives = 0
        self.released: set[str] = set()
        self.deleted: set[str] = set()

    def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        policy = {"deadLetterTargetArn": "arn:aws:sqs:x:1:dead", "maxReceiveCount": 3}
        return {"Attributes": {"RedrivePolicy": json.dumps(policy)}}

    def get_queue_url(self, **_: Any) -> dict[str, Any]:
        return {"QueueUrl": "http://dead"}

    def receive_message(self, **_: Any) -> dict[str, Any]:
        self.receives += 1
        assert self.receives < 100_000, "the search does not end"
        while self._hidden and self._hidden[0][0] <= self.receives:
            job_id = self._hidden.popleft()[1]
            if job_id not in self.deleted:
                self._visible.appendleft(job_id)
        found = [self._visible.popleft() for _ in range(min(10, len(self._visible)))]
        self._hidden += [(self.receives + self._hidden_receives, job_id) for job_id in found]
        return {
            "Messages": [
                {"MessageId": job, "ReceiptHandle": job, "Body": json.dumps({"job_id": job})}
                for job in found
            ]
        }

    def delete_message_batch(self, Entries: list[Any], **_: Any) -> dict[str, Any]:  # noqa: N803
        self.deleted |= {entry["ReceiptHandle"] for entry in Entries}
        return {"Successful": Entries}

    def change_message_visibility_batch(self, Entries: list[Any], **_: Any) -> None:  # noqa: N803
        self.released |= {entry["ReceiptHandle"] for entry in Entries}


def clear(queue: LargeQueue, wanted: set[str]) -> tuple[int, list[int]]:
    incomplete: list[int] = []
    number = clear_dead_letters(QueueClient(queue, "http://q"), wanted, incomplete.append)  # type: ignore[arg-type]
    return number, incomplete


def test_a_queue_that_shows_hidden_messages_again_is_searched_once() -> None:
    queue = LargeQueue([str(number) for number in range(2_000)], hidden_receives=50)
    number, [others] = clear(queue, {"7", "1999"})
    assert (number, queue.deleted) == (1, {"7"})
    assert 400 < others < 600
    assert len(queue.released) == others


def test_no_more_messages_are_hidden_than_sqs_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redrive, "_MOST_HIDDEN", 200)
    queue = LargeQueue([str(number) for number in range(2_000)], hidden_receives=10_000)
    number, [others] = clear(queue, {"7", "1999"})
    assert number == 1
    assert 200 <= others < 210


def test_a_queue_that_is_searched_to_its_end() -> None:
    queue = LargeQueue([str(number) for number in range(300)], hidden_receives=10_000)
    assert clear(queue, {"7", "299"}) == (2, [])
    assert len(queue.released) == 298


def test_the_letter_of_a_message_that_names_no_job_is_found_by_its_attribute() -> None:
    class AttributeQueue(LargeQueue):
        def receive_message(self, **call: Any) -> dict[str, Any]:
            assert call["MessageAttributeNames"] == ["foreedge.job_id"]
            answer = super().receive_message(**call)
            for message in answer["Messages"]:
                value = {"DataType": "String", "StringValue": message["MessageId"]}
                message |= {"Body": "{}", "MessageAttributes": {"foreedge.job_id": value}}
            return answer

    queue = AttributeQueue([str(number) for number in range(30)], hidden_receives=10_000)
    assert clear(queue, {"7", "29"}) == (2, [])
    assert queue.deleted == {"7", "29"}


def test_the_letter_of_a_catalog_job_is_found_however_the_application_writes_its_id() -> None:
    job_id, other = "0F8FAD5B-D9CB-469F-A165-70867728950E", "no-uuid"

    class CatalogQueue(LargeQueue):
        def receive_message(self, **call: Any) -> dict[str, Any]:
            answer = super().receive_message(**call)
            for message in answer["Messages"]:
                body = {"job_id": message["MessageId"], "book_id": 7, "image_id": None}
                message["Body"] = json.dumps(body)
            return answer

    queue = CatalogQueue([job_id, other], hidden_receives=10_000)
    assert clear(queue, {job_id.lower(), other}) == (1, [])
    assert queue.deleted == {job_id}
