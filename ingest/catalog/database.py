"""The connections to the application's database, and the frame of every transaction.

SQLAlchemy and psycopg are synchronous here and run in threads, as boto3 does. A pooler such as
PgBouncer or RDS Proxy may stand between: no statement is prepared, and the time-outs are local to
each transaction. No transaction is open while an image is processed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection, Row, Select, create_engine, func, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ingest.catalog.catalog_metrics import record_repetition
from ingest.catalog.login import Login
from ingest.catalog.sql_errors import map_database_error
from ingest.catalog.try_again import CONTENDED_S, Repetitions, TryAgain
from serve_app.errors import DatabaseUnavailable, InternalError
from serve_app.serving.metrics import CATALOG_TRANSACTION_SECONDS, UNRECORDED, Metrics

T = TypeVar("T")

_logger = logging.getLogger(__name__)

CONNECTIONS = 4
"""Number of connections of one consumer, which is the number of its transactions at a time."""

_OPTIONS: dict[str, Any] = {
    "connect_timeout": 5,
    "application_name": "foreedge",
    "keepalives_idle": 30,
    "tcp_user_timeout": 10_000,
}
"""Options of libpq, which ``catalog.database_url`` may override. The first and the third are in
seconds, and the last one in milliseconds."""
_STATEMENT_TIMEOUT_S = 5
_LOCK_TIMEOUT_S = 0.25
"""Longest wait for a row. It is below PostgreSQL's ``deadlock_timeout`` of 1 s, after which one of
two transactions that wait for each other is ended."""
_IDLE_TIMEOUT_S = 10
_HELD_LOCK_TIMEOUT_S = 60
_STREAM_ROWS = 1_000
"""Number of rows that a server-side cursor hands over at a time."""
_STREAM_TIMEOUT_S = 600
"""Longest time, in seconds, that a stream may take until its first rows, and that whoever reads it
may take for some of them."""


def _begin(statement_s: float, lock_s: float, idle_s: float, mode: str = "") -> str:
    """Return the statements that begin a transaction, which are one round trip.

    The time-outs end with the transaction, so that a pooler may stand between.

    Args:
        statement_s: Longest time of a statement, in seconds.
        lock_s: Longest wait for a row or a table, in seconds.
        idle_s: Longest time between two statements, in seconds.
        mode: Further modes of the transaction.
    """
    limits = {
        "statement_timeout": statement_s,
        "lock_timeout": lock_s,
        "idle_in_transaction_session_timeout": idle_s,
    }
    local = [f"SET LOCAL {name} = '{limit_s * 1000:.0f}ms'" for name, limit_s in limits.items()]
    return "; ".join([f"BEGIN ISOLATION LEVEL READ COMMITTED {mode}".strip(), *local])


_BEGIN = _begin(_STATEMENT_TIMEOUT_S, _LOCK_TIMEOUT_S, _IDLE_TIMEOUT_S)
_BEGIN_LOCK = _begin(_STATEMENT_TIMEOUT_S, _LOCK_TIMEOUT_S, _HELD_LOCK_TIMEOUT_S)
_BEGIN_STREAM = _begin(_STREAM_TIMEOUT_S, _STREAM_TIMEOUT_S, _STREAM_TIMEOUT_S, "READ ONLY")


class Database:
    """The database of the application. Threads can share it."""

    def __init__(
        self, login: Login, *, patience_s: float = CONTENDED_S, metrics: Metrics = UNRECORDED
    ) -> None:
        """Open no connection yet.

        Args:
            login: Options of the connections.
            patience_s: Time, in seconds, for which rows may be held by others.
            metrics: Metrics of the transactions.
        """
        self._metrics = metrics
        self.patience_s = patience_s
        """Time, in seconds, for which a transaction is repeated while others hold its rows."""
        self._login = login
        self._engine = create_engine(
            "postgresql+psycopg://",
            creator=self._connect,
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=_STATEMENT_TIMEOUT_S,
        )
        self._trouble: str | None = None
        self._lock = threading.Lock()

    @property
    def trouble(self) -> str | None:
        """Why the last transaction was not possible, or None if the database answered."""
        return self._trouble

    def run(self, work: Callable[[Connection], T]) -> T:
        """Return what a transaction returns, which is repeated while others hold its rows.

        Args:
            work: Body of the transaction. It may be called several times.

        Raises:
            DatabaseUnavailable: The database does not answer, or not now.
            InternalError: The database refuses a statement.
        """
        repetitions = Repetitions(time.monotonic(), self.patience_s)
        while True:
            try:
                return self.run_once(work)
            except TryAgain as again:
                time.sleep(repetitions.pause_s(again, time.monotonic()))

    def run_once(self, work: Callable[[Connection], T]) -> T:
        """Return what a transaction returns.

        Args:
            work: Body of the transaction.

        Raises:
            TryAgain: The transaction was rolled back, and can be repeated.
            DatabaseUnavailable: The database does not answer, or not now.
            InternalError: The database refuses a statement.
        """
        began_s = time.monotonic()
        with self._transaction(_BEGIN) as connection:
            result = work(connection)
        self._trouble = None
        self._metrics.observe(CATALOG_TRANSACTION_SECONDS, time.monotonic() - began_s)
        return result

    @contextmanager
    def locked(self, number: int) -> Iterator[Callable[[], object] | None]:
        """Hold a lock that one process has at a time. It locks no row.

        It belongs to a transaction, and not to a session, so that a pooler may stand between. The
        server frees it 60 s after its holder was last heard of.

        Args:
            number: Number of the lock in the database.

        Yields:
            A function to call while the lock is held, at least every 60 s. None if another process
            holds the lock.

        Raises:
            TryAgain: The connection was lost.
            DatabaseUnavailable: The database does not answer, or not now.
        """
        with self._transaction(_BEGIN_LOCK) as connection:
            taken = connection.scalar(select(func.pg_try_advisory_xact_lock(number)))
            yield (lambda: connection.exec_driver_sql("SELECT 1")) if taken else None

    def stream(self, query: Select[*tuple[Any, ...]]) -> Iterator[Row[*tuple[Any, ...]]]:
        """Yield the rows of a query by a server-side cursor, in a transaction that only reads.

        All rows are of one moment, and few of them are in memory. The transaction ends with the
        iterator.

        Args:
            query: Query to run.

        Raises:
            DatabaseUnavailable: The database does not answer, or not now.
            InternalError: The database refuses the query.
        """
        try:
            with self._transaction(_BEGIN_STREAM) as connection:
                streaming = connection.execution_options(yield_per=_STREAM_ROWS)
                # Closed here, since a reader that stops early leaves the cursor open.
                with streaming.execute(query) as rows:
                    yield from rows
        except TryAgain as again:
            raise again.error from again

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Connection]:
        """Commit what is done in the context, or roll it back if it raises.

        Args:
            begin: Statements that begin the transaction.
        """
        with self._mapped(), self._engine.connect() as connection:
            try:
                connection.exec_driver_sql(begin)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                # The connection was lost while nobody used it, so that nothing was done on it.
                connection.rollback()
                connection.exec_driver_sql(begin)
            yield connection
            connection.commit()

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """Raise our errors in place of those of SQLAlchemy, and note what they say."""
        try:
            yield
        except SQLAlchemyError as error:
            mapped = map_database_error(error)
            self._note(mapped)
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                _logger.info("catalog: a connection to the database was lost")
            raise mapped from error

    def _note(self, error: Exception) -> None:
        if isinstance(error, TryAgain):
            record_repetition(self._metrics, error)
            self._trouble = None if error.contended else error.error.message
        elif isinstance(error, DatabaseUnavailable | InternalError):
            self._trouble = error.message

    def _connect(self) -> Any:
        """Open a connection, and read the login again if it is refused.

        libpq does not say why it could not connect other than by a translated text. So every
        failure may be that of a password that was rotated.
        """
        with self._lock:
            options = self._login.options()
        try:
            return _open(options)
        except psycopg.OperationalError:
            with self._lock:
                renewed = self._login.renewed()
            if renewed == options:
                raise
        return _open(renewed)


def _open(options: dict[str, Any]) -> psycopg.Connection[Any]:
    # A pooler gives each transaction any of its connections, which know no statement of ours.
    # ``_begin`` begins the transactions: that of psycopg would be a round trip more.
    return psycopg.connect(**{**_OPTIONS, **options}, prepare_threshold=None, autocommit=True)
