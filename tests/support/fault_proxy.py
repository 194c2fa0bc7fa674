"""A proxy in front of a local SQS and S3 that injects the faults that AWS documents.

A rule selects requests by action (``s3:GetObject``), by object (``bucket/key``) or queue, and by
count, and its effect answers them. Every request that reaches the server is kept in a journal, by
which ``recorded_before_deleted`` checks that no message is deleted before its record is stored.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Self
from urllib.parse import unquote, urlsplit

SQS_TARGET = "AmazonSQS."
_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect"}


@dataclass(slots=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    """Header values by lower-case name."""
    body: bytes
    action: str = ""
    """``sqs:ReceiveMessage``, ``s3:PutObject``, …"""
    name: str = ""
    """Name of the queue, or ``bucket/key``."""
    ports: tuple[int, int] = (0, 0)
    """Ports of the client's and of the proxy's end of the connection."""

    @property
    def content(self) -> dict[str, Any]:
        """Arguments of an SQS request."""
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    cut_at: int | None = None
    """Number of bytes after which the connection is closed, or None to send the whole body."""


Forward = Callable[[Request], Awaitable[Answer]]
Effect = Callable[[Request, Forward], Awaitable[Answer | None]]
"""Function that answers a request, or returns None to close the connection without an answer."""


@dataclass(slots=True)
class Rule:
    action: str
    effect: Effect
    name: str = "*"
    times: int | None = None
    """Number of requests that the rule still applies to, or None if there is no limit."""
    body: str = ""
    """Text that the body of a request must contain."""
    hits: int = 0

    def takes(self, request: Request) -> bool:
        return (
            self.times != 0
            and fnmatchcase(request.action, self.action)
            and fnmatchcase(request.name, self.name)
            and (not self.body or self.body.encode() in request.body)
        )


@dataclass(slots=True)
class Entry:
    """One request that reached the server behind the proxy."""

    began: int
    ended: int
    """Positions in the common order of the starts and ends of all requests."""
    request: Request
    status: int
    answer: bytes
    """Body of SQS's answer, or nothing for S3."""


class Proxy:
    """A proxy that listens on its own port, in its own thread."""

    def __init__(self, upstream_url: str) -> None:
        parts = urlsplit(upstream_url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._upstream = (parts.hostname, parts.port)
        self.endpoint_url = ""
        self.journal: list[Entry] = []
        self.rules: list[Rule] = []
        self._lock = threading.Lock()
        self._count = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def add(
        self,
        action: str,
        effect: Effect,
        *,
        name: str = "*",
        times: int | None = None,
        body: str = "",
    ) -> Rule:
        """Let an effect answer the requests that a rule selects. Earlier rules come first."""
        rule = Rule(action, effect, name, times, body)
        with self._lock:
            self.rules.append(rule)
        return rule

    def remove(self, *rules: Rule) -> None:
        with self._lock:
            self.rules = [rule for rule in self.rules if rule not in rules]

    def clear(self) -> None:
        """Remove every rule and empty the journal."""
        with self._lock:
            self.rules = []
            self.journal = []

    def passed(self, action: str, name: str = "*") -> list[Entry]:
        """Return the requests that have reached the server."""
        return [
            entry
            for entry in list(self.journal)
            if fnmatchcase(entry.request.action, action) and fnmatchcase(entry.request.name, name)
        ]

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.endpoint_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _end(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while (request := await _read_request(reader, writer)) is not None:
                request.ports = (
                    writer.get_extra_info("peername")[1],
                    writer.get_extra_info("sockname")[1],
                )
                answer = await self._answer(request)
                if answer is None or not _write(writer, request, answer):
                    writer.transport.abort() if answer is None else await writer.drain()
                    break
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The client has closed the connection, or the proxy ends.
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, request: Request) -> Answer | None:
        request.action, request.name = identify(request)
        with self._lock:
            rule = next((rule for rule in self.rules if rule.takes(request)), None)
            if rule is not None:
                rule.hits += 1
                if rule.times is not None:
                    rule.times -= 1
        if rule is None:
            return await self._forward(request)
        return await rule.effect(request, self._forward)

    async def _forward(self, request: Request) -> Answer:
        began = next(self._count)
        try:
            answer = await self._exchange(request)
        except (OSError, asyncio.IncompleteReadError):
            # AWS answers in this way if it can take no more connections.
            return refusal(request, 503, "ServiceUnavailable")
        kept = answer.body if request.action.startswith("sqs:") else b""
        self.journal.append(Entry(began, next(self._count), request, answer.status, kept))
        return answer

    async def _exchange(self, request: Request) -> Answer:
        reader, writer = await asyncio.open_connection(*self._upstream)
        try:
            lines = [f"{request.method} {request.target} HTTP/1.1"]
            lines += [f"{k}: {v}" for k, v in request.headers.items() if k not in _HOP]
            lines += [f"content-length: {len(request.body)}", "connection: close", "", ""]
            writer.write("\r\n".join(lines).encode("latin-1") + request.body)
            await writer.drain()
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *rest = head.strip().split("\r\n")
            headers = _headers(rest)
            assert "transfer-encoding" not in headers
            return Answer(int(first.split(" ")[1]), headers, await reader.read())
        finally:
            writer.close()


def identify(request: Request) -> tuple[str, str]:
    """Return the action of a request, and the name of its queue or object."""
    target = request.headers.get("x-amz-target", "")
    if target.startswith(SQS_TARGET):
        content = request.content
        name = content.get("QueueUrl", content.get("QueueName", ""))
        return f"sqs:{target.removeprefix(SQS_TARGET)}", name.rpartition("/")[2]
    parts = urlsplit(request.target)
    name = unquote(parts.path).lstrip("/")
    if "/" in name.rstrip("/"):
        verbs = {"GET": "GetObject", "PUT": "PutObject", "HEAD": "HeadObject"}
        return f"s3:{verbs.get(request.method, request.method)}", name
    verbs = {"GET": "ListObjectsV2", "PUT": "CreateBucket", "HEAD": "HeadBucket"}
    return f"s3:{verbs.get(request.method, request.method)}", name


def refusal(request: Request, status: int, code: str) -> Answer:
    """Return the answer by which SQS or S3 refuses a request."""
    if request.action.startswith("sqs:"):
        body = json.dumps({"__type": f"com.amazonaws.sqs#{code}", "message": f"fault: {code}"})
        return Answer(status, {"content-type": "application/x-amz-json-1.0"}, body.encode())
    body = f"<Error><Code>{code}</Code><Message>fault: {code}</Message></Error>"
    # The answer to a HEAD request has no body, and so no code.
    content = b"" if request.method == "HEAD" else body.encode()
    return Answer(status, {"content-type": "application/xml"}, content)


# --- the invariant ---


def recorded_before_deleted(journal: Sequence[Entry]) -> int:
    """Assert that the record of every message was stored before its deletion was requested.

    Returns:
        The number of deletions in the journal.
    """
    names: dict[str, set[str]] = {}
    stored: dict[str, int] = {}
    for entry in journal:
        if entry.request.action == "sqs:ReceiveMessage" and entry.status == 200:
            for message in json.loads(entry.answer).get("Messages", []):
                names[message["ReceiptHandle"]] = _names(message)
        part = entry.request.name.endswith(".jsonl.gz") and entry.request.method == "PUT"
        if part and entry.status == 200:
            for line in gzip.decompress(entry.request.body).splitlines():
                stored.setdefault(json.loads(line)["job_id"], entry.ended)
    checked = 0
    for entry in journal:
        if entry.request.action == "sqs:DeleteMessageBatch":
            for item in entry.request.content["Entries"]:
                known = names[item["ReceiptHandle"]]
                first = min((stored[name] for name in known if name in stored), default=None)
                assert first is not None, f"{known}: deleted without a record"
                assert first < entry.began, f"{known}: deleted before its record was stored"
                checked += 1
    return checked


def _names(message: dict[str, Any]) -> set[str]:
    """Return the job ids that a message's record may have: that of its job, or its own id."""
    names = {str(message["MessageId"])}
    try:
        names.add(str(json.loads(message["Body"])["job_id"]))
    except (ValueError, TypeError, KeyError):
        return names
    return names


# --- HTTP ---


async def _read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *rest = head.strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = _headers(rest)
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await writer.drain()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, target, headers, body)


def _headers(lines: Sequence[str]) -> dict[str, str]:
    pairs = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _write(writer: asyncio.StreamWriter, request: Request, answer: Answer) -> bool:
    """Write an answer, and return whether the connection can be used again."""
    length = str(len(answer.body))
    if request.method == "HEAD":
        length = answer.headers.get("content-length", length)
    lines = [f"HTTP/1.1 {answer.status} -"]
    lines += [f"{k}: {v}" for k, v in answer.headers.items() if k not in _HOP]
    lines += [f"content-length: {length}", "", ""]
    writer.write("\r\n".join(lines).encode("latin-1"))
    body = b"" if request.method == "HEAD" else answer.body
    writer.write(body if answer.cut_at is None else body[: answer.cut_at])
    return answer.cut_at is None
