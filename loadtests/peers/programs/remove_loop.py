"""A plain loop around ``rembg.remove``, as rembg's documentation shows it: one image at a time.

Each line of the standard input is a JSON list of image files. Each answer is a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import rembg


def main() -> None:
    """Answer every line until the input ends."""
    session = rembg.new_session("u2net_custom", model_path=sys.argv[1])
    for line in sys.stdin:
        latencies, written = [], 0
        for path in json.loads(line):
            started_at = time.perf_counter()
            written += len(rembg.remove(Path(path).read_bytes(), session=session))
            latencies.append(time.perf_counter() - started_at)
        answer = {"wall_s": sum(latencies), "latencies_s": latencies, "output_bytes": written}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
