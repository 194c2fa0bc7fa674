"""API keys: reading them from the configured sources, and checking those that clients present.

Several keys are valid at once, so that a new key can be distributed before the old one is removed.
Keys from a file or from AWS Secrets Manager are read again periodically, so that a rotation needs
no restart. If that fails, the previous keys stay valid: an unavailable secret store must not lock
every client out.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Callable, Iterable, Iterator

import orjson
from botocore.exceptions import BotoCoreError, ClientError

from serve_app.aws import aws_client
from serve_app.config import AwsConfig, HttpConfig, check_api_keys
from serve_app.errors import InvalidConfig

_logger = logging.getLogger(__name__)


class ApiKeys:
    """The valid API keys, stored as digests only. Belongs to one event loop."""

    def __init__(
        self, config: HttpConfig, aws: AwsConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the keys. This call blocks.

        Args:
            config: Settings that name the sources of the keys.
            aws: Settings for the connection to Secrets Manager.
            clock: Function that returns the time in seconds.

        Raises:
            InvalidConfig: A configured source has no keys, or cannot be read.
        """
        self._config = config
        self._aws = aws
        self._clock = clock
        self._refreshing = asyncio.Lock()
        self._digests = _digests(read_api_keys(config, aws))
        self._read_at = clock()

    async def accept(self, presented: Iterable[str]) -> bool:
        """Return whether one of the presented keys is valid.

        The time that this takes does not depend on how much of a key is right.
        """
        await self._refresh()
        accepted = False
        for digest in _digests(presented):
            for known in self._digests:
                accepted |= hmac.compare_digest(digest, known)
        return accepted

    async def _refresh(self) -> None:
        fixed = self._config.api_keys_file is None and self._config.api_keys_secret is None
        if fixed or not self._is_stale():
            return
        async with self._refreshing:
            if not self._is_stale():
                return
            try:
                keys = await asyncio.to_thread(read_api_keys, self._config, self._aws)
            except InvalidConfig as error:
                _logger.error(
                    "The API keys could not be read again; the previous keys stay valid: %s",
                    error.message,
                )
            else:
                self._digests = _digests(keys)
            self._read_at = self._clock()

    def _is_stale(self) -> bool:
        return self._clock() - self._read_at >= self._config.api_keys_refresh_s


def read_api_keys(config: HttpConfig, aws: AwsConfig) -> tuple[str, ...]:
    """Return the keys of all configured sources. This call blocks.

    Without a configured source there are no keys, and the result is empty.

    Raises:
        InvalidConfig: A configured source has no keys, or cannot be read.
    """
    keys: list[str] = [key.get_secret_value() for key in config.api_keys or ()]
    if config.api_keys_file is not None:
        source = f"http.api_keys_file {config.api_keys_file}"
        try:
            text = config.api_keys_file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidConfig(f"{source} cannot be read: {error}") from error
        keys += _checked_keys(_keys_in_lines(text), source)
    if config.api_keys_secret is not None:
        source = f"http.api_keys_secret {config.api_keys_secret}"
        keys += _checked_keys(_keys_in_secret(config.api_keys_secret, aws, source), source)
    return tuple(keys)


def _digests(keys: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(hashlib.sha256(key.encode()).digest() for key in keys)


def _checked_keys(keys: Iterable[str], source: str) -> tuple[str, ...]:
    try:
        return check_api_keys(keys, source)
    except ValueError as error:
        raise InvalidConfig(str(error)) from error


def _keys_in_lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        key = line.strip()
        if key and not key.startswith("#"):
            yield key


def _keys_in_secret(name: str, aws: AwsConfig, source: str) -> list[str]:
    try:
        client = aws_client("secretsmanager", aws)
        text = client.get_secret_value(SecretId=name).get("SecretString", "")
    except (ClientError, BotoCoreError, ValueError) as error:
        raise InvalidConfig(f"{source} cannot be read: {error}") from error
    if not text.lstrip().startswith(("[", "{")):
        return list(_keys_in_lines(text))
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError:
        # Not chained, because the message of the original error quotes the secret.
        raise InvalidConfig(
            f"{source} starts like JSON but is not valid JSON. Store a JSON array or object of "
            "strings, or one key per line."
        ) from None
    values = list(content.values()) if isinstance(content, dict) else content
    if not all(isinstance(value, str) for value in values):
        raise InvalidConfig(
            f"{source} has JSON values that are not strings. Every key must be a string."
        )
    return values
