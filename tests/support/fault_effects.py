"""What a rule of the proxy does with a request: the faults themselves."""

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
    """Answer with an error; nothing reaches the server."""

    async def effect(request: Request, forward: Forward) -> Answer:
        return refusal(request, status, code)

    return effect


def late_refusal(status: int, code: str) -> Effect:
    """Do what was asked for, and answer with an error."""

    async def effect(request: Request, forward: Forward) -> Answer:
        await forward(request)
        return refusal(request, status, code)

    return effect


def delay(seconds: float) -> Effect:
    """Wait, then pass on."""

    async def effect(request: Request, forward: Forward) -> Answer:
        await asyncio.sleep(seconds)
        return await forward(request)

    return effect


def cut(*, after: bool = False) -> Effect:
    """Close the connection: before anything is done, or after it, so that the answer is lost."""

    async def effect(request: Request, forward: Forward) -> None:
        if after:
            await forward(request)

    return effect


def short(length: int) -> Effect:
    """Send the head of an answer and the beginning of its body, and close the connection."""

    async def effect(request: Request, forward: Forward) -> Answer:
        answer = await forward(request)
        answer.cut_at = length
        return answer

    return effect


def fail_entries(
    chosen: Callable[[int, dict[str, Any]], bool], code: str, *, sender_fault: bool
) -> Effect:
    """Let some entries of a batch fail; the others are done."""

    async def effect(request: Request, forward: Forward) -> Answer:
        content = request.content
        entries = list(enumerate(content["Entries"]))
        failing = [entry for index, entry in entries if chosen(index, entry)]
        content["Entries"] = [entry for index, entry in entries if not chosen(index, entry)]
        answer = Answer(200, {"content-type": "application/x-amz-json-1.0"}, b"{}")
        if content["Entries"]:
            request.body = json.dumps(content).encode()
            answer = await forward(request)
        told = json.loads(answer.body)
        told.setdefault("Failed", []).extend(
            {"Id": entry["Id"], "Code": code, "Message": "fault", "SenderFault": sender_fault}
            for entry in failing
        )
        answer.body = json.dumps(told).encode()
        return answer

    return effect


def deliver_twice() -> Effect:
    """Hand messages out and let SQS hand them out again at once, which it may."""

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
    """Kill the process that asks, as a lack of memory does: before it is served, or after."""

    async def effect(request: Request, forward: Forward) -> None:
        if after:
            await forward(request)
        await asyncio.to_thread(_kill_peer, request.ports)

    return effect


def _kill_peer(ports: tuple[int, int]) -> None:
    for connection in psutil.net_connections("tcp"):
        # Both ends: connections to other places may have the same port on this side.
        ends = tuple(end.port for end in (connection.laddr, connection.raddr) if end)
        if ends == ports and connection.pid:
            assert connection.pid != os.getpid(), "the test would kill itself"
            os.kill(connection.pid, signal.SIGKILL)


@dataclass(slots=True)
class Hold:
    """Keeps requests until they are let go: before they are done, or after, before the answer."""

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
        """Let go of requests without an answer; what was to be done is not done any more."""
        self.dropped = True
        self.released.set()
