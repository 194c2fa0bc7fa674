"""A client of ``POST /v1/cutout`` that waits while a server is busy or restarts."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import orjson
import urllib3

from serve_app.errors import (
    BY_CODE,
    ForeedgeError,
    ImageTooLarge,
    InvalidConfig,
    LimitReached,
    RateLimited,
    ReplicaLost,
    TransientError,
    Unauthenticated,
)

PATIENCE_S = 120.0
"""Time, in seconds, for which an image that a server does not take is sent again."""

ANSWER_S = 150.0
"""Time, in seconds, after which a connection that brings no answer is given up."""

_CONNECT_S = 10
_OK = 200
_REQUEST_TIMEOUT = 408
_CONTENT_TOO_LARGE = 413
_TOO_MANY_REQUESTS = 429
_FIRST_SERVER_ERROR = 500
_PAUSE_S = 2.0
"""Time between two attempts, in seconds, if the server names none."""
_MAX_PAUSE_S = 60.0


class _Later(NamedTuple):
    """The reason to send an image again, and the time to wait before, in seconds."""

    error: TransientError
    pause_s: float


class CutoutClient:
    """Sends images to one server with one recipe. Threads may share it.

    A proxy that the environment names is not used: it could not reach a server on this machine.
    """

    def __init__(
        self,
        url: str,
        recipe: str,
        *,
        api_key: str | None = None,
        connections: int = 1,
        patience_s: float = PATIENCE_S,
        answer_s: float = ANSWER_S,
    ) -> None:
        """Create the client. Nothing is sent yet.

        Args:
            url: Address of the server, without a path of its own API.
            recipe: Name of a preset, or a JSON object of recipe fields.
            api_key: Key that the server asks for.
            connections: Number of threads that use the client.
            patience_s: Time, in seconds, for which an image is sent again.
            answer_s: Time, in seconds, for which an answer is awaited.
        """
        self._server = url.rstrip("/")
        self._url = f"{self._server}/v1/cutout?{urlencode({'recipe': recipe})}"
        self._headers = {"Content-Type": "application/octet-stream"}
        if api_key is not None:
            self._headers["X-API-Key"] = api_key
        timeout = urllib3.Timeout(connect=_CONNECT_S, read=answer_s)
        self._pool = urllib3.PoolManager(maxsize=connections, retries=False, timeout=timeout)
        self._patience_s = patience_s
        self._stopped = threading.Event()
        self.answered_at = -math.inf
        """Time of ``time.monotonic`` at which the server has judged an image last, in seconds."""
        self._unanswered = 0
        self._lock = threading.Lock()

    def check(self) -> None:
        """Check that a server answers and admits this client. Blocks.

        Raises:
            InvalidConfig: There is no such server.
            Unauthenticated: The server asks for another API key.
        """
        try:
            answer = self._pool.request("GET", f"{self._server}/v1/models", headers=self._headers)
        except (urllib3.exceptions.HTTPError, UnicodeError) as error:
            raise InvalidConfig(
                f"no server answers at {self._server}: {error}. Start one with 'foreedge serve', "
                "or give the address of another one (--url)"
            ) from error
        if answer.status != _OK:
            found = self._error_of(answer)
            # A server that starts is waited for with the first image.
            if not isinstance(found, TransientError):
                raise found

    def answers(self) -> bool:
        """Return whether the server still answers, as it does next to an image that it loses.

        Blocks for as long as a replica takes to start. False once the client is stopped.
        """
        if self._stopped.is_set():
            return False
        try:
            answer = self._pool.request("GET", f"{self._server}/v1/models", headers=self._headers)
        except urllib3.exceptions.HTTPError:
            return False
        return answer.status == _OK

    def cut_out(self, path: Path) -> bytes:
        """Return the result of an image file. Blocks.

        Raises:
            TransientError: The server does not take the image, or does not answer.
            ForeedgeError: The server refuses the image or the request.
            OSError: The file cannot be read.
        """
        refused_at: float | None = None
        while isinstance(found := self._attempt(path), _Later):
            # The time of the first attempt is not counted: a connection may hang for longer.
            refused_at = refused_at or time.monotonic()
            # A server that is busy with other images takes this one in the end.
            busy = isinstance(found.error, LimitReached)
            since = max(refused_at, self.answered_at) if busy else refused_at
            if time.monotonic() + found.pause_s > since + self._patience_s:
                raise found.error
            if self._stopped.wait(found.pause_s):
                raise found.error
        return found

    def stop(self) -> int:
        """Send no image again from now on, and return how many are sent and not answered yet."""
        with self._lock:
            self._stopped.set()
            return self._unanswered

    def _attempt(self, path: Path) -> bytes | _Later:
        with path.open("rb") as body:
            size = os.fstat(body.fileno()).st_size
            headers = {**self._headers, "Content-Length": str(size)}
            try:
                with self._counted():
                    answer = self._pool.request("POST", self._url, body=body, headers=headers)
            except urllib3.exceptions.HTTPError as error:
                lost = ReplicaLost(f"The server at {self._server} did not answer: {error}")
                return _Later(lost, _PAUSE_S)
        if answer.status == _OK:
            self.answered_at = time.monotonic()
            return answer.data
        found = self._error_of(answer)
        if isinstance(found, TransientError):
            return _Later(found, _pause_s(answer.headers.get("Retry-After", "")))
        self.answered_at = time.monotonic()
        raise found

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._unanswered += 1
        try:
            yield
        finally:
            with self._lock:
                self._unanswered -= 1

    def _error_of(self, answer: urllib3.BaseHTTPResponse) -> ForeedgeError:
        """Return the error that an answer describes."""
        try:
            problem = orjson.loads(answer.data)
            kind, detail = BY_CODE[problem["code"]], str(problem["detail"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return self._error_of_proxy(answer.status)
        if kind is Unauthenticated:
            detail = f"{detail} Give a file with the key: --api-key-file"
        return kind(detail)

    def _error_of_proxy(self, status: int) -> ForeedgeError:
        """Return the error that a status stands for, in an answer that Foreedge has not written."""
        text = f"{self._server} answered with status {status}"
        if status == _CONTENT_TOO_LARGE:
            return ImageTooLarge(
                f"{text}: a proxy in front of the server takes no such large file."
            )
        if status == _TOO_MANY_REQUESTS:
            return RateLimited(f"{text}: a proxy in front of the server limits the requests.")
        if status == _REQUEST_TIMEOUT or status >= _FIRST_SERVER_ERROR:
            # 500 is what HAProxy answers for a replica that has ended.
            return ReplicaLost(f"{text}.")
        return InvalidConfig(
            f"{self._server} is no server of Foreedge, or of another version: it answered with "
            f"status {status}. Give another --url"
        )


def _pause_s(retry_after: str) -> float:
    """Return the time to wait that a server asks for, in seconds."""
    return min(float(retry_after), _MAX_PAUSE_S) if retry_after.isdecimal() else _PAUSE_S
