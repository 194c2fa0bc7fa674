"""What is wrong with what a consumer needs: the queue, buckets, the ledger, models and the rest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from serve_app.contracts.place import Place, PlaceKind
from serve_app.errors import ForeedgeError

Boundary = PlaceKind | Literal["queue", "autoscaling", "settings"]
"""What a consumer depends on."""

BOUNDARIES: tuple[Boundary, ...] = ("queue", "source", "model", "pipeline", "output", "ledger")
"""What every consumer depends on, in the order in which a message meets it."""


class Trouble(NamedTuple):
    """One boundary that is not well."""

    boundary: Boundary
    reason: str
    """Error code and message, after the name of the place if there are several."""


def find_troubles(
    fatal: ForeedgeError | None,
    queue: str | None,
    ledger: str | None,
    refusing: Mapping[Place, str],
) -> list[Trouble]:
    """Return what is wrong, the first being what stops a consumer.

    Args:
        fatal: Error after which the consumer receives nothing, or None.
        queue: What is wrong with the queue, or None.
        ledger: What is wrong with a ledger that does not answer, or None.
        refusing: Places that refuse jobs, with the reason.
    """
    found: list[Trouble] = []
    if fatal is not None:
        found.append(Trouble("settings", f"{fatal.code}: {fatal.message}"))
    if queue is not None:
        found.append(Trouble("queue", queue))
    if ledger is not None:
        found.append(Trouble("ledger", ledger))
    found += [Trouble(place.kind, f"{place}: {reason}") for place, reason in refusing.items()]
    return found


def first_reason(troubles: Sequence[Trouble], last_write: str | None) -> str | None:
    """Return the first reason of what is wrong, with what the ledger said if it is one of them.

    Args:
        troubles: What is wrong.
        last_write: Why the last write of the ledger failed, which may be hours ago. None if it
            succeeded.
    """
    if not troubles:
        return None
    reason = troubles[0].reason
    refuses = last_write is not None and any(each.boundary == "ledger" for each in troubles)
    return f"{reason}; {last_write}" if refuses else reason


def describe_boundaries(
    names: Iterable[Boundary], troubles: Sequence[Trouble]
) -> list[dict[str, Any]]:
    """Return each boundary with the first reason why it is not well, or None if it is.

    Args:
        names: Boundaries that are known to be well if nothing is wrong with them.
        troubles: What is wrong.
    """
    reasons: dict[Boundary, str | None] = dict.fromkeys(names)
    for trouble in troubles:
        reasons[trouble.boundary] = reasons.get(trouble.boundary) or trouble.reason
    return [{"name": name, "reason": reason} for name, reason in reasons.items()]
