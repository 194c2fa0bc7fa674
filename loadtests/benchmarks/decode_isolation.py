"""Decoding in threads compared with decoding in processes that can be killed.

``python -m loadtests.benchmarks.decode_isolation`` decodes the same JPEG files in two threads and
in two processes of a pool, whose pixels come back as a pickle or through shared memory. It prints
the CPU time per image, the memory of a process, and how long a killed one takes to be replaced.
docs/decisions/0016 has the numbers.
"""

from __future__ import annotations

import io
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.shared_memory import SharedMemory

import numpy as np
import psutil
from PIL import Image
from rich.console import Console
from rich.table import Table

from serve_app.config import ImageLimits
from serve_app.imaging.decode import decode_image
from serve_app.imaging.pixels import Pixels
from serve_app.models.folio.synthetic.photograph import draw_photograph

_WORKERS = 2
_SIZES = ((400, 300), (1600, 1200), (4000, 3000))
_ROUNDS = 12


def decode(data: bytes) -> Pixels:
    """Return the pixels of an image, uint8 [H, W, 3]."""
    return decode_image(data, ImageLimits()).rgb


def decode_into_shared_memory(data: bytes) -> tuple[str, tuple[int, ...]]:
    """Decode an image, and return the name of the memory with its pixels, and their shape."""
    pixels = decode(data)
    memory = SharedMemory(create=True, size=pixels.nbytes)
    np.ndarray(pixels.shape, np.uint8, memory.buf)[...] = pixels
    memory.close()
    return memory.name, pixels.shape


def _read_shared_memory(found: tuple[str, tuple[int, ...]]) -> Pixels:
    memory = SharedMemory(found[0])
    pixels = np.ndarray(found[1], np.uint8, memory.buf).copy()
    memory.close()
    memory.unlink()
    return pixels


def _cpu_ms(
    pool: Executor, function: Callable[[bytes], object], data: bytes, read: Callable[..., object]
) -> float:
    """Return the CPU time per image in milliseconds, of this process and of its children."""
    for _ in range(2):
        _run(pool, function, data, read)
    before_s = _cpu_s()
    for _ in range(_ROUNDS):
        _run(pool, function, data, read)
    return 1000 * (_cpu_s() - before_s) / (_ROUNDS * _WORKERS)


def _run(
    pool: Executor, function: Callable[[bytes], object], data: bytes, read: Callable[..., object]
) -> None:
    for result in [pool.submit(function, data) for _ in range(_WORKERS)]:
        read(result.result())


def _cpu_s() -> float:
    itself = psutil.Process()
    times = [process.cpu_times() for process in (itself, *itself.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def _draw(size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(draw_photograph(1, width=size[0], height=size[1]).image).save(
        file, "JPEG", quality=90
    )
    return file.getvalue()


def _pid(_data: bytes) -> int:
    return multiprocessing.current_process().pid or 0


def main() -> None:
    """Measure, and print the numbers."""
    console = Console()
    table = Table("image", "threads", "processes, pickled", "processes, shared memory")
    context = multiprocessing.get_context("spawn")
    with ThreadPoolExecutor(_WORKERS) as threads, ProcessPoolExecutor(_WORKERS, context) as pool:
        for size in _SIZES:
            data = _draw(size)
            found = [
                _cpu_ms(threads, decode, data, lambda pixels: pixels),
                _cpu_ms(pool, decode, data, lambda pixels: pixels),
                _cpu_ms(pool, decode_into_shared_memory, data, _read_shared_memory),
            ]
            table.add_row(f"{size[0]} x {size[1]}", *(f"{cpu_ms:.1f} ms" for cpu_ms in found))
    console.print(table)
    began_at = time.perf_counter()
    with ProcessPoolExecutor(1, context) as pool:
        process = psutil.Process(pool.submit(_pid, b"").result())
        pool.submit(decode, _draw(_SIZES[0])).result()
        console.print(
            f"a process starts in {time.perf_counter() - began_at:.1f} s and has "
            f"{process.memory_full_info().uss / 1e6:.0f} MB of its own"
        )


if __name__ == "__main__":
    main()
