"""Settings of the HTTP endpoint, and the check of its API keys."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, IPvAnyNetwork, SecretStr, model_validator
from pydantic_settings import NoDecode

from serve_app.config.section import (
    NonEmpty,
    NotNegative,
    Positive,
    Seconds,
    Section,
    WrittenAsText,
    split_list,
)

_HOST = r"^(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?$"


_ORIGIN = r"^(\*|https?://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?)$"


def check_api_keys(keys: Iterable[str], origin: str) -> tuple[str, ...]:
    """Return the API keys if there are any and an HTTP header can carry each.

    Args:
        keys: The keys.
        origin: The setting, file or secret that holds the keys, for error messages. (The messages
            never contain the keys themselves.)

    Raises:
        ValueError: There is no key, or a key is empty or contains characters other than printable
            ASCII.
    """
    found = tuple(keys)
    if not found or not all(found):
        raise ValueError(
            f"{origin} must contain at least one key, and no empty one: add a key, or remove the "
            "setting"
        )
    if not all(key.isascii() and key.isprintable() and " " not in key for key in found):
        raise ValueError(f"{origin}: a key may contain only visible ASCII characters")
    return found


def _split_keys(value: object) -> object:
    """Return a list of keys for one that is written as a text or as a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        # A key of digits alone is a number in JSON and in YAML.
        value = str(value)
    return split_list(value)


class HttpConfig(Section):
    """HttpApi, the HTTP endpoint."""

    replicas: Positive = 1
    """Number of replicas, or their minimum number with ``autoscaling``."""
    num_cpus: NotNegative = 0.1
    """CPU cores that Ray reserves for each replica."""
    max_concurrent: Positive = 64
    """Number of images that one replica may have in the pipeline at the same time. It answers
    further requests with 503 at once."""
    max_uploads: Positive = 256
    """Number of requests whose body one replica reads at the same time. It answers further requests
    with 503 at once. These requests do not count for ``max_concurrent``, so that clients that send
    slowly do not keep others from being served."""
    max_buffered_bytes: Positive = 256 * 1024 * 1024
    """Total size, in bytes, of the images that one replica holds. It answers further requests with
    503."""
    request_timeout_s: Seconds = 60
    """Time, in seconds, from the first byte of a request to its answer. With the header
    ``x-request-timeout-seconds`` a client may ask for less, but not for more."""
    api_keys: Annotated[tuple[SecretStr, ...] | None, NoDecode, BeforeValidator(_split_keys)] = None
    """API keys that the endpoint accepts: one, or a list, or a text with commas between them. A key
    may have a name, written ``name:key``, which stands for it in logs and in
    ``requests_per_minute``.
    Without ``api_keys``, ``api_keys_file`` and ``api_keys_secret``, the endpoint is open to
    everybody who can reach its port."""
    api_keys_file: Path | None = None
    """File with an API key in each line. Lines that begin with ``#`` are comments."""
    api_keys_secret: NonEmpty | None = None
    """Name or ARN of a secret in AWS Secrets Manager with the API keys: lines as in
    ``api_keys_file``, or a JSON list or object whose values are the keys."""
    api_keys_refresh_s: Seconds = 60
    """Age, in seconds, at which the keys of the file and of the secret are read again."""

    requests_per_minute: dict[str, Positive] = Field(default={})
    """Requests per minute by the name of an API key, in each replica. ``*`` stands for every key
    that is not named here. A key may send the requests of one minute at once. Those over its limit
    are answered with 429."""

    cors_origins: Annotated[
        tuple[Annotated[str, Field(pattern=_ORIGIN)], ...], NoDecode, WrittenAsText
    ] = ()
    """Origins whose web pages may call ``/v1/cutout`` and ``/v1/models``, such as
    ``https://shop.example``. ``*`` stands for every origin. If empty, only pages of this server
    may. (``POST /api/remove`` is open to every origin, as rembg's server is.)"""

    fetch_hosts: Annotated[
        tuple[Annotated[str, Field(pattern=_HOST)], ...], NoDecode, WrittenAsText
    ] = ()
    """Hosts that ``GET /api/remove?url=`` may fetch images from, in lower case. ``*.example.com``
    allows every name below ``example.com``. ``:PORT`` allows that port instead of the default ports
    of HTTP and HTTPS. If empty, no image is fetched."""
    fetch_networks: Annotated[tuple[IPvAnyNetwork, ...], NoDecode, WrittenAsText] = ()
    """Private networks in which the hosts of ``fetch_hosts`` may be, such as ``10.1.0.0/16``."""
    fetch_timeout_s: Seconds = 10
    """Time, in seconds, within which one image must be fetched, including its redirects."""

    @model_validator(mode="after")
    def _check_api_keys(self) -> Self:
        if self.api_keys is not None:
            check_api_keys((key.get_secret_value() for key in self.api_keys), "http.api_keys")
        if self.api_keys_file is not None and not self.api_keys_file.name:
            raise ValueError("http.api_keys_file must not be empty")
        if self.requests_per_minute and not self.authenticates:
            raise ValueError(
                "http.requests_per_minute limits API keys, and none are configured. Set "
                "http.api_keys, http.api_keys_file or http.api_keys_secret."
            )
        return self

    @property
    def authenticates(self) -> bool:
        """Whether requests need an API key."""
        return any(
            source is not None
            for source in (self.api_keys, self.api_keys_file, self.api_keys_secret)
        )
