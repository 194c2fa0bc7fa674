"""The mapping of the errors of psycopg and SQLAlchemy to ours, by SQLSTATE.

The classes are those of the PostgreSQL manual, appendix A ("PostgreSQL Error Codes"). What is no
fault of a job is ``database_unavailable``: the job waits, keeps its message, and is charged no
receive.
"""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ingest.catalog.try_again import TryAgain
from serve_app.errors import DatabaseUnavailable, ForeedgeError, InternalError

UNIQUE_VIOLATION = "23505"
FOREIGN_KEY_VIOLATION = "23503"
INSUFFICIENT_PRIVILEGE = "42501"

_LOCKED = {
    "55P03": "another transaction holds the rows",
    "40001": "another transaction changed the rows",
    "40P01": "the database ended a deadlock",
}
"""What a transaction that is repeated at once has met, by SQLSTATE."""

_CONNECTION_LOST = {"57P01", "57P02", "57P03", "57P05", "25P03", "25P04"}
"""SQLSTATEs with which the server closes a connection: shutdowns, crashes and time-outs."""

_SURROUNDINGS = {
    "08": "the connection failed",
    "0A": "the database does not support a statement",
    "25": "the database takes no changes at present",
    "28": "the login was refused",
    "3D": "the database does not exist",
    "3F": "the schema does not exist",
    "53": "the database has no room",
    "54": "a limit of the database is exceeded",
    "55": "the database is not in the state for a statement",
    "57": "the database stopped a statement",
    "58": "the server has a system error",
    "F0": "the configuration of the server is wrong",
    "XX": "the database has an internal error",
}
"""What is wrong with the database and not with a job, by class of SQLSTATE."""

_ADVICE = {
    INSUFFICIENT_PRIVILEGE: "the role lacks a right; docs/catalog.md lists what it needs",
    "42P01": "a table is missing; did the application rename it?",
    "42703": "a column is missing; did the application rename it?",
    "53100": "the disk of the database is full",
    "53300": "the database has no connections left",
    "25006": "the database is read-only, as during a failover",
    "57014": "a statement took longer than its limit",
}
"""What is wrong and what to do, by SQLSTATE."""


def sqlstate_of(error: DBAPIError) -> str | None:
    """Return the SQLSTATE of an error. None if the connection was lost, or was never opened."""
    state: str | None = getattr(error.orig, "sqlstate", None)
    return state


def map_database_error(error: SQLAlchemyError) -> ForeedgeError | TryAgain:
    """Return our error for one of SQLAlchemy or psycopg.

    Args:
        error: Error of a transaction that was rolled back.

    Returns:
        TryAgain if the transaction can be repeated at once, or else what the caller is to raise.
    """
    if isinstance(error, PoolTimeout):
        return DatabaseUnavailable("catalog: no connection to the database became free in time")
    if not isinstance(error, DBAPIError):
        return InternalError(f"catalog: {type(error).__name__}: {error}")
    state = sqlstate_of(error)
    text = _text(error)
    if state in _LOCKED:
        return TryAgain(DatabaseUnavailable(f"catalog: {_LOCKED[state]}: {text}"), contended=True)
    if state is None or state in _CONNECTION_LOST or state.startswith("08"):
        # libpq names no SQLSTATE if it loses a connection or cannot open one.
        return TryAgain(DatabaseUnavailable(f"catalog: the database does not answer: {text}"))
    if state in _ADVICE:
        return DatabaseUnavailable(f"catalog: {_ADVICE[state]} ({state}: {text})")
    if state == UNIQUE_VIOLATION and _table(error) == "book_images":
        return DatabaseUnavailable(
            "catalog: the sequence of book_images.id lags behind the ids of the table, as after a "
            f"copy of the data. Repair it with setval ({state}: {text})"
        )
    if (reason := _SURROUNDINGS.get(state[:2])) is not None:
        return DatabaseUnavailable(f"catalog: {reason} ({state}: {text})")
    return InternalError(f"catalog: {state}: {text}")


def _text(error: DBAPIError) -> str:
    """Return the first line of an error, without the statement and its parameters."""
    lines = str(error.orig).strip().splitlines()
    return lines[0] if lines else type(error.orig).__name__


def _table(error: DBAPIError) -> str | None:
    diagnostics = getattr(error.orig, "diag", None)
    return getattr(diagnostics, "table_name", None)
