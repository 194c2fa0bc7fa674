"""A TCP proxy before a Postgres server that cuts connections at their COMMIT."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Literal, Self

_COMMIT = b"COMMIT"
_CHUNK = 65_536


class CuttingProxy:
    """A context manager that forwards connections to a port on this machine.

    ``cut`` says where the next connection that commits is cut: before the server hears of it, or
    after it has committed and before the client hears of that.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cut: Literal["before", "after"] | None = None
        self.cuts = 0
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        # A shutdown wakes the thread that accepts. A close alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._sockets:
            _shut(each)
        for thread in self._threads:
            thread.join(5)
        for each in self._sockets:
            each.close()

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._sockets += [client, server]
            committed = threading.Event()
            self._start(self._forward_queries, client, server, committed)
            self._start(self._forward_answers, client, server, committed)

    def _forward_queries(
        self, client: socket.socket, server: socket.socket, committed: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := client.recv(_CHUNK):
                if self.cut is not None and _COMMIT in data:
                    self.cuts += 1
                    where, self.cut = self.cut, None
                    if where == "before":
                        break
                    committed.set()
                server.sendall(data)
        _shut(client)
        _shut(server)

    def _forward_answers(
        self, client: socket.socket, server: socket.socket, committed: threading.Event
    ) -> None:
        with suppress(OSError):
            while data := server.recv(_CHUNK):
                if committed.is_set():
                    break
                client.sendall(data)
        _shut(client)
        _shut(server)


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
