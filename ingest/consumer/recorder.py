"""The storing of outcomes, which is repeated for as long as the ledger or the database refuses."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence

from ingest.consumer.breakers import Breakers
from ingest.consumer.lease import Lease
from ingest.consumer.place_waits import PlaceWaits
from ingest.runs.ledger import OutcomeSink
from serve_app.contracts.outcome import Outcome
from serve_app.contracts.place import Place
from serve_app.errors import DatabaseUnavailable, ForeedgeError

_logger = logging.getLogger(__name__)

_LEDGER = Place("ledger")
_DATABASE = Place("database")
_SLOW_AFTER_S = 15.0
"""Time, in seconds, after which a part that is not stored counts as trouble."""


class Recorder:
    """Stores the outcomes of messages. Belongs to one event loop."""

    def __init__(
        self,
        ledger: OutcomeSink,
        breakers: Breakers,
        waits: PlaceWaits,
        part_interval_s: float,
        clock: Callable[[], float],
    ) -> None:
        """Make a recorder.

        Args:
            ledger: Sink that stores the outcomes.
            breakers: Breakers of the consumer.
            waits: Waits of the consumer.
            part_interval_s: Longest time, in seconds, that the ledger collects records of a part.
            clock: Function that returns seconds and never goes back.
        """
        self._ledger = ledger
        self._breakers = breakers
        self._waits = waits
        self._slow_after_s = part_interval_s + _SLOW_AFTER_S
        self._clock = clock
        # In the order of their beginnings, since a dict keeps the order of its insertions.
        self._pending: dict[object, float] = {}

    @property
    def lag_s(self) -> float:
        """Seconds for which the oldest outcome that is not stored has waited."""
        began_s = next(iter(self._pending.values()), None)
        return 0.0 if began_s is None else self._clock() - began_s

    @property
    def trouble(self) -> str | None:
        """What is wrong if the ledger does not answer, or None if it does."""
        since_s = self.lag_s
        if since_s < self._slow_after_s:
            return None
        return f"{_LEDGER}: records have waited for {since_s:.0f} s and are not stored"

    async def store(self, outcomes: Sequence[Outcome], lease: Lease) -> bool:
        """Return True once the outcomes are stored, or False if the message's lease ended before.

        A place that refuses is not the fault of any message. Its message stays hidden, is not
        charged a receive, and is stored when the place serves again.
        """
        tried = {_LEDGER}
        place = await self._try_once(outcomes, lease, tried)
        for attempt in itertools.count(1):
            if place is None:
                return True
            tried.add(place)
            async with self._waits.turn(place, lease, attempt, has_job=False) as may_try:
                if not may_try:
                    return False
                place = await self._try_once(outcomes, lease, tried)
        raise AssertionError("unreachable")

    async def _try_once(
        self, outcomes: Sequence[Outcome], lease: Lease, tried: set[Place]
    ) -> Place | None:
        """Store outcomes, and return None, or else the place that refuses them.

        Args:
            outcomes: Outcomes of a message.
            lease: Lease of the message.
            tried: Places that serve if this succeeds, or, except the ledger, if only the ledger
                refuses.
        """
        began_s = self._clock()
        pending = object()
        self._pending[pending] = began_s
        try:
            if len(outcomes) == 1:
                await self._ledger.record(outcomes[0])
            else:
                await asyncio.gather(*(self._ledger.record(outcome) for outcome in outcomes))
        except ForeedgeError as error:
            # The rows of a book collection are written before the ledger.
            place = _DATABASE if isinstance(error, DatabaseUnavailable) else _LEDGER
            message_id = lease.message.message_id
            _logger.error("message %s is not recorded: %s: %s", message_id, place, error.message)
            reason = f"{error.code}: {error.message}"
            self._breakers.note_refusal(place, message_id, reason, self._clock())
            if place == _LEDGER:
                # It is reached only once the database has taken what it refused before.
                self._breakers.note_services(tried - {_LEDGER}, began_s, self._clock())
            return place
        finally:
            del self._pending[pending]
        if outcomes:
            self._breakers.note_services(tried, began_s, self._clock())
        return None
