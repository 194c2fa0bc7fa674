"""The Batcher: which items form a batch, and who gets which result."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from serve_app.config import AppConfig
from serve_app.errors import InvalidConfig
from serve_app.scheduling.threads import PriorityThreads
from serve_app.segmenter.batcher import Batcher
from serve_app.segmenter.deployment import Segmenter
from tests.support.graphs import SIDE_PX, brightness


class Gate:
    """A run function that records its batches and waits for a permit for each."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.permits = threading.Semaphore(0)

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        assert self.permits.acquire(timeout=10)
        return [item * 10 for item in items]


async def until(gate: Gate, batches: int) -> None:
    async with asyncio.timeout(10):
        while len(gate.batches) < batches:  # noqa: ASYNC110 - a thread adds them
            await asyncio.sleep(0.001)


async def test_items_that_arrive_while_the_slot_is_busy_become_one_batch() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, slots=1, max_batch_size=4)
    calls = [asyncio.create_task(batcher.submit(item)) for item in range(7)]
    await asyncio.sleep(0)
    gate.permits.release(10)
    assert await asyncio.gather(*calls) == [item * 10 for item in range(7)]
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]


async def test_as_many_batches_run_as_there_are_slots() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, slots=2, max_batch_size=1)
    calls = [asyncio.create_task(batcher.submit(item)) for item in range(3)]
    await until(gate, 2)
    await asyncio.sleep(0.02)
    assert len(gate.batches) == 2
    gate.permits.release(3)
    await asyncio.gather(*calls)


async def test_a_cancelled_item_is_not_run() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, slots=1, max_batch_size=4)
    calls = [asyncio.create_task(batcher.submit(item)) for item in range(4)]
    await until(gate, 1)
    calls[2].cancel()
    await asyncio.sleep(0)
    gate.permits.release(10)
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [results[0], results[1], results[3]] == [0, 10, 30]
    assert isinstance(results[2], asyncio.CancelledError)
    assert gate.batches == [[0], [1, 3]]


async def test_an_error_is_raised_to_the_callers_of_its_batch_only() -> None:
    def run(items: Sequence[int]) -> list[int]:
        if 1 in items:
            raise ValueError("one")
        return list(items)

    batcher: Batcher[int, int] = Batcher(run, slots=1, max_batch_size=1)
    results = await asyncio.gather(*map(batcher.submit, range(3)), return_exceptions=True)
    assert [results[0], results[2]] == [0, 2]
    assert isinstance(results[1], ValueError)


async def test_limits_can_change_while_batches_run() -> None:
    gate = Gate()
    batcher: Batcher[int, int] = Batcher(gate, slots=1, max_batch_size=1)
    calls = [asyncio.create_task(batcher.submit(item)) for item in range(9)]
    await until(gate, 1)
    batcher.resize(slots=3, max_batch_size=2)
    await until(gate, 3)
    assert gate.batches == [[0], [1, 2], [3, 4]]
    batcher.resize(slots=1, max_batch_size=4)
    gate.permits.release(2)
    await asyncio.sleep(0.05)
    assert len(gate.batches) == 3
    gate.permits.release(9)
    assert await asyncio.gather(*calls) == [item * 10 for item in range(9)]
    assert gate.batches[3:] == [[5, 6, 7, 8]]


async def test_batchers_share_given_threads() -> None:
    threads = PriorityThreads(2, "shared", overlap=False)
    try:
        batchers: list[Batcher[int, str]] = [
            Batcher(
                lambda items: [threading.current_thread().name for _ in items],
                slots=2,
                max_batch_size=1,
                threads=threads,
            )
            for _ in range(2)
        ]
        batchers[0].resize(slots=4, max_batch_size=1)
        names = await asyncio.gather(*(each.submit(n) for each in batchers for n in range(6)))
    finally:
        threads.close()
    assert {name.split("_")[0] for name in names} == {"shared"}
    assert len(set(names)) <= 2


async def test_a_segmenter_can_be_reconfigured(tmp_path: Path) -> None:
    config = AppConfig.load({"model_files": {"bright": str(brightness(tmp_path / "bright.onnx"))}})
    segmenter = Segmenter("bright", config)
    await segmenter.reconfigure({"threads": 3})
    image = np.full((SIDE_PX, SIDE_PX, 3), 200, np.uint8)
    image[:100] = 10
    masks = await asyncio.gather(*(segmenter.segment(image) for _ in range(6)))
    assert {mask[0, 0] for mask in masks} == {0}
    assert {mask[-1, -1] for mask in masks} == {255}
    for refused in ({"threads": 0}, {"max_batch_size": 4}, {"execution": "stack"}):
        with pytest.raises(InvalidConfig):
            await segmenter.reconfigure(refused)


async def test_threads_of_openvino_change_with_a_restart_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("openvino")
    segmenter = Segmenter("folio", AppConfig.load({"segmenter": {"engine": "openvino"}}))
    await segmenter.reconfigure({"threads": 2})
    assert "OpenVINO" not in caplog.text
    await segmenter.reconfigure({"threads": 3})
    assert "compiled the graph for 2 threads and keeps them until a restart" in caplog.text


async def test_stacked_images_run_as_one_batch(tmp_path: Path) -> None:
    config = AppConfig.load(
        {
            "model_files": {"bright": str(brightness(tmp_path / "bright.onnx"))},
            "segmenter": {"execution": "stack", "max_batch_size": 2},
        }
    )
    segmenter = Segmenter("bright", config)
    await segmenter.reconfigure({"max_batch_size": 8})
    image = np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8)
    masks = await asyncio.gather(*(segmenter.segment(image) for _ in range(6)))
    assert not np.stack(masks).any()
    with pytest.raises(InvalidConfig, match="max_batch_size"):
        await segmenter.reconfigure({"threads": 2})


async def test_the_size_of_each_batch_and_the_wait_of_its_first_item_are_reported() -> None:
    reported: list[tuple[int, float]] = []
    may_run = threading.Event()

    def run(items: Sequence[int]) -> list[int]:
        assert may_run.wait(30)
        return list(items)

    batcher: Batcher[int, int] = Batcher(
        run,
        slots=1,
        max_batch_size=4,
        on_batch=lambda size, waited_s: reported.append((size, waited_s)),
    )
    # The slot is taken by the first item, and the others wait for what its thread does.
    calls = [asyncio.create_task(batcher.submit(item)) for item in range(6)]
    await asyncio.sleep(0.05)
    may_run.set()
    assert await asyncio.gather(*calls) == list(range(6))
    assert [size for size, _ in reported] == [1, 4, 1]
    assert reported[0][1] >= 0
    # A clock may be a little behind the one of the loop.
    assert min(waited_s for _, waited_s in reported[1:]) > 0.04
