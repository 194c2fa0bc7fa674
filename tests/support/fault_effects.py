"""Effects of the proxy's rules on requests: the faults themselves."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil

from tests.support.fault_proxy import (
    SQS_TARGET,
    Answer,
    Effect,
    Forward,
    Request,
    identify,
    refusal,
)

_HOLD_S = 60.0


def refuse(status: int, code: str) -> Effect:
    """Answer with an error, without asking the server."""

    async def effect(request: Request, forward: Forward) -> Answer:
        return refusal(request, status, code)

    return effect


def late_refusal(status: int, code: str) -> Effect:
    """Forward the request, and then answer with an error."""

    async def effect(request: Request, forward: Forward) -> Answer:
        await forward(request)
        return refusal(request, status, code)

    return effect


def delay(seconds: float) -> Effect:
    """Wait before the request is forwarded."""

    async def effect(request: Request, forward: Forward) -> Answer:
        await asyncio.sleep(seconds)
        return await forward(request)

    return effect


def cut(*, after: bool = False) -> Effect:
    """Close the connection before a request is forwarded, or after it, which loses the answer."""

    async def effect(request: Request, forward: Forward) -> None:
        if after:
            await forward(request)

    return effect


def short(length: int) -> Effect:
    """Send the headers and the first bytes of the answer, and close the connection."""

    async def effect(request: Request, forward: Forward) -> Answer:
        answer = await forward(request)
        answer.cut_at = length
        return answer

    return effect


def fail_entries(
    chosen: Callable[[int, dict[str, Any]], bool], code: str, *, sender_fault: bool
) -> Effect:
    """Let some entries of a batch fail, and forward the others."""

    async def effect(request: Request, forward: Forward) -> Answer:
        content = request.content
        entries = list(enumerate(content["Entries"]))
        failing = [entry for index, entry in entries if chosen(index, entry)]
        content["Entries"] = [entry for index, entry in entries if not chosen(index, entry)]
        answer = Answer(200, {"content-type": "application/x-amz-json-1.0"}, b"{}")
        if content["Entries"]:
            request.body = json.dumps(content).encode()
            answer = await forward(request)
        report = json.loads(answer.body)
        report.setdefault("Failed", []).extend(
            {"Id": entry["Id"], "Code": code, "Message": "fault", "SenderFault": sender_fault}
            for entry in failing
        )
        answer.body = json.dumps(report).encode()
        return answer

    return effect


def deliver_twice() -> Effect:
    """Deliver messages, and let SQS deliver them again at once, which it may do."""

    async def effect(request: Request, forward: Forward) -> Answer:
        answer = await forward(request)
        for message in json.loads(answer.body).get("Messages", []):
            shown = {
                "QueueUrl": request.content["QueueUrl"],
                "ReceiptHandle": message["ReceiptHandle"],
                "VisibilityTimeout": 0,
            }
            headers = {**request.headers, "x-amz-target": f"{SQS_TARGET}ChangeMessageVisibility"}
            again = Request("POST", request.target, headers, json.dumps(shown).encode())
            again.action, again.name = identify(again)
            await forward(again)
        return answer

    return effect


def kill_caller(*, after: bool = False) -> Effect:
    """Kill the calling process with SIGKILL, before its request is forwarded or after."""

    async def effect(request: Request, forward: Forward) -> None:
        if after:
            await forward(request)
        await asyncio.to_thread(_kill_peer, request.ports)

    return effect


def _kill_peer(ports: tuple[int, int]) -> None:
    for connection in psutil.net_connections("tcp"):
        # Both ends are compared, since another connection may have the same local port.
        ends = tuple(end.port for end in (connection.laddr, connection.raddr) if end)
        if ends == ports and connection.pid:
            assert connection.pid != os.getpid(), "the test would kill itself"
            os.kill(connection.pid, signal.SIGKILL)


@dataclass(slots=True)
class Hold:
    """An effect that holds requests until ``let_go``, before they are forwarded or after."""

    after: bool = False
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    dropped: bool = False

    async def __call__(self, request: Request, forward: Forward) -> Answer | None:
        answer = await forward(request) if self.after else None
        self.reached.set()
        async with asyncio.timeout(_HOLD_S):
            while not self.released.is_set():  # noqa: ASYNC110 - set from another thread
                await asyncio.sleep(0.02)
        return None if self.dropped else answer or await forward(request)

    async def until_reached(self, timeout_s: float = 30) -> None:
        assert await asyncio.to_thread(self.reached.wait, timeout_s), "the request never came"

    def let_go(self) -> None:
        self.released.set()

    def drop(self) -> None:
        """Close the connections of the held requests, which are not forwarded any more."""
        self.dropped = True
        self.released.set()
