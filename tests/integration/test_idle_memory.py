"""Freed memory goes back to the kernel when a replica is idle, measured in a child process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, json, threading
from pathlib import Path
from serve_app.serving.malloc import IdleMemory, keep_freed_memory

IMAGES, SIZE = 32, 30 * 2**20


def resident_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) // 1024


def hold_images():
    # Small values between the images, as every program has them.
    kept = [(bytearray(b"x") * SIZE, bytes(100)) for _ in range(IMAGES)]
    return [small for _, small in kept]


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.05)


async def main():
    keep_freed_memory()
    memory, found = IdleMemory(idle_s=0.5), {"before": resident_mib()}
    with memory.in_use():
        small = await asyncio.to_thread(hold_images)
        small += hold_images()
        found["freed"] = resident_mib()
        with memory.in_use():
            pass
        await asyncio.sleep(1.5)
        found["in use"] = resident_mib()
    await until(lambda: resident_mib() < found["before"] + 150)
    found["idle"] = resident_mib()
    print(json.dumps(found))


asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is Linux's")
def test_an_idle_replica_returns_what_its_images_took() -> None:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", PROGRAM]
    text = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    found = json.loads(text)
    # 960 MiB were held twice, by a thread and by the event loop.
    assert found["freed"] - found["before"] > 900
    # While an image is in progress, however long it takes, the memory is kept for the next one.
    assert found["in use"] > 0.9 * found["freed"]
    assert found["idle"] < found["before"] + 150
