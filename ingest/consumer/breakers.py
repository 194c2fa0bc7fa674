"""Breakers: which places refuse to serve jobs, and what a consumer may do meanwhile.

A place is a bucket, the ledger or a model (``contracts.place``). If it refuses several jobs and has
served none since, it is not the jobs' fault::

    closed ──── refused several jobs, and has served none since ────► open
       ▲          no more messages are received, one waiting job at a time tries
       └──────────────── has served a job that began since ────────────────┘

If another place of the same kind serves jobs meanwhile, only the jobs of this place wait, and
others are received. This is what happens to a bucket that one producer has misspelt.

Nothing here waits or reads a clock: a caller passes the time, in seconds of a clock that never goes
back. ``JobRunner`` does the waiting.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from serve_app.contracts.place import Place

REFUSALS_UNTIL_OPEN = 5
"""Number of jobs that a place must refuse in a row until it counts as the place's fault."""

_SAMPLE_S = 30.0
_PLACES_REMEMBERED = 200


@dataclass(slots=True)
class _Breaker:
    """What is known about one place."""

    refused: set[str] = field(default_factory=set)
    """Jobs that were refused since the place served a job."""
    refusing_since_s: float = math.inf
    """Time of the first of these refusals."""
    opened_at_s: float = math.inf
    reason: str = ""
    probes: int = 0
    """Attempts since the breaker opened."""
    served_job_begun_s: float = -math.inf
    """Latest beginning of an attempt that the place has served."""
    served_at_s: float = -math.inf
    """Time at which it became known that the place has served a job."""

    def close(self) -> None:
        self.refused.clear()
        self.refusing_since_s = self.opened_at_s = math.inf
        self.probes = 0


class Breakers:
    """The breakers of one consumer."""

    def __init__(self, permits: int, *, patience_s: float, patience_with_one_s: float) -> None:
        """Make closed breakers.

        Args:
            permits: Number of messages whose jobs can run at the same time.
            patience_s: Time, in seconds, after which a place that refuses while others of its kind
                serve jobs is blamed on those who name it.
            patience_with_one_s: Time, in seconds, for which a job is tried again whose place has
                served others, but none that began after the job was refused.
        """
        self._refusals_until_open = max(2, min(permits, REFUSALS_UNTIL_OPEN))
        self._patience_s = patience_s
        self._patience_with_one_s = patience_with_one_s
        self._breakers: dict[Place, _Breaker] = {}
        self._waiting: Counter[Place] = Counter()
        self._sampled_at_s = -math.inf

    # what is observed

    def note_refusal(self, place: Place, job_id: str, reason: str, at_s: float) -> None:
        """Note that a place has refused a job."""
        breaker = self._breaker(place)
        breaker.reason = reason
        breaker.refusing_since_s = min(breaker.refusing_since_s, at_s)
        if len(breaker.refused) < self._refusals_until_open:
            breaker.refused.add(job_id)
        if self.is_open(place):
            breaker.probes += 1
        elif len(breaker.refused) >= self._refusals_until_open:
            breaker.opened_at_s = at_s

    def note_services(
        self, places: Iterable[Place], began_s: float, at_s: float, *, conclusive: bool = True
    ) -> None:
        """Note that places have served a job.

        Args:
            places: The places.
            began_s: Beginning of the attempt. A job that began before a refusal may have been
                served before it, and says nothing about what comes after.
            at_s: The present time.
            conclusive: Whether a refusal may now be held against the next job.
        """
        for place in places:
            breaker = self._breakers.get(place) or self._breaker(place)
            if conclusive:
                if began_s > breaker.served_job_begun_s:
                    breaker.served_job_begun_s = began_s
                breaker.served_at_s = at_s
            if began_s >= breaker.refusing_since_s:
                breaker.close()

    def note_sample(self, at_s: float) -> None:
        """Note that messages were received although a breaker is open."""
        self._sampled_at_s = at_s

    def begin_waiting(self, place: Place) -> None:
        """Note that a job waits for a place."""
        self._waiting[place] += 1

    def end_waiting(self, place: Place) -> None:
        """Note that a job does not wait for a place any more."""
        self._waiting[place] -= 1
        if not self._waiting[place]:
            del self._waiting[place]

    # what follows from it

    def is_open(self, place: Place) -> bool:
        """Return whether jobs must wait for a place, and try it one at a time."""
        breaker = self._breakers.get(place)
        return breaker is not None and breaker.opened_at_s < math.inf

    def is_particular(self, place: Place) -> bool:
        """Return whether a place refuses while another one of its kind serves jobs."""
        since_s = self._breakers[place].refusing_since_s if place in self._breakers else math.inf
        return any(
            other != place and other.kind == place.kind and breaker.served_job_begun_s >= since_s
            for other, breaker in self._breakers.items()
        )

    def is_given_up(self, place: Place, at_s: float) -> bool:
        """Return whether a place has refused for too long while others of its kind served jobs."""
        if not self.is_open(place) or not self.is_particular(place):
            return False
        return at_s >= self._breakers[place].opened_at_s + self._patience_s

    def has_served_since(self, place: Place, at_s: float) -> bool:
        """Return whether a place has served a job that began at a time or later."""
        breaker = self._breakers.get(place)
        return breaker is not None and breaker.served_job_begun_s >= at_s

    def is_jobs_fault(self, place: Place, first_attempt_s: float, at_s: float) -> bool:
        """Return whether repeated refusals of one job are its own fault, without better evidence.

        Better evidence is that the place has served a job that began after the first refusal.

        Args:
            place: Place that refuses the job.
            first_attempt_s: Beginning of the job's first attempt.
            at_s: The present time.
        """
        breaker = self._breakers.get(place)
        if breaker is None:
            return False
        if self.is_open(place):
            return self.is_given_up(place, at_s)
        has_served = breaker.served_at_s >= first_attempt_s
        return has_served and at_s >= first_attempt_s + self._patience_with_one_s

    def probe_number(self, place: Place) -> int:
        """Return the number of the next attempt at a place whose breaker is open, from 1."""
        return self._breaker(place).probes + 1

    def most_messages(self, at_s: float, *, idle: bool) -> int | None:
        """Return how many messages may be received now, or None if the breakers set no limit.

        While a breaker is open, the jobs that wait for its place find out when it serves again. One
        message is received if there are no such jobs, and now and then once patience has ended: it
        may belong to another place.

        Args:
            at_s: The present time.
            idle: Whether no job is running or waiting.
        """
        stopping = [
            place
            for place in self._breakers
            if self.is_open(place) and not self.is_particular(place)
        ]
        if not stopping:
            return None
        if idle and not any(self._waiting[place] for place in stopping):
            return 1
        opened_at_s = min(self._breakers[place].opened_at_s for place in stopping)
        sampled = at_s < self._sampled_at_s + _SAMPLE_S
        return 1 if at_s >= opened_at_s + self._patience_s and not sampled else 0

    def refusing(self) -> dict[Place, str]:
        """Return each place that stops the receiving or that jobs wait for, with its reason."""
        found = {}
        for place, breaker in sorted(self._breakers.items(), key=lambda item: item[0]):
            stops = self.is_open(place) and not self.is_particular(place)
            refuses = breaker.refusing_since_s < math.inf and self._waiting[place] > 0
            if stops or refuses:
                found[place] = breaker.reason
        return found

    def refusing_since_s(self, place: Place) -> float | None:
        """Return the time since which a place refuses, or None if it serves jobs."""
        breaker = self._breakers.get(place)
        since_s = math.inf if breaker is None else breaker.refusing_since_s
        return None if since_s == math.inf else since_s

    def _breaker(self, place: Place) -> _Breaker:
        breaker = self._breakers.get(place)
        if breaker is None:
            if len(self._breakers) >= _PLACES_REMEMBERED:
                self._forget_one()
            breaker = self._breakers[place] = _Breaker()
        return breaker

    def _forget_one(self) -> None:
        """Forget the place that was asked first, of those that no job waits for."""
        unneeded = (place for place in self._breakers if not self._waiting[place])
        place = next(unneeded, next(iter(self._breakers)))
        del self._breakers[place]
