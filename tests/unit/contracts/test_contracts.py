"""Recipes, fingerprints, configuration and local storage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serve_app.config import AppConfig
from serve_app.contracts.job import Job, Output, Source
from serve_app.contracts.recipe import Matting, parse_recipe
from serve_app.contracts.result_keys import fingerprint, output_key
from serve_app.errors import (
    BY_CODE,
    InvalidConfig,
    InvalidRecipe,
    SourceNotAllowed,
    concrete_errors,
)
from serve_app.storage.local import LocalStore


@pytest.mark.parametrize(
    "value",
    ["nonsense", {"format": "tiff"}, {"format": "jpeg"}, {"background": "red"}, {"colour": 1}],
)
def test_a_wrong_recipe_is_refused(value: object) -> None:
    with pytest.raises(InvalidRecipe):
        parse_recipe(value)  # type: ignore[arg-type]


def test_matting_is_a_method_or_an_object() -> None:
    assert parse_recipe("catalog").matting == Matting(method="closed_form")
    assert parse_recipe({"matting": {"method": "closed_form"}}) == parse_recipe(
        {"matting": "closed_form"}
    )
    with pytest.raises(InvalidRecipe, match="matting"):
        parse_recipe({"matting": "open_form"})
    with pytest.raises(InvalidRecipe, match="erode_px"):
        parse_recipe({"matting": {"erode_px": -1}})


def test_fingerprint_depends_on_content_recipe_and_model() -> None:
    source = Source(bucket="b", key="in/1.jpg", etag='"e"')
    names = {
        fingerprint(source, parse_recipe("cutout"), ["m"]),
        fingerprint(source, parse_recipe("mask"), ["m"]),
        fingerprint(source, parse_recipe("cutout"), ["n"]),
        fingerprint(source.model_copy(update={"etag": "f"}), parse_recipe("cutout"), ["m"]),
    }
    assert len(names) == 4
    job = Job(source=source, output=Output(bucket="b", prefix="out"))
    assert output_key(job, "0a") == "out/in/1/0a.png"


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("cutout", "{}"),
        ({"quality": 85, "matting": "off", "checks": {"min_subject_px": 100}}, "{}"),
        ({"thumbnail": {}, "format": "webp"}, '{"format":"webp","thumbnail":{}}'),
        ({"thumbnail": {"size_px": 300, "quality": 80}}, '{"thumbnail":{"quality":80}}'),
        ({"matting": "closed_form"}, '{"matting":{"method":"closed_form"}}'),
        ({"checks": {"min_subject_px": 0}}, '{"checks":{"min_subject_px":0}}'),
    ],
)
def test_the_canonical_form_leaves_defaults_out(value: str | dict[str, Any], form: str) -> None:
    recipe = parse_recipe(value)
    assert recipe.canonical() == form
    assert parse_recipe(json.loads(form)) == recipe


def test_every_error_has_its_own_code() -> None:
    assert len(BY_CODE) == len(concrete_errors())
    assert all(400 <= error.http_status < 600 for error in concrete_errors())


def test_an_empty_setting_counts_as_missing() -> None:
    with pytest.raises(InvalidConfig, match=r"queue\.url"):
        AppConfig.load({"queue.url": "", "ledger.bucket": "b"})
    with pytest.raises(InvalidConfig, match="ledger"):
        AppConfig.load({"queue.url": "http://localhost/q"})


def test_local_store_writes_once_and_stays_in_its_bucket(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert store.put_if_absent("b", "a/1", b"one", "text/plain")
    assert not store.put_if_absent("b", "a/1", b"two", "text/plain")
    assert store.get("b", "a/1") == b"one"
    assert [info.key for info in store.list("b", "a/")] == ["a/1"]
    with pytest.raises(SourceNotAllowed):
        store.get("b", "../x")


def test_an_error_about_very_many_fields_stays_short() -> None:
    fields = {f"field_{number}": 1 for number in range(5_000)} | {"a" * 10_000: 1}
    with pytest.raises(InvalidRecipe) as caught:
        parse_recipe(fields)
    assert caught.value.message.endswith("; and 4,981 more")
    assert len(caught.value.message) < 2_000
    with pytest.raises(InvalidRecipe) as caught:
        parse_recipe({"a" * 10_000: 1})
    assert len(caught.value.message) < 200
