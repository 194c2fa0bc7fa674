"""How the start of a replica on a new node is read from logs, and its table."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from tests.nodes.new_node import Moments, process_started_at, table, time_of

_GCS = """\
[2026-11-29 05:08:47,498 I 7 23] (gcs_server) gcs_node_manager.cc:111: Registering new node. \
node_id=2c node_name=10.77.0.1 node_address=10.77.0.1
[2026-11-29 05:09:13,851 I 7 23] (gcs_server) gcs_node_manager.cc:111: Registering new node. \
node_id=ec node_name=10.77.0.11 node_address=10.77.0.11
"""
_TICK_S = 0.02


@pytest.mark.parametrize(
    ("address", "expected"), [("10.77.0.1", "05:08:47.498"), ("10.77.0.11", "05:09:13.851")]
)
def test_the_time_of_a_line_is_that_of_its_node(address: str, expected: str) -> None:
    found = time_of(_GCS, rf"Registering new node\. .*node_address={address}\b")
    assert found == datetime.fromisoformat(f"2026-11-29 {expected}").timestamp()


def test_a_line_that_is_not_there_is_told() -> None:
    with pytest.raises(ValueError, match="no line with 'Finished' in the log: "):
        time_of(_GCS, "Finished")


def test_the_start_of_a_process_is_wall_time() -> None:
    before = time.time()
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        after = time.time()
        started = process_started_at(Path(f"/proc/{process.pid}/stat").read_text())
        process.communicate(b"\n")
    assert before - _TICK_S <= started <= after + _TICK_S


def test_the_table_has_medians_and_the_slowest() -> None:
    runs = [
        Moments(0, 0.1, 1, 2, 3, 4),
        Moments(10, 10.3, 11, 12, 13, 15.5),
        Moments(0, 0.2, 1, 2, 3, 5),
    ]
    assert table({"folio": runs}).splitlines()[-1] == (
        "| `folio` | 0.20 s | 0.80 s | 1.00 s | 1.00 s | 2.00 s | 5.00 s | 5.50 s |"
    )
