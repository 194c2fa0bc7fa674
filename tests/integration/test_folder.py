"""``foreedge folder`` with the application that is served."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner

from ingest.cli.main import app as foreedge
from tests.support.images import book, jpeg
from tests.support.running_app import ANY_SIZE, App

BOOK = jpeg(book().image)


def test_a_folder_is_cut_out(app: App, tmp_path: Path) -> None:
    images, out = tmp_path / "in", tmp_path / "out"
    for number in range(20):
        path = images / f"shelf-{number % 3}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(BOOK)
    (images / "cut.jpg").write_bytes(BOOK[: len(BOOK) // 2])
    (images / "empty.jpg").write_bytes(b"")
    (images / "large.jpg").write_bytes(BOOK + bytes(40 * 1024**2))
    command = ["folder", str(images), str(out), "--url", app.url, "--recipe", json.dumps(ANY_SIZE)]

    result = CliRunner().invoke(foreedge, [*command, "--json"])

    assert result.exit_code == 1, result.output
    assert json.loads(result.stdout) == {"images": 23, "there_before": 0, "done": 20, "failed": 3}
    with (out / "failures.csv").open(newline="") as file:
        failures = {row["image"]: row["code"] for row in csv.DictReader(file)}
    assert failures == {
        "cut.jpg": "corrupt_image",
        "empty.jpg": "empty_image",
        "large.jpg": "image_too_large",
    }
    same = app.post(BOOK).content
    for number in range(20):
        path = out / f"shelf-{number % 3}" / f"{number}.png"
        assert path.read_bytes() == same
    with Image.open(path) as cutout:
        assert cutout.mode == "RGBA"
    assert len(list(out.rglob("*"))) == 20 + 3 + len(["failures.csv"])

    for name in failures:
        (images / name).unlink()
    result = CliRunner().invoke(foreedge, command)

    assert result.exit_code == 0, result.output
    assert "20 cut-outs there before" in result.stdout
    assert not (out / "failures.csv").exists()
