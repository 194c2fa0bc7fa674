"""What ``foreedge bulk`` prints of a run: its images, and what was left out of them."""

from __future__ import annotations

from rich.console import Console

from ingest.cli.own_images import describe_skipped
from ingest.cli.terminal import print_json, print_text
from ingest.runs.job_list import Sent
from ingest.runs.send import RunPlan
from ingest.sources.base import ImageSource
from ingest.units import counted

_SHOWN_IMAGES = 3


def print_run(console: Console, plan: RunPlan, recipe: str) -> None:
    """Print what a run has: its images and the first of them, its recipe and its output."""
    total = plan.source.total
    images = "Images" if total is None else counted(total, "image")
    print_text(console, f"{images} from {plan.description}")
    if total is not None:
        _print_skipped(console, plan.source)
    entries = plan.entries()
    for _, entry in zip(range(_SHOWN_IMAGES), entries, strict=False):
        print_text(console, f"  s3://{entry.bucket}/{entry.key}")
    if next(entries, None) is not None:
        console.print("  …")
    print_text(console, f"Recipe  {recipe}")
    print_text(console, f"Output  s3://{plan.output.bucket}/{plan.output.prefix}")


def count_images(console: Console, plan: RunPlan) -> int:
    """Return the number of images, and print it unless it is already known without reading all."""
    if plan.source.total is not None:
        return plan.source.total
    with console.status("Counting …"):
        number = sum(1 for _ in plan.entries())
    console.print(f"{counted(number, 'image')}, each counted once", highlight=False)
    print_left_out(console, plan.source)
    return number


def _print_skipped(console: Console, source: ImageSource) -> None:
    """Print how many names are not those of images, with the most frequent kinds of them."""
    if source.skipped:
        print_text(console, f"  {describe_skipped(source.skipped)}")


def print_left_out(console: Console, source: ImageSource) -> None:
    """Print what was left out of a source, once it is read from its beginning.

    A resumed run reads no more of it than is not listed yet.
    """
    if source.total is None:
        _print_skipped(console, source)
    if number := source.undecodable:
        console.print(
            f"[yellow]{number:,} keys are not UTF-8 once they are decoded, so that no object can "
            "have them. They were left out.[/]"
        )


def print_already_sent(console: Console, run_id: str, sent: Sent, as_json: bool) -> None:
    """Print that a run needs no message any more, and what can be done with it."""
    if as_json:
        print_json({"run_id": run_id, "images": sent.jobs, "sent": False})
    console.print(
        f"Run {run_id} was already sent with all of its {counted(sent.jobs, 'image')}, so nothing "
        "was sent now.\n"
        f"To send its failures again:  foreedge redrive {run_id}\n"
        f"To check for missing results:  foreedge verify {run_id}",
        highlight=False,
    )
