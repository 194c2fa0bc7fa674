"""locust's user for the tuner: photographs of a corpus over HTTP, one after the other."""

from __future__ import annotations

import itertools
import os

from locust import FastHttpUser, constant, task

from loadtests.corpus import corpus

CORPUS_VARIABLE = "TUNE_CORPUS"
_PHOTOGRAPHS = 12

_files = [path.read_bytes() for path in corpus(os.environ[CORPUS_VARIABLE], _PHOTOGRAPHS)]
_numbers = itertools.count()


class TuneUser(FastHttpUser):  # type: ignore[misc]
    """Sends the next photograph as soon as the last one is answered."""

    wait_time = constant(0)
    connection_timeout = 10.0
    network_timeout = 120.0

    @task  # type: ignore[untyped-decorator]
    def cut_out(self) -> None:
        """Take one photograph's background out."""
        data = _files[next(_numbers) % len(_files)]
        headers = {"Content-Type": "application/octet-stream"}
        path = "/v1/cutout?min_subject_px=1"
        self.client.post(path, data=data, headers=headers, name="cutout")
