"""A PgBouncer of its own for the tests, which pools transactions before a Postgres server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

from ingest.local.ports import free_port
from ingest.local.processes import die_with_parent
from tests.support.postgres_server import (
    PASSWORD,
    QUOTED_PASSWORD,
    PostgresServer,
    plain_user,
    wait_until_it_connects,
)

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
"""Path of the program. None if it is not installed."""
_USER = "postgres"


class PgBouncer:
    """A context manager that runs a pooler."""

    def __init__(self, server: PostgresServer, connections: int) -> None:
        """Start nothing yet.

        Args:
            server: Server whose connections are pooled.
            connections: Number of connections to each database of the server.
        """
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="foreedge-pgbouncer-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._plain_user = plain_user(self._folder)
        # Its passwords are those of the server, to which it logs in with them.
        (self._folder / "users").write_text(f'"{_USER}" "{PASSWORD}"\n')
        (self._folder / "ini").write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\n"
            f"unix_socket_dir =\npool_mode = transaction\ndefault_pool_size = {connections}\n"
            f"auth_type = scram-sha-256\nauth_file = {self._folder / 'users'}\n"
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def url(self, database: str) -> str:
        """Return the URL of a database behind the pooler."""
        return f"postgresql://{_USER}:{QUOTED_PASSWORD}@127.0.0.1:{self.port}/{database}"

    def log(self) -> str:
        """Return the pooler's log."""
        return (self._folder / "log").read_text("utf-8", "replace")

    def start(self) -> None:
        """Start the pooler, and wait until it takes connections."""
        assert PROGRAM is not None
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [PROGRAM, str(self._folder / "ini")], stdout=log, stderr=log, cwd=self._folder,
                # In its own group, so that Ctrl-C reaches only this process, which ends the pooler.
                start_new_session=True,
                preexec_fn=die_with_parent if sys.platform == "linux" else None,
                **self._plain_user,
            )  # fmt: skip
        wait_until_it_connects(self.url("postgres"), self._process, self.log)

    def stop(self) -> None:
        """Stop the pooler at once, which ends its connections."""
        if self._process is not None:
            # Since its version 1.23 a pooler that is terminated waits until its clients have gone.
            self._process.kill()
            self._process.wait(30)
            self._process = None
