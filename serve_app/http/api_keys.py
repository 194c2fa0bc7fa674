"""API keys: reading them from the configured sources, and checking those that clients present.

Several keys are valid at once, so that a new key can be distributed before the old one is removed.
Keys from a file or from AWS Secrets Manager are read again periodically, so that a rotation needs
no restart. If that fails or takes long, the previous keys stay valid: an unavailable secret store
must not lock every client out.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import orjson
from botocore.exceptions import BotoCoreError, ClientError

from serve_app.aws import aws_client
from serve_app.config import AwsConfig, HttpConfig, check_api_keys
from serve_app.errors import InvalidConfig
from serve_app.http.admission import RequestRate

_logger = logging.getLogger(__name__)


_NAMED = re.compile(r"([A-Za-z0-9_.-]{1,64}):(.+)")
_OTHERS = "*"
"""Name in ``http.requests_per_minute`` of all keys that are not named there."""
_READ_AGAIN_S = 2.0
"""Seconds that requests wait for the keys to be read again. After that the previous keys decide
until they are read."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A valid API key, without the key itself."""

    name: str | None
    """Name of the key, for logs. None if it has none."""
    digest: bytes
    """SHA-256 of the key."""

    @property
    def owner(self) -> str | bytes:
        """What its requests are counted for. Keys of one name count together."""
        return self.name or self.digest


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
            InvalidConfig: A configured source has no keys, or cannot be read, or a limit names a
                key that does not exist.
        """
        self._config = config
        self._aws = aws
        self._clock = clock
        self._refresh: asyncio.Task[None] | None = None
        self._patience_ends = 0.0
        self._keys = _known_keys(read_api_keys(config, aws))
        self._read_at = clock()
        self._rates: dict[str | bytes, RequestRate] = {}
        unknown = set(config.requests_per_minute) - {_OTHERS, *(key.name for key in self._keys)}
        if unknown:
            raise InvalidConfig(
                f"http.requests_per_minute names {', '.join(sorted(unknown))}, and no API key has "
                "that name. Write the key as name:key, or correct the name."
            )

    async def accept(self, presented: Iterable[str]) -> ApiKey | None:
        """Return the presented key that is valid, or None.

        The time that this takes does not depend on how much of a key is right.
        """
        await self._read_again_if_stale()
        accepted: ApiKey | None = None
        for digest in map(_digest, presented):
            for known in self._keys:
                if hmac.compare_digest(digest, known.digest):
                    accepted = known
        return accepted

    def count_request(self, key: ApiKey) -> None:
        """Count a request with a valid key.

        Raises:
            RateLimited: The key has sent more requests than it may.
        """
        limits = self._config.requests_per_minute
        per_minute = limits.get(key.name or _OTHERS, limits.get(_OTHERS))
        if per_minute is None:
            return
        if key.owner not in self._rates:
            whose = f"The API key {key.name!r}" if key.name else "This API key"
            self._rates[key.owner] = RequestRate(per_minute, whose, self._clock)
        self._rates[key.owner].take()

    async def _read_again_if_stale(self) -> None:
        fixed = self._config.api_keys_file is None and self._config.api_keys_secret is None
        if fixed or self._clock() - self._read_at < self._config.api_keys_refresh_s:
            return
        now = asyncio.get_running_loop().time()
        if self._refresh is None or self._refresh.done():
            self._refresh = asyncio.create_task(self._read_again())
            self._patience_ends = now + _READ_AGAIN_S
        if now < self._patience_ends:
            # A request that ends does not end the read, which others wait for.
            await asyncio.wait({self._refresh}, timeout=self._patience_ends - now)

    async def _read_again(self) -> None:
        try:
            keys = await asyncio.to_thread(read_api_keys, self._config, self._aws)
        except InvalidConfig as error:
            _logger.error(
                "The API keys could not be read again; the previous keys stay valid: %s",
                error.message,
            )
        else:
            self._keys = _known_keys(keys)
        self._read_at = self._clock()


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


def _known_keys(entries: Iterable[str]) -> tuple[ApiKey, ...]:
    """Return the keys of the entries ``key`` or ``name:key``.

    An entry with a name is valid as a whole, too: before keys had names, it was the key.
    """
    found = []
    for entry in entries:
        named = _NAMED.fullmatch(entry)
        name = named[1] if named else None
        found.append(ApiKey(name, _digest(entry)))
        if named:
            found.append(ApiKey(name, _digest(named[2])))
    return tuple(found)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


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
