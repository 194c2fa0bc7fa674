"""Print what Grafana's own models of a dashboard do not know of a file.

It runs in the environment .venv-deployment: ``python grafana_fields.py FILE``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard


def main() -> None:
    """Read the file into the models, and print each field that does not come back."""
    plugins.register_default_plugins()
    written = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    read = json.loads(json.dumps(Dashboard.from_json(written), cls=JSONEncoder))
    for place in _lost(written, read, "dashboard"):
        print(place)


def _lost(written: Any, read: Any, place: str) -> Iterator[str]:
    if isinstance(written, dict) and isinstance(read, dict):
        for name, value in written.items():
            if name in read:
                yield from _lost(value, read[name], f"{place}.{name}")
            else:
                yield f"{place}.{name}"
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for number, (one, other) in enumerate(zip(written, read, strict=True)):
            yield from _lost(one, other, f"{place}[{number}]")
    elif written != read:
        yield f"{place}: {written!r} became {read!r}"


if __name__ == "__main__":
    main()
