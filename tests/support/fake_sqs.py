"""A stand-in for the client of SQS that keeps the messages it is sent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class FakeSqs:
    """A client that takes messages, and refuses the entries that ``refuse`` returns."""

    def __init__(self, refuse: Callable[[int, list[Any]], list[Any]] = lambda _, __: []) -> None:
        self.bodies: list[str] = []
        self.calls = 0
        self._refuse = refuse
        self._lock = threading.Lock()

    def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
        """Answer for a queue that exists."""
        return {}

    def send_message_batch(self, QueueUrl: str, Entries: list[Any]) -> dict[str, Any]:  # noqa: N803
        """Keep the bodies of the entries that are not refused."""
        with self._lock:
            failed = self._refuse(self.calls, Entries)
            self.calls += 1
            refused = {item["Id"] for item in failed}
            self.bodies += [item["MessageBody"] for item in Entries if item["Id"] not in refused]
            return {"Failed": failed}


def refuse_entries(entries: list[Any]) -> list[Any]:
    """Return the refusal of all entries, for a reason that the sender must fix."""
    return [{"Id": item["Id"], "SenderFault": True, "Code": "No"} for item in entries]
