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
from sqlalchemy import Connection, Row, Select, create_engine, func, select, text
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
_LOCAL_SETTINGS = text(
    "SELECT set_config('statement_timeout', :statement, true), "
    "set_config('lock_timeout', :lock, true), "
    "set_config('idle_in_transaction_session_timeout', :idle, true)"
).bindparams(
    statement=f"{_STATEMENT_TIMEOUT_S}s",
    lock=f"{_LOCK_TIMEOUT_S * 1000:.0f}ms",
    idle=f"{_IDLE_TIMEOUT_S}s",
)
"""The same as three SET LOCAL, in one round trip."""
_HELD_LOCK_TIMEOUT_S = 60
_LOCK_SETTINGS = text(
    "SELECT set_config('idle_in_transaction_session_timeout', :idle, true)"
).bindparams(idle=f"{_HELD_LOCK_TIMEOUT_S}s")
_STREAM_ROWS = 1_000
"""Number of rows that a server-side cursor hands over at a time."""
_STREAM_TIMEOUT_S = 600
"""Longest time, in seconds, that a stream may take until its first rows, and that whoever reads it
may take for some of them."""
_STREAM_SETTINGS = text(
    "SELECT set_config('transaction_read_only', 'on', true), "
    "set_config('statement_timeout', :limit, true), "
    "set_config('idle_in_transaction_session_timeout', :limit, true)"
).bindparams(limit=f"{_STREAM_TIMEOUT_S}s")


class RowsChanged(TryAgain):
    """Rows changed between two statements of a transaction, which begins again."""

    def __init__(self, message: str) -> None:
        """Create the signal from the text of the error if it happens again and again."""
        super().__init__(DatabaseUnavailable(f"catalog: {message}"), contended=True)


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
            isolation_level="READ COMMITTED",
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=_STATEMENT_TIMEOUT_S,
            pool_pre_ping=True,
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
        with self._mapped(), self._engine.begin() as connection:
            connection.execute(_LOCAL_SETTINGS)
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
        with self._mapped(), self._engine.begin() as connection:
            connection.execute(_LOCK_SETTINGS)
            taken = connection.scalar(select(func.pg_try_advisory_xact_lock(number)))
            yield (lambda: connection.execute(_LOCK_SETTINGS)) if taken else None

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
            with self._mapped(), self._engine.begin() as connection:
                connection.execute(_STREAM_SETTINGS)
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
    return psycopg.connect(**{**_OPTIONS, **options}, prepare_threshold=None)
