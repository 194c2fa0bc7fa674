"""Mosec around ``rembg.remove``.

``MODEL=... WORKERS=... mosec_server.py --address 127.0.0.1 --port PORT --timeout MS``

Mosec itself reads the command line.
"""

from __future__ import annotations

import os

import mosec
import rembg


class MosecRemover(mosec.Worker):
    """A Mosec worker that takes the bytes of an image and returns those of a PNG."""

    def __init__(self) -> None:
        self.session = rembg.new_session("u2net_custom", model_path=os.environ["MODEL"])

    def deserialize(self, data: memoryview) -> bytes:
        """Return the body of the request."""
        return bytes(data)

    def forward(self, data: bytes) -> bytes:
        """Return the cut-out of an image."""
        return bytes(rembg.remove(data, session=self.session))

    def serialize(self, data: bytes) -> bytes:
        """Return the body of the response."""
        return data


if __name__ == "__main__":
    server = mosec.Server()
    server.append_worker(MosecRemover, num=int(os.environ["WORKERS"]))
    server.run()
