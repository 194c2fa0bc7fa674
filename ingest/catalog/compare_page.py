"""The page of a comparison, in the style of a run's report: one file that needs no network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from PIL import Image

from ingest.catalog.compare import DIFFERENT_ABOVE, ComparedPlaces, ComparedRun, ResultComparison
from ingest.catalog.result_difference import draw_difference, shown_mask
from ingest.runs.previews import Preview, PreviewReader, embed_image
from ingest.runs.report_page import PREVIEW_SIDE_PX, page_environment
from serve_app.errors import ForeedgeError
from serve_app.imaging.decode import decode_image

_THREADS = 4


@dataclass(frozen=True, slots=True)
class ComparedCard:
    """A comparison as the page shows it."""

    comparison: ResultComparison
    source: Preview | None
    """Preview of the image. None if it cannot be read."""
    former: Preview | None
    """Preview of the former cut-out. None if it cannot be read."""
    ours: Preview | None
    """Preview of our cut-out. None if it cannot be read."""
    difference: Preview | None
    """Preview of the difference of the masks. None if they cannot be compared."""


def render_comparison_page(
    places: ComparedPlaces, run_id: str, run: ComparedRun, shown: int
) -> str:
    """Return the page of a comparison. Blocks while images are read.

    Args:
        places: What is read.
        run_id: Id of the run.
        run: The comparison.
        shown: Number of comparisons of each kind with previews. Others are left out.
    """
    with ThreadPoolExecutor(_THREADS, "previews") as pool:
        cards = partial(_cards, places, pool)
        template = page_environment().get_template("compare.html.j2")
        return template.render(
            run_id=run_id,
            run=run,
            worst=list(cards(run.worst[:shown])),
            others=list(cards(run.others[:shown])),
            different_above=DIFFERENT_ABOVE,
            written_at=datetime.now(UTC),
        )


def _cards(
    places: ComparedPlaces, pool: ThreadPoolExecutor, comparisons: Sequence[ResultComparison]
) -> Iterator[ComparedCard]:
    return pool.map(partial(_card, places), comparisons)


def _card(places: ComparedPlaces, comparison: ResultComparison) -> ComparedCard:
    reader = PreviewReader(places.store, places.limits)
    former, ours = comparison.former, comparison.ours
    return ComparedCard(
        comparison,
        reader.object(*comparison.source, PREVIEW_SIDE_PX),
        reader.object(former.bucket, former.key, PREVIEW_SIDE_PX),
        reader.object(ours.bucket, ours.key, PREVIEW_SIDE_PX),
        _draw(places, comparison),
    )


def _draw(places: ComparedPlaces, comparison: ResultComparison) -> Preview | None:
    former, ours = comparison.former, comparison.ours
    objects = (comparison.source, (former.bucket, former.key), (ours.bucket, ours.key))
    try:
        image, old, new = (decode_image(places.store.get(*each), places.limits) for each in objects)
    except ForeedgeError:
        # The comparison has the reason already.
        return None
    before, now = shown_mask(image, old), shown_mask(image, new)
    if before is None or now is None:
        return None
    return embed_image(Image.fromarray(draw_difference(before.alpha, now.alpha)), PREVIEW_SIDE_PX)
