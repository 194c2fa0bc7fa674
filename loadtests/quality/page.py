"""The worst masks of each system, as one HTML page that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from ingest.runs.previews import Preview, make_preview
from loadtests.quality.evaluation import RESULTS, Score
from loadtests.quality.sets import FOLDER
from loadtests.quality.tables import Evaluation
from serve_app.config import ImageLimits

PAGE = Path("out/quality/worst.html")
"""Page, which is not committed: its images belong to the authors that the packages name."""

MOST = 20
"""Number of masks that are shown of each evaluation."""

_SIDE_PX = 240


@dataclass(frozen=True, slots=True)
class Card:
    """An image, its true mask and its cut-out."""

    score: Score
    image: Preview
    truth: Preview
    result: Preview


@dataclass(frozen=True, slots=True)
class Section:
    """The worst masks of an evaluation."""

    title: str
    mean: float
    count: int
    cards: list[Card]


def write_worst(evaluations: Sequence[Evaluation], note: str, path: Path = PAGE) -> Path:
    """Write the page, and return its path.

    Args:
        evaluations: Evaluations to show, whose files are still on disk.
        note: Sentence of when and with what they were measured.
        path: HTML file to write.
    """
    template = Path(__file__).with_name("worst.html.j2").read_text("utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    sections = [_section(each) for each in evaluations]
    html = environment.from_string(template).render(sections=sections, most=MOST, note=note)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, "utf-8")
    return path


def _section(evaluation: Evaluation) -> Section:
    system = evaluation.system
    worst = sorted(evaluation.scores, key=lambda score: score.iou)[:MOST]
    images, results = FOLDER / evaluation.images, RESULTS / evaluation.images / system.title
    cards = [
        Card(
            score,
            _preview(images / f"{score.name}.jpg"),
            _preview(images / f"{score.name}.mask.png"),
            _preview(results / f"{score.name}.png"),
        )
        for score in worst
    ]
    title = f"{', then '.join(system.models)}, {system.name}, {evaluation.images}"
    return Section(title, evaluation.mean("iou"), len(evaluation.scores), cards)


def _preview(path: Path) -> Preview:
    preview = make_preview(path.read_bytes(), ImageLimits(), _SIDE_PX)
    if preview is None:
        raise ValueError(f"{path} is not an image")
    return preview
