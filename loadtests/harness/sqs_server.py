"""A server that speaks as much of SQS's JSON protocol as a consumer needs, and is fast.

moto counts all messages of a queue for each one that it hands out, which bounds it to some hundred
messages a second. This server creates its messages when they are received, and forgets them when
they are deleted. It hands out what it was sent after them. Every answer takes a given time, as it
does over a network.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import orjson

from loadtests.harness.standins import job_message

_EMPTY_WAIT_S = 0.1


@contextmanager
def sqs_server(messages: int, call_s: float) -> Iterator[str]:
    """Run a server in a process of its own, and yield the URL of its only queue.

    Args:
        messages: Number of messages that the queue hands out.
        call_s: Time in seconds that each answer takes.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, messages, call_s), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/000000000000/bench"
    finally:
        process.terminate()
        process.join()


def _serve(parent: Connection, messages: int, call_s: float) -> None:
    queue = _Queue(messages, call_s)

    async def run() -> None:
        server = await asyncio.start_server(queue.connected, "127.0.0.1", 0)
        parent.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


class _Queue:
    """A full queue, whose messages are held by their number."""

    def __init__(self, messages: int, call_s: float) -> None:
        self._messages = messages
        self._call_s = call_s
        self._given = 0
        self._taken: list[str] = []
        self._held: set[str] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until the client closes it."""
        try:
            while True:
                action, content = await _read_request(reader)
                body = orjson.dumps(await self._answer(action, content))
                head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\n"
                writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _answer(self, action: str, content: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(self._call_s)
        match action:
            case "ReceiveMessage":
                return {"Messages": await self._receive(content["MaxNumberOfMessages"])}
            case "DeleteMessageBatch" | "ChangeMessageVisibilityBatch":
                return self._change(content["Entries"], delete=action.startswith("Delete"))
            case "SendMessageBatch":
                return self._take(content["Entries"])
            case "GetQueueAttributes":
                return {"Attributes": {}}
            case _:
                raise AssertionError(f"a consumer needs no {action}")

    async def _receive(self, count: int) -> list[dict[str, Any]]:
        end = self._messages + len(self._taken)
        first, self._given = self._given, min(end, self._given + count)
        if first == self._given:
            await asyncio.sleep(_EMPTY_WAIT_S)
        numbers = range(first, self._given)
        self._held.update(str(number) for number in numbers)
        attributes = {"ApproximateReceiveCount": "1", "SentTimestamp": "1700000000000"}
        return [
            {
                "MessageId": f"{number}",
                "ReceiptHandle": f"{number}",
                "Body": self._body(number),
                "Attributes": attributes,
            }
            for number in numbers
        ]

    def _body(self, number: int) -> str:
        made = number < self._messages
        return job_message(number) if made else self._taken[number - self._messages]

    def _take(self, entries: list[dict[str, Any]]) -> dict[str, Any]:
        self._taken += [entry["MessageBody"] for entry in entries]
        return {"Successful": [{"Id": entry["Id"]} for entry in entries], "Failed": []}

    def _change(self, entries: list[dict[str, Any]], *, delete: bool) -> dict[str, Any]:
        known = [entry["Id"] for entry in entries if entry["ReceiptHandle"] in self._held]
        failed = [
            {"Id": entry["Id"], "Code": "ReceiptHandleIsInvalid", "SenderFault": True}
            for entry in entries
            if entry["ReceiptHandle"] not in self._held
        ]
        if delete:
            self._held.difference_update(entry["ReceiptHandle"] for entry in entries)
        return {"Successful": [{"Id": name} for name in known], "Failed": failed}


async def _read_request(reader: asyncio.StreamReader) -> tuple[str, dict[str, Any]]:
    """Return the action and the arguments of a request."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): text.strip() for name, _, text in (x.partition(":") for x in lines)}
    content = orjson.loads(await reader.readexactly(int(headers["content-length"])))
    return headers["x-amz-target"].rpartition(".")[2], content
