"""Whether a queue answers, by the calls that a consumer makes to it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from ingest.sqs.errors import is_denial, is_timeout
from serve_app.errors import QueueUnavailable

T = TypeVar("T")

RECEIVE = "receive"
"""Kind of the calls that are made whether messages are held or not."""

_FAILURES_UNTIL_UNHEALTHY = 3
_DENIAL_COUNTS_S = 900.0
"""Seconds for which a denied call says something about the queue of now. Somebody may have
corrected the policy, and calls of that kind may be rare: a dead letter is sent when a job has
failed."""


@dataclass(slots=True)
class _Calls:
    """The last calls of one kind."""

    failures: int = 0
    """Number of failures in a row."""
    failed_at: float = -math.inf
    """Time of the last failure, in seconds of the consumer's clock."""
    text: str = ""
    """Code and text of the last failure."""
    silent: bool = False
    """Whether the last failure was a call that got no answer in time."""
    denied: bool = False
    """Whether the last failure was a refusal that somebody must correct."""


class QueueHealth:
    """Limits the time of each call to a queue, and knows which kinds of calls fail.

    A refusal may be one of many answers, so three in a row count. A call without an answer has
    already taken as long as several, so one counts.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start with a queue that works.

        Args:
            clock: Function that returns seconds and never goes back.
        """
        self._clock = clock
        self._kinds: dict[str, _Calls] = {}

    async def call(self, kind: str, call: Awaitable[T], limit_s: float) -> T:
        """Await a call of the queue, and keep count of the failures of its kind.

        Args:
            kind: Kind of the call, such as ``extend``.
            call: The call, which is cancelled if it takes too long.
            limit_s: Longest time in seconds.

        Raises:
            QueueUnavailable: The call failed, or was not answered in time.
        """
        began_at = self._clock()
        limit = asyncio.timeout(limit_s)
        try:
            async with limit:
                answer = await call
        except QueueUnavailable as error:
            self._note_failure(kind, error, began_at)
            raise
        except TimeoutError as error:
            if not limit.expired():
                raise
            unanswered = QueueUnavailable(
                f"{kind}: the queue did not answer within {limit_s:g} s; check the network between "
                "this process and the queue"
            )
            unanswered.__cause__ = error
            self._note_failure(kind, unanswered, began_at)
            raise unanswered from error
        self._note_success(kind, began_at)
        return answer

    def failures(self, kind: str) -> int:
        """Return how many calls of a kind have failed in a row."""
        calls = self._kinds.get(kind)
        return 0 if calls is None else calls.failures

    def trouble(self, *, holding: bool) -> str | None:
        """Return what is wrong with the queue, or None.

        Args:
            holding: Whether any message is held. If none is, an old failure to extend, release or
                delete says nothing about the queue of now, unless somebody has to correct it.
        """
        denied_since = self._clock() - _DENIAL_COUNTS_S
        current = [
            calls
            for kind, calls in self._kinds.items()
            if (calls.silent or calls.failures >= _FAILURES_UNTIL_UNHEALTHY)
            and (kind == RECEIVE or (calls.failed_at > denied_since if calls.denied else holding))
        ]
        return max(current, key=lambda calls: calls.failed_at).text if current else None

    def _note_failure(self, kind: str, error: QueueUnavailable, began_at: float) -> None:
        calls = self._kinds.setdefault(kind, _Calls())
        # Calls side by side fail together, which is one failure.
        calls.failures += began_at >= calls.failed_at or not calls.failures
        calls.failed_at = self._clock()
        calls.text = f"{error.code}: {error.message}"
        calls.silent, calls.denied = is_timeout(error), is_denial(error)

    def _note_success(self, kind: str, began_at: float) -> None:
        if calls := self._kinds.get(kind):
            calls.failures = 0
        for calls in self._kinds.values():
            # A queue that answers one kind of call is not silent for the others.
            if calls.failures == 0 or began_at >= calls.failed_at:
                calls.silent = False
