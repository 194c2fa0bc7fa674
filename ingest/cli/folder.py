"""``foreedge folder``: cut out the images of a folder with a running server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ingest.cli.exit_codes import FAILED, INTERRUPTED
from ingest.cli.failure_list import FailureList
from ingest.cli.options import JsonOption, home_path
from ingest.cli.own_images import describe_skipped, own_images
from ingest.cli.progress import progress_bar
from ingest.cli.terminal import open_terminal, print_json, print_text
from ingest.local.cutout_client import ANSWER_S, CutoutClient
from ingest.local.folder_cutouts import (
    CutoutFile,
    Folders,
    cut_out_files,
    missing_cutouts,
    plan_cutouts,
)
from ingest.local.processes import terminate_as_interrupt
from ingest.runs.send import recipe_argument
from ingest.runs.status import Rate
from ingest.units import counted, format_duration
from serve_app.contracts.recipe import parse_recipe
from serve_app.errors import ForeedgeError, InvalidConfig

ImagesArgument = Annotated[
    Path, typer.Argument(parser=home_path, help="Folder of the images, with its subfolders.")
]
CutoutsArgument = Annotated[
    Path,
    typer.Argument(
        parser=home_path, help="Folder of the cut-outs, which get the same names and subfolders."
    ),
]
RecipeOption = Annotated[
    str, typer.Option(help="Preset (cutout, catalog or mask) or JSON object of options.")
]
UrlOption = Annotated[str, typer.Option(help="Address of a server, as 'foreedge serve' prints it.")]
RequestsOption = Annotated[
    int, typer.Option(min=1, max=256, help="Number of images that the server has at a time.")
]
AllNamesOption = Annotated[
    bool, typer.Option("--all-names", help="Take names without the extension of an image too.")
]
KeyFileOption = Annotated[
    Path | None, typer.Option(help="File with an API key, for a server that asks for one.")
]


def folder(
    images: ImagesArgument,
    out: CutoutsArgument,
    recipe: RecipeOption = "cutout",
    url: UrlOption = "http://127.0.0.1:8000",
    requests: RequestsOption = 8,
    all_names: AllNamesOption = False,
    api_key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Cut out the images of a folder, however many, with a server that runs.

    A cut-out that is there and not older than its image stays, so that the same command continues
    after Ctrl-C. Images that failed are listed in failures.csv.
    """
    console = open_terminal(as_json=as_json)
    extension = parse_recipe(recipe_argument(recipe)).extension
    client = CutoutClient(url, recipe, api_key=_key(api_key_file), connections=requests)
    folders = Folders(images, out)
    with console.status("Reading the folder …"):
        files, skipped = _read(folders, extension, all_names)
        failures = FailureList(out)
        missing = missing_cutouts(folders, files)
        failures.keep_only(file.image for file in missing)
    print_text(console, f"{counted(len(files), 'image')} in {images}")
    if skipped:
        print_text(console, f"  {describe_skipped(skipped)}")
    if there := len(files) - len(missing):
        print_text(
            console, f"  {counted(there, 'cut-out')} there before, whatever their recipe was"
        )
    if missing:
        client.check()
    with _saying_what_stays(console, out), _writing(failures):
        _cut_out(console, client, folders, missing, requests, failures)
    print_text(console, f"Cut-outs  {out}")
    if failed := failures.codes():
        codes = Counter(failed)
        kinds = ", ".join(f"{code} {number:,}" for code, number in codes.most_common())
        print_text(console, f"{counted(len(failed), 'image')} failed ({kinds}): {failures.path}")
    if as_json:
        done = len(missing) - len(failed)
        print_json(
            {"images": len(files), "there_before": there, "done": done, "failed": len(failed)}
        )
    if failed:
        raise typer.Exit(FAILED)


def _key(file: Path | None) -> str | None:
    """Return the API key in a file.

    Raises:
        InvalidConfig: The file does not hold one key.
    """
    if file is None:
        return None
    words = file.read_text("utf-8", "replace").split()
    if len(words) != 1 or not words[0].isascii():
        raise InvalidConfig(f"--api-key-file: {file} must hold one API key and nothing else")
    return words[0]


def _read(
    folders: Folders, extension: str, all_names: bool
) -> tuple[list[CutoutFile], Counter[str]]:
    """Return the images with their cut-outs, and the number of other files by their kind."""
    found, skipped = own_images(folders.images, folders.out, all_names=all_names)
    return plan_cutouts(folders.images, found, extension), skipped


def _cut_out(
    console: Console,
    client: CutoutClient,
    folders: Folders,
    files: list[CutoutFile],
    requests: int,
    failures: FailureList,
) -> None:
    """Make cut-outs while a bar shows the progress, and note the images that fail."""

    def say_what_is_awaited(number: int) -> None:
        if number:
            sent, limit = counted(number, "image"), format_duration(ANSWER_S)
            print_text(console, f"Stopping. The server still has {sent}, for {limit} at most.")

    rate = Rate()
    failed = 0
    with progress_bar(console) as progress:
        task = progress.add_task("Cutting out", total=len(files), detail="")
        with closing(cut_out_files(client, folders, files, requests, say_what_is_awaited)) as ends:
            for number, end in enumerate(ends, 1):
                failures.ended(end.image, end.error)
                failed += end.error is not None
                per_s = rate.after(number)
                detail = f"{number:,} of {len(files):,}"
                if failed:
                    detail += f" · [red]{failed:,} failed[/red]"
                if per_s:
                    left = format_duration((len(files) - number) / per_s)
                    detail += f" · {per_s:.1f} images/s · {left} left"
                progress.update(task, completed=number, detail=detail)


@contextmanager
def _writing(failures: FailureList) -> Iterator[None]:
    """Write the images that failed into a file, however the work ends."""
    try:
        yield
    finally:
        failures.write()


@contextmanager
def _saying_what_stays(console: Console, out: Path) -> Iterator[None]:
    """Print what is left of a work that is interrupted or fails."""
    rest = f"Cut-outs that are complete stay in {out}. The same command continues."
    try:
        with terminate_as_interrupt():
            yield
    except KeyboardInterrupt:
        print_text(console, f"Stopped. {rest}")
        raise typer.Exit(INTERRUPTED) from None
    except (ForeedgeError, OSError):
        print_text(console, rest)
        raise
