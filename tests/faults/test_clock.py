"""The wall clock of a consumer's machine jumps while jobs are in flight."""

from __future__ import annotations

import asyncio
import shutil
import struct
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.fault_effects import delay
from tests.support.fault_rig import VISIBILITY_S, Rig

_DAY_S = 86_400
_SHIM = Path(__file__).parents[1] / "support" / "clock_shim.c"


@pytest.fixture
def shim(tmp_path: Path) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    library = tmp_path / "clock.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(_SHIM), "-ldl"]
    subprocess.run(command, check=True)
    return library


def more_finished_than(count: int, rig: Rig) -> Callable[[], bool]:
    return lambda: len(rig.outcomes()) > count


async def test_a_clock_that_jumps_costs_no_lease_and_no_job(
    rig: Rig, shim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offset = shim.with_name("offset")
    offset.write_bytes(struct.pack("q", 0))
    monkeypatch.setenv("LD_PRELOAD", str(shim))
    monkeypatch.setenv("CLOCK_OFFSET_FILE", str(offset))
    names = [f"j{n}" for n in range(12)]
    rig.proxy.add("s3:GetObject", delay(VISIBILITY_S + 1), name="*/in/*", times=4)
    rig.send(*names)
    with rig.worker() as worker:
        monkeypatch.undo()
        for days in (1, -2, 3):
            finished = len(rig.outcomes())
            if finished < len(names):
                await rig.until(more_finished_than(finished, rig))
            with offset.open("r+b") as file:
                file.write(struct.pack("q", days * _DAY_S))
        await rig.until_settled()
        stats = await asyncio.to_thread(worker.terminate)
    assert stats["lease_lost"] == 0
    outcomes = rig.check()
    assert {item.receive_count for item in outcomes.values()} == {1}
    assert len(rig.records()) == len(names)
    shifts = [item.finished_at - datetime.now(UTC) for item in outcomes.values()]
    assert max(map(abs, shifts)) > timedelta(hours=12), "the clock never jumped"
