"""The login to the application's database: a URL, or a secret that is rotated."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import orjson
from botocore.exceptions import BotoCoreError, ClientError
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from serve_app.aws import aws_client
from serve_app.config import AwsConfig, CatalogConfig
from serve_app.errors import DatabaseUnavailable, InvalidConfig

_LEAST_AGE_S = 5.0
"""Time, in seconds, for which a secret is not read again. Without it, an outage of the database
would cost a request to Secrets Manager for each attempt of each thread."""
_FIELDS = {
    "username": "user",
    "password": "password",
    "host": "host",
    "port": "port",
    "dbname": "dbname",
}
"""Names of libpq's options, by the names in secrets of RDS."""


class Login:
    """The options of a connection."""

    def __init__(
        self,
        config: CatalogConfig,
        aws: AwsConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read nothing yet.

        Args:
            config: Settings with the URL or the name of the secret.
            aws: Settings of the connection to Secrets Manager.
            clock: Function that returns seconds and never goes back.
        """
        self._clock = clock
        self._config = config
        self._aws = aws
        self._options: dict[str, Any] | None = None
        self._read_at = 0.0

    def options(self) -> dict[str, Any]:
        """Return the options of libpq, reading the secret if that was not done yet.

        Raises:
            DatabaseUnavailable: The secret cannot be read.
            InvalidConfig: The secret does not say where the database is.
        """
        if self._options is None:
            self._options = self._read()
            self._read_at = self._clock()
        return self._options

    def renewed(self) -> dict[str, Any]:
        """Return the options of libpq after a failed connection, reading the secret again.

        Raises:
            DatabaseUnavailable: The secret cannot be read.
            InvalidConfig: The secret does not say where the database is.
        """
        if self._clock() >= self._read_at + _LEAST_AGE_S:
            self._options = None
        return self.options()

    def _read(self) -> dict[str, Any]:
        if self._config.database_url is not None:
            return read_url(self._config.database_url.get_secret_value())
        name = str(self._config.database_secret)
        try:
            client = aws_client("secretsmanager", self._aws)
            text = client.get_secret_value(SecretId=name).get("SecretString", "")
        except (ClientError, BotoCoreError) as error:
            raise DatabaseUnavailable(
                f"catalog.database_secret {name} cannot be read: {error}"
            ) from error
        return read_secret(text, name)


def read_url(url: str) -> dict[str, Any]:
    """Return the options of libpq that a URL holds, as libpq itself reads them.

    Raises:
        InvalidConfig: libpq does not read the URL, or reads a part of the password as the host.
            The text quotes nothing of it.
    """
    try:
        options = conninfo_to_dict(url)
    except ProgrammingError:
        options = {}
    ports = str(options.get("port", "5432")).split(",")
    # An @ that is not quoted lets the rest of the password be read as the host or the name.
    misread = any("@" in str(options.get(name, "")) for name in ("host", "dbname"))
    if not options or misread or not all(port.isdecimal() for port in ports):
        # Not chained, because the message of the original error quotes the URL.
        raise InvalidConfig(
            "catalog.database_url cannot be read. Write postgresql://USER:PASSWORD@HOST:PORT/NAME, "
            "with %40 for @, %2F for /, %3A for : and %25 for % in the password"
        ) from None
    return options


def read_secret(text: str, name: str) -> dict[str, Any]:
    """Return the options of libpq that a secret holds.

    Args:
        text: The secret: JSON with ``username``, ``password``, ``host``, ``port`` and ``dbname``
            or ``database``.
        name: Name of the secret, for the error.

    Raises:
        InvalidConfig: Something is missing. The text names it, and quotes no value.
    """
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        # Not chained, because the message of the original error quotes the secret.
        raise InvalidConfig(f"catalog.database_secret {name} is not a JSON object") from None
    if "dbname" not in content and "database" in content:
        content["dbname"] = content["database"]
    missing = [field for field in _FIELDS if field != "port" and not content.get(field)]
    if missing:
        raise InvalidConfig(f"catalog.database_secret {name} lacks {', '.join(missing)}")
    return {option: content[field] for field, option in _FIELDS.items() if content.get(field)}
