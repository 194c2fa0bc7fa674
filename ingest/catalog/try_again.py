"""When a transaction is repeated at once, and for how long."""

from __future__ import annotations

import random
from dataclasses import dataclass

from serve_app.errors import DatabaseUnavailable, ForeedgeError

_SHORTEST_PAUSE_S = 0.01
_LONGEST_PAUSE_S = 0.5
CONTENDED_S = 10.0
"""Time, in seconds, for which rows may be held by others. Transactions of the application that are
longer are rare: it holds rows while it sends a message to SQS."""
_LOST_CONNECTIONS = 3
"""Number of times that a lost connection is opened again before the database counts as down."""


class TryAgain(Exception):
    """A transaction was rolled back, and the same one may succeed in a moment."""

    def __init__(self, error: ForeedgeError, *, contended: bool = False) -> None:
        """Create the signal.

        Args:
            error: Error to raise if the repetitions do not succeed.
            contended: Whether others hold the rows, so that the database itself is well.
        """
        super().__init__(error.message)
        self.error = error
        self.contended = contended


class RowsChanged(TryAgain):
    """Rows changed between two statements of a transaction, which begins again."""

    def __init__(self, message: str) -> None:
        """Create the signal from the text of the error if it happens again and again."""
        super().__init__(DatabaseUnavailable(f"catalog: {message}"), contended=True)


@dataclass(slots=True)
class Repetitions:
    """The repetitions of one transaction."""

    began_at: float
    """Time of the first attempt, in seconds of any clock that never goes back."""
    patience_s: float = CONTENDED_S
    """Time, in seconds, for which rows may be held by others."""
    contended: int = 0
    lost: int = 0

    def pause_s(self, again: TryAgain, now: float) -> float:
        """Return the seconds to wait before the next attempt.

        The pauses are random, so that transactions that met each other do not meet again.

        Args:
            again: What the last attempt raised.
            now: The present time.

        Raises:
            ForeedgeError: There is no further attempt.
        """
        if again.contended:
            self.contended += 1
            if now >= self.began_at + self.patience_s:
                raise again.error from again
        else:
            self.lost += 1
            if self.lost > _LOST_CONNECTIONS:
                raise again.error from again
        longest_s = min(_LONGEST_PAUSE_S, _SHORTEST_PAUSE_S * 2 ** (self.contended + self.lost))
        return random.uniform(0, longest_s)
