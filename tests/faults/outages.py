"""Outages of a minute each, watched through ``/readyz``, as a part of ``tests.faults.chaos``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.fault_effects import delay, refuse
from tests.support.fault_proxy import Effect
from tests.support.fault_rig import Rig

NOTICED_WITHIN_S = 30.0
"""Longest time, in seconds, until ``/readyz`` names the place, and until it is well again."""

_HANGS_S = 3_600.0
_LOOK_S = 0.5


@dataclass(frozen=True)
class Outage:
    name: str
    action: str
    where: str
    effect: Effect
    told: str
    """Text that the reason in ``/readyz`` must contain."""


def outages_of(rig: Rig) -> list[Outage]:
    """Return the outages: a store that denies, one that answers 503, and a queue that hangs."""
    denied, busy = refuse(403, "AccessDenied"), refuse(503, "SlowDown")
    bucket = f"s3://{rig.bucket}"
    return [
        Outage("results are denied", "s3:PutObject", "*/cutouts/*", denied, f"output {bucket}"),
        Outage("sources are denied", "s3:GetObject", "*/in/*", denied, f"source {bucket}"),
        Outage("the ledger is denied", "s3:PutObject", "*.jsonl.gz", denied, "ledger"),
        # Which of the three places is refused first is open.
        Outage("S3 answers 503", "s3:*", "*", busy, rig.bucket),
        Outage("SQS hangs", "sqs:*", rig.queue_name, delay(_HANGS_S), "queue_unavailable"),
    ]


@dataclass(frozen=True)
class Seen:
    """What ``/readyz`` said about an outage. Times are in seconds, or None for never."""

    outage: str
    told_after_s: float | None
    well_after_s: float | None
    reason: str

    def __str__(self) -> str:
        told, well = (
            "never" if seconds is None else f"after {seconds:.1f} s"
            for seconds in (self.told_after_s, self.well_after_s)
        )
        return f"{self.outage}: told {told} ({self.reason}), well {well}"

    @property
    def good(self) -> bool:
        times = (self.told_after_s, self.well_after_s)
        return all(seconds is not None and seconds <= NOTICED_WITHIN_S for seconds in times)


def endure(
    rig: Rig, outage: Outage, lasts_s: float, health: Callable[[], dict[str, Any]], jobs: int
) -> Seen:
    """Let an outage last while jobs come in, and return when ``/readyz`` named it and its end.

    Args:
        rig: Queue and buckets.
        outage: The outage.
        lasts_s: Duration of the outage in seconds.
        health: Function that returns what ``/readyz`` says about the ingest.
        jobs: Number of jobs that are sent meanwhile.
    """
    rule = rig.proxy.add(outage.action, outage.effect, name=outage.where)
    began_s = time.monotonic()
    names = [f"{outage.name.replace(' ', '-')}-{number:03d}" for number in range(jobs)]
    rig.send(*names)
    reason = ""

    def tells() -> bool:
        nonlocal reason
        reason = str(health().get("reason"))
        return outage.told in reason

    told_after_s = _seconds_until(tells, began_s, lasts_s)
    time.sleep(max(0.0, began_s + lasts_s - time.monotonic()))
    rig.proxy.remove(rule)
    ended_s = time.monotonic()
    well_after_s = _seconds_until(lambda: bool(health()["healthy"]), ended_s, 3 * NOTICED_WITHIN_S)
    return Seen(outage.name, told_after_s, well_after_s, reason[:120])


def _seconds_until(condition: Callable[[], bool], from_s: float, limit_s: float) -> float | None:
    while time.monotonic() < from_s + limit_s:
        if condition():
            return time.monotonic() - from_s
        time.sleep(_LOOK_S)
    return None


def ingest_health(url: str) -> dict[str, Any]:
    """Return what ``/readyz`` says about the ingest."""
    try:
        answer = httpx.get(f"{url}/readyz", timeout=10)
    except httpx.HTTPError as error:
        return {"healthy": False, "reason": f"/readyz: {error!r}"}
    found: dict[str, Any] = answer.json().get("ingest", {"healthy": False, "reason": answer.text})
    return found
