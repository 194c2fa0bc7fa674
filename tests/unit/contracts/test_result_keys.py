"""Keys of results: they fit into S3's limit, stay what they were, and belong to one image."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from serve_app.contracts.job import Job, NamedOutput, Output, Source
from serve_app.contracts.recipe import parse_recipe
from serve_app.contracts.result_keys import fingerprint, output_key, thumbnail_key
from tests.support.fuzzing import examples

NAME = "0123456789abcdef0123"
RECIPES = {
    "png": parse_recipe("cutout"),
    "webp": parse_recipe({"format": "webp"}),
    "jpg": parse_recipe({"format": "jpeg", "background": "white"}),
    "thumbnail": parse_recipe({"thumbnail": {}}),
}


def job(key: str, prefix: str = "cutouts/", kind: str = "png") -> Job:
    output = Output(bucket="b", prefix=prefix)
    return Job(source=Source(bucket="b", key=key), output=output, recipe=RECIPES[kind])


def keys(of: Job) -> list[str]:
    thumbnail = [thumbnail_key(of, NAME)] if of.recipe.thumbnail else []
    return [output_key(of, NAME), *thumbnail]


def keys_of_version_0_1(of: Job) -> list[str]:
    """Return the keys as version 0.1.0 made them."""
    stem = PurePosixPath(of.source.key).with_suffix("").as_posix().lstrip("/")
    extension = {"png": "png", "webp": "webp", "jpeg": "jpg"}[of.recipe.format]
    thumbnail = [f"{of.output.prefix}{stem}/{NAME}_thumb.jpg"] if of.recipe.thumbnail else []
    return [f"{of.output.prefix}{stem}/{NAME}.{extension}", *thumbnail]


_LETTERS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


@st.composite
def _long_keys(draw: st.DrawFn) -> str:
    """Draw a key of any number of bytes, by repeating a few letters."""
    size = draw(st.integers(1, 1024))
    letters = draw(_LETTERS)
    return (letters * size).encode()[:size].decode(errors="ignore") or "k"


@settings(max_examples=examples(50))
@given(_long_keys(), st.sampled_from(sorted(RECIPES)), st.integers(0, 512))
@example("k" * 1004, "png", 7)
@example("ü" * 512, "thumbnail", 512)
@example("./" * 512, "webp", 0)
@example("/", "png", 0)
def test_every_key_of_up_to_1024_bytes_has_results(key: str, kind: str, prefix: int) -> None:
    of = job(key, "p" * prefix, kind)
    for result in keys(of):
        assert len(result.encode()) <= 1024
        assert result.startswith(of.output.prefix)
    if any(PurePosixPath(key).name):
        as_before = keys_of_version_0_1(of)
        if all(len(result.encode()) <= 1024 for result in as_before):
            assert keys(of) == as_before


@pytest.mark.parametrize("prefix", ["p" * 512, "ü" * 479])
def test_the_longest_prefix_leaves_room(prefix: str) -> None:
    for result in keys(job("k" * 1024, prefix, "thumbnail")):
        assert len(result.encode()) <= 1024


def test_long_keys_that_begin_alike_have_folders_of_their_own() -> None:
    found = {output_key(job("k" * 1000 + end), NAME) for end in ["a.jpg", "b.jpg", "a/c.jpg", ""]}
    assert len(found) == 4
    assert output_key(job("k" * 1000 + "a.jpg"), NAME) in found


def test_names_of_a_long_key_are_names_of_files() -> None:
    key = "/".join(["f" * 250] * 4)
    result = output_key(job(key), NAME)
    assert max(map(len, result.split("/"))) <= 255


@pytest.mark.parametrize("key", ["/", ".", "//", "./"])
def test_a_key_without_a_name_has_a_result(key: str) -> None:
    assert output_key(job(key), NAME) == f"cutouts/_/{NAME}.png"


def test_a_result_that_its_job_names_is_beside_its_thumbnail() -> None:
    output = NamedOutput(bucket="b", prefix="books/", name="7_processed_12_")
    of = job("books/7/image_01.webp", kind="thumbnail").model_copy(update={"output": output})
    assert keys(of) == [
        f"books/7_processed_12_{NAME}.png",
        f"books/thumb_7_processed_12_{NAME}.png",
    ]


def test_a_message_cannot_name_its_result() -> None:
    with pytest.raises(ValidationError, match="name"):
        Job.model_validate(
            {"source": {"bucket": "b", "key": "k"}, "output": {"bucket": "b", "name": "n"}}
        )


def test_the_null_version_of_an_object_is_known_by_its_etag() -> None:
    def made_of(**source: str) -> str:
        return fingerprint(Source(bucket="b", key="k", **source), RECIPES["png"], ["digest"])

    before, after = (made_of(version_id="null", etag=etag) for etag in ("aaa", "bbb"))
    assert before != after, "S3 replaces the null version when the object is written again"
    assert made_of(version_id="v1", etag="aaa") == made_of(version_id="v1")
    with pytest.raises(ValueError, match="neither an ETag nor a version"):
        made_of(version_id="null")
