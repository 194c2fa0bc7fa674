"""Write docs/schemas: the JSON Schema of each shape of a message, from the code."""

from __future__ import annotations

import json
from pathlib import Path

from ingest.messages.schemas import message_schemas

FOLDER = Path(__file__).parent / "schemas"


def schema_files() -> dict[Path, str]:
    """Return the content of each file of the folder."""
    return {
        FOLDER / f"{name}.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in message_schemas().items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in schema_files().items():
        path.write_text(text, "utf-8")
