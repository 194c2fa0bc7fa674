"""The quality of the bundled model on photographs that no training has seen."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from serve_app.config import AppConfig
from serve_app.models.folio.synthetic.photograph import Kind
from serve_app.models.folio.training.score import HELD_OUT_SEED, Score, mean_iou, score_photographs
from serve_app.models.inference import load_model
from serve_app.models.registry import BUNDLED_MODEL, locate_weights

PHOTOGRAPHS = 200
_BLOCK = 50
_MAX_BYTES = 3_000_000


@cache
def _scores(kind: Kind) -> list[Score]:
    first_seeds = range(HELD_OUT_SEED, HELD_OUT_SEED + PHOTOGRAPHS, _BLOCK)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        blocks = pool.map(_score_block, [kind] * len(first_seeds), first_seeds)
        return [each for block in blocks for each in block]


def _score_block(kind: Kind, first_seed: int) -> list[Score]:
    return score_photographs(load_model(BUNDLED_MODEL, AppConfig.load()), kind, _BLOCK, first_seed)


@pytest.mark.parametrize(("kind", "least"), [("book", 0.95), ("object", 0.90), ("empty", 0.95)])
def test_masks_of_photographs_that_no_training_has_seen(kind: Kind, least: float) -> None:
    assert mean_iou(_scores(kind)) >= least


def test_the_file_obeys_u2nets_contract() -> None:
    path: Path = locate_weights(BUNDLED_MODEL, AppConfig.load()).path
    assert path.stat().st_size <= _MAX_BYTES
    session = onnxruntime.InferenceSession(path)
    [taken] = session.get_inputs()
    assert (taken.type, taken.shape) == ("tensor(float)", ["N", 3, 320, 320])
    for count in (1, 3):
        answer = session.run(None, {taken.name: np.zeros((count, *taken.shape[1:]), np.float32)})[0]
        assert (answer.dtype, answer.shape) == (np.float32, (count, 1, 320, 320))
        assert answer.min() >= 0
        assert answer.max() <= 1
