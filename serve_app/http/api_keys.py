"""API keys: where they come from, and who is let in.

Several keys count at once, so that a new one can be given out before the old one is taken away.
Those of a file or of AWS Secrets Manager are read again from time to time, so that neither needs a
restart. What cannot be read then leaves the keys as they were: a secret store that is away must
not lock everybody out.
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
    """The keys that open the endpoint. Only their digests are kept. Belongs to one event loop."""

    def __init__(
        self, config: HttpConfig, aws: AwsConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the keys; blocks.

        Args:
            config: Says where they are.
            aws: How Secrets Manager is reached.
            clock: In seconds.

        Raises:
            InvalidConfig: There are none where there should be some.
        """
        self._config = config
        self._aws = aws
        self._clock = clock
        self._refreshing = asyncio.Lock()
        self._digests = _digests(read_keys(config, aws))
        self._read_at = clock()

    async def accept(self, presented: Iterable[str]) -> bool:
        """Return whether one of the presented keys is one of ours.

        The time that it takes does not depend on how much of a key is right.
        """
        await self._refresh()
        accepted = False
        for digest in _digests(presented):
            for known in self._digests:
                accepted |= hmac.compare_digest(digest, known)
        return accepted

    async def _refresh(self) -> None:
        fixed = self._config.api_keys_file is None and self._config.api_keys_secret is None
        if fixed or not self._is_old():
            return
        async with self._refreshing:
            if not self._is_old():
                return
            try:
                keys = await asyncio.to_thread(read_keys, self._config, self._aws)
            except InvalidConfig as error:
                _logger.error("the API keys stay as they were: %s", error.message)
            else:
                self._digests = _digests(keys)
            self._read_at = self._clock()

    def _is_old(self) -> bool:
        return self._clock() - self._read_at >= self._config.api_keys_refresh_s


def read_keys(config: HttpConfig, aws: AwsConfig) -> tuple[str, ...]:
    """Return the keys of all configured places; none where no place is configured. Blocks.

    Raises:
        InvalidConfig: A configured place has none, or cannot be read.
    """
    keys: list[str] = [key.get_secret_value() for key in config.api_keys or ()]
    if config.api_keys_file is not None:
        where = f"http.api_keys_file {config.api_keys_file}"
        try:
            text = config.api_keys_file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidConfig(f"{where} cannot be read: {error}") from error
        keys += _checked(_lines(text), where)
    if config.api_keys_secret is not None:
        where = f"http.api_keys_secret {config.api_keys_secret}"
        keys += _checked(_of_secret(config.api_keys_secret, aws, where), where)
    return tuple(keys)


def _digests(keys: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(hashlib.sha256(key.encode()).digest() for key in keys)


def _checked(keys: Iterable[str], where: str) -> tuple[str, ...]:
    try:
        return check_api_keys(keys, where)
    except ValueError as error:
        raise InvalidConfig(str(error)) from error


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        key = line.strip()
        if key and not key.startswith("#"):
            yield key


def _of_secret(name: str, aws: AwsConfig, where: str) -> list[str]:
    try:
        client = aws_client("secretsmanager", aws)
        text = client.get_secret_value(SecretId=name).get("SecretString", "")
    except (ClientError, BotoCoreError, ValueError) as error:
        raise InvalidConfig(f"{where} cannot be read: {error}") from error
    if not text.lstrip().startswith(("[", "{")):
        return list(_lines(text))
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError:
        # Not chained: the error's own text quotes the secret.
        raise InvalidConfig(f"{where} begins like JSON and is none") from None
    values = list(content.values()) if isinstance(content, dict) else content
    if not all(isinstance(value, str) for value in values):
        raise InvalidConfig(f"{where}: the values of its JSON must be texts")
    return values
