"""docs/configuration.md, held against the settings that it is made from."""

from __future__ import annotations

import re

from docs.generate_configuration import PAGE, page
from serve_app.config import AppConfig


def test_the_page_is_what_make_docs_writes() -> None:
    assert PAGE.read_text("utf-8") == page(), "run `make docs`"


def test_the_page_names_every_setting_once() -> None:
    named = re.findall(r"^\| `([a-z0-9_.]+)`<br>", page(), re.MULTILINE)
    settings = AppConfig.model_json_schema()
    sections = {
        name: part["$ref"].rsplit("/", 1)[1]
        for name, field in settings["properties"].items()
        for part in [field, *field.get("anyOf", [])]
        if "$ref" in part
    }
    expected = [name for name in settings["properties"] if name not in sections]
    for name, model in sections.items():
        expected += [f"{name}.{leaf}" for leaf in settings["$defs"][model]["properties"]]
    assert named == expected
