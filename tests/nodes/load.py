"""A steady load over HTTP, through a balancer that asks each machine whether it is healthy."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx

from tests.nodes.cluster import SERVE_PORT

_TIMEOUT_S = 60.0
_CHECK_EVERY_S = 1.0
_CHECK_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Request:
    """One request of the load.

    Attributes:
        sent_at: Time at which it was sent, by the monotonic clock.
        took_s: Time, in seconds, until its end.
        address: Address of the machine that it was sent to. Empty if none was healthy.
        result: Status of the answer, with the code of the problem if it has one, or the name of the
            error without an answer.
    """

    sent_at: float
    took_s: float
    address: str
    result: int | str

    @property
    def ended_at(self) -> float:
        return self.sent_at + self.took_s

    @property
    def good(self) -> bool:
        return self.result == 200


class SteadyLoad:
    """Sends an image several times a second until the context ends.

    The balancer in front of the machines asks each of them for ``/-/healthz`` every second. It
    leaves out a machine after one wrong answer and takes it back after one right answer. It
    repeats nothing.
    """

    def __init__(
        self, image: bytes, addresses: Callable[[], Sequence[str]], per_second: float
    ) -> None:
        """Describe the load.

        Args:
            image: Image of each request.
            addresses: Function that returns the addresses of the machines behind the balancer.
            per_second: Number of requests a second.
        """
        self.requests: list[Request] = []
        self._image = image
        self._addresses = addresses
        self._period_s = 1 / per_second
        self._healthy: set[str] = set()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending.set()
        self._thread.join()

    def ended(self, since: float) -> list[Request]:
        """Return the requests that ended after a time, those that were on their way included."""
        return [one for one in self.requests if one.ended_at >= since]

    async def _run(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        async with (
            httpx.AsyncClient(timeout=_TIMEOUT_S, limits=limits, trust_env=False) as client,
            asyncio.TaskGroup() as tasks,
        ):
            await self._check_all(client)
            checking = tasks.create_task(self._keep_checking())
            started = time.monotonic()
            for number in itertools.count(1):
                tasks.create_task(self._send(client, number))
                # What an answer takes does not lower the rate.
                await asyncio.sleep(max(0, started + number * self._period_s - time.monotonic()))
                if self._ending.is_set():
                    break
            checking.cancel()

    async def _send(self, client: httpx.AsyncClient, number: int) -> None:
        healthy = sorted(self._healthy)
        address = healthy[number % len(healthy)] if healthy else ""
        sent_at = time.monotonic()
        result: int | str = "no healthy machine"
        if address:
            url = f"http://{address}:{SERVE_PORT}/v1/cutout"
            try:
                result = _described(await client.post(url, content=self._image))
            except httpx.TransportError as error:
                result = type(error).__name__
        self.requests.append(Request(sent_at, time.monotonic() - sent_at, address, result))

    async def _keep_checking(self) -> None:
        # Connections of its own, as a balancer's checks have.
        async with httpx.AsyncClient(trust_env=False) as client:
            while True:
                await asyncio.sleep(_CHECK_EVERY_S)
                await self._check_all(client)

    async def _check_all(self, client: httpx.AsyncClient) -> None:
        addresses = self._addresses()
        await asyncio.gather(*(self._check(client, one) for one in addresses))
        self._healthy &= set(addresses)

    async def _check(self, client: httpx.AsyncClient, address: str) -> None:
        try:
            url = f"http://{address}:{SERVE_PORT}/-/healthz"
            answer = await client.get(url, timeout=_CHECK_TIMEOUT_S)
        except httpx.TransportError:
            self._healthy.discard(address)
            return
        if answer.status_code == 200:
            self._healthy.add(address)
        else:
            self._healthy.discard(address)


def _described(answer: httpx.Response) -> int | str:
    if answer.headers.get("content-type") != "application/problem+json":
        return answer.status_code
    return f"{answer.status_code} {answer.json()['code']}"
