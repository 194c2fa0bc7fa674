"""Scenes without a subject, which teach folio to find nothing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from serve_app.models.folio.training.empty import draw_empty, write_empty_scenes
from serve_app.models.folio.training.pairs import SIDE_PX, find_pairs, read_pair


def test_every_other_scene_is_a_part_of_a_photograph() -> None:
    blue = np.full((200, 300, 3), (0, 0, 220), np.uint8)
    drawn, part = (draw_empty(number, 0, [blue]) for number in (0, 1))
    assert drawn.shape == part.shape == (SIDE_PX, SIDE_PX, 3)
    red, green, its_blue = part.reshape(-1, 3).mean(0)
    assert its_blue > 60 + max(red, green)
    assert np.array_equal(draw_empty(0, 1, []), drawn)


def test_a_scene_depends_on_its_number_and_the_seed() -> None:
    photographs = [np.full((200, 300, 3), shade, np.uint8) for shade in range(60, 200)]
    scenes = [draw_empty(number, seed, photographs) for number, seed in ((1, 0), (3, 0), (1, 1))]
    assert np.array_equal(draw_empty(1, 0, photographs), scenes[0])
    assert not np.array_equal(scenes[0], scenes[1])
    assert not np.array_equal(scenes[0], scenes[2])


def test_scenes_are_pairs_with_empty_masks(tmp_path: Path) -> None:
    (tmp_path / "photographs").mkdir()
    grey = np.full((400, 500, 3), 128, np.uint8)
    assert cv2.imwrite(str(tmp_path / "photographs" / "a.jpg"), grey)
    write_empty_scenes([tmp_path / "photographs"], tmp_path / "out", count=3, seed=0)
    pairs = [read_pair(path) for path in find_pairs(tmp_path / "out")]
    assert len(pairs) == 3
    assert not any(mask.any() for _, mask in pairs)
