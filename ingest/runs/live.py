"""Messages without a run, which are recorded by the UTC day on which their jobs ended.

One folder for all of them would grow for as long as the application runs, and every question about
it would read everything. The name ``live`` stands for today's folder wherever a run is named.

Version 0.1.0 recorded them all under ``live``. While both versions serve one queue, what it writes
there belongs to the day in the names of its parts.
"""

from __future__ import annotations

from datetime import UTC, date, datetime

from serve_app.contracts.job import DEFAULT_RUN

LIVE_RUN = DEFAULT_RUN
"""Run id of messages that name no run."""

_DAY_PREFIX = "live-"


def run_id_of_day(day: date) -> str:
    """Return the id under which the messages without a run of a UTC day are recorded."""
    return f"{_DAY_PREFIX}{day:%Y-%m-%d}"


def recorded_run_id(run_id: str, ended_at: datetime) -> str:
    """Return the id under which an outcome is recorded.

    Args:
        run_id: Run id of its job.
        ended_at: Time at which the job ended.
    """
    return run_id_of_day(ended_at.astimezone(UTC).date()) if run_id == LIVE_RUN else run_id


def named_run_id(name: str) -> str:
    """Return the id of the run that a name stands for: ``live`` is today's messages."""
    return recorded_run_id(name, datetime.now(UTC))


def day_of_run(run_id: str) -> date | None:
    """Return the UTC day whose messages without a run have an id, or None for other runs."""
    try:
        day = date.fromisoformat(run_id.removeprefix(_DAY_PREFIX))
    except ValueError:
        return None
    return day if run_id == run_id_of_day(day) else None


def is_live(run_id: str) -> bool:
    """Return whether an id stands for messages without a run."""
    return run_id == LIVE_RUN or day_of_run(run_id) is not None
