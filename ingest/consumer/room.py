"""How many messages a consumer may receive, by its permits, its memory and its breakers."""

from __future__ import annotations

from collections.abc import Callable, Sized

from ingest.consumer.breakers import Breakers
from ingest.consumer.place_waits import PlaceWaits
from ingest.consumer.recorder import Recorder
from ingest.sqs.limits import BATCH_ENTRIES


class Room:
    """The room of one consumer."""

    def __init__(
        self,
        permits: int,
        part_records: int,
        breakers: Breakers,
        waits: PlaceWaits,
        recorder: Recorder,
        clock: Callable[[], float],
    ) -> None:
        self._permits = permits
        # Two parts may wait to be stored: a ledger that is unavailable cannot fill the memory.
        self._max_unsettled = 2 * part_records + permits
        self._breakers = breakers
        self._waits = waits
        self._recorder = recorder
        self._clock = clock

    def messages(self, dispatched: Sized, held: Sized) -> int:
        """Return how many messages may be held in addition.

        Args:
            dispatched: Messages whose jobs are running or wait for a place.
            held: All messages that are held.
        """
        if self._recorder.trouble is not None:
            return 0
        unsettled = self._max_unsettled - len(held)
        if (limit := self._limit(dispatched)) is not None:
            return min(limit, unsettled)
        return min(self.permits_free(dispatched), unsettled)

    def permits_free(self, dispatched: Sized) -> int:
        """Return the number of free permits. A message that waits for a place needs none.

        Args:
            dispatched: Messages whose jobs are running or wait for a place.
        """
        # Those that have waited run again, whether a permit is free or not.
        return max(0, self._permits - len(dispatched) + len(self._waits))

    def worth(self, dispatched: Sized) -> int:
        """Return how many messages are worth a receive if there is no other."""
        if self._limit(dispatched) is not None:
            return 1
        # A receive of one message costs as much as one of ten: a single free permit must wait.
        return max(1, min(BATCH_ENTRIES, self._permits // 4))

    def _limit(self, dispatched: Sized) -> int | None:
        return self._breakers.most_messages(self._clock(), idle=not dispatched)
