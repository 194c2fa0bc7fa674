"""A model of the worker that Foreedge replaces (docs/architecture.md), with its faults.

It takes one image after the other, as the worker did with its batch size of 1: rembg (with matting
or without), the check of the subject's size, mean brightness in a loop over pixels, a black or
white background, a PNG that is encoded twice, the second time with ``optimize``, and a thumbnail.
S3 and Postgres are left out.

``replaced_worker.py MODEL (matting | plain)``. Input and output are those of ``remove_loop.py``.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import rembg
from PIL import Image

_MIN_SUBJECT_PX = 100
_DARK_BELOW = 128


def process(data: bytes, session: Any, matting: bool) -> int:
    """Return the size in bytes of the file that is written for one image."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    cutout = rembg.remove(image, session=session, alpha_matting=matting)
    box = cutout.getchannel("A").getbbox()
    if box is None or min(box[2] - box[0], box[3] - box[1]) < _MIN_SUBJECT_PX:
        raise ValueError("the subject is too small")
    colour = "black" if brightness(cutout) < _DARK_BELOW else "white"
    result = Image.new("RGB", cutout.size, colour)
    result.paste(cutout, mask=cutout.getchannel("A"))
    first = io.BytesIO()
    result.save(first, "PNG")
    second = io.BytesIO()
    Image.open(io.BytesIO(first.getvalue())).save(second, "PNG", optimize=True)
    small = result.copy()
    small.thumbnail((300, 300))
    thumbnail = io.BytesIO()
    small.save(thumbnail, "JPEG", quality=85)
    return second.tell()


def brightness(cutout: Image.Image) -> float:
    """Return the mean brightness of all pixels that are not fully transparent."""
    total, count = 0.0, 0
    pixels = cutout.load()
    width, height = cutout.size
    for y in range(height):
        for x in range(width):
            red, green, blue, alpha = pixels[x, y]
            if alpha > 0:
                total += 0.299 * red + 0.587 * green + 0.114 * blue
                count += 1
    return total / count if count else 0.0


def main() -> None:
    """Answer every line until the input ends."""
    session = rembg.new_session("u2net_custom", model_path=sys.argv[1])
    matting = sys.argv[2] == "matting"
    for line in sys.stdin:
        latencies, written = [], 0
        for path in json.loads(line):
            started_at = time.perf_counter()
            written += process(Path(path).read_bytes(), session, matting)
            latencies.append(time.perf_counter() - started_at)
        answer = {"wall_s": sum(latencies), "latencies_s": latencies, "output_bytes": written}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
