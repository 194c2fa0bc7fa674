"""The choice of a book's image and the names and positions of its cut-out, without a database."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.catalog.rules import (
    BookImage,
    arrange,
    choose_source,
    cloudfront_url,
    find_cutout,
    model_used,
    object_key,
    source_of_cutout,
)
from serve_app.contracts.recipe import parse_recipe


def image(
    image_id: int,
    kind: str | None = None,
    *,
    order: int = 0,
    primary: bool = False,
    processed: bool = False,
    key: str = "k",
) -> BookImage:
    return BookImage(image_id, key, kind, order, primary, processed)


CHOICES: dict[str, tuple[Sequence[BookImage], int | None, int | None]] = {
    "no images": ([], 1, None),
    "a title page before a binding": ([image(1, "binding"), image(2, "title_page")], 1, 2),
    "a binding before a cover": ([image(1, "cover"), image(2, "binding")], 1, 2),
    "a cover before a spine": ([image(1, "spine"), image(2, "cover")], 1, 2),
    "a spine before the primary": ([image(1, primary=True), image(2, "spine")], 1, 2),
    "the primary before the one asked for": ([image(1, "detail"), image(2, primary=True)], 1, 2),
    "the first of two primaries": (
        [image(1, order=2, primary=True), image(2, order=1, primary=True)],
        None,
        2,
    ),
    "the one asked for before the first": ([image(1), image(2, order=1)], 2, 2),
    "the first by position and id": ([image(3, order=1), image(2, order=1), image(9)], None, 9),
    "the first of one type by position": (
        [image(1, "cover", order=5), image(2, "cover", order=3)],
        1,
        2,
    ),
    "no cut-out while there is another image": (
        [image(1, "cover", processed=True, primary=True), image(2, order=7)],
        1,
        2,
    ),
    "a deleted image is asked for": ([image(4, order=1), image(5, order=2)], 1, 4),
    "nothing but cut-outs, one asked for": (
        [image(1, processed=True), image(2, processed=True)],
        2,
        2,
    ),
    "nothing but cut-outs, a deleted one asked for": (
        [image(2, processed=True, order=1), image(1, processed=True, order=2)],
        9,
        2,
    ),
    "types are of no account among cut-outs": (
        [image(1, processed=True), image(2, "cover", processed=True, order=1)],
        None,
        1,
    ),
}


@pytest.mark.parametrize("case", CHOICES)
def test_the_image_of_a_book_is_chosen(case: str) -> None:
    images, asked, expected = CHOICES[case]
    for given_order in (images, images[::-1]):
        found = choose_source(given_order, asked)
        assert (found.id if found else None) == expected


IMAGES = st.lists(
    st.builds(
        image,
        st.integers(1, 30),
        st.sampled_from([None, "cover", "detail"]),
        order=st.integers(-1, 4),
        primary=st.booleans(),
    ),
    unique_by=lambda each: each.id,
    min_size=1,
)


@given(IMAGES, st.data())
def test_the_order_has_every_image_once_and_keeps_that_of_the_others(
    images: list[BookImage], data: st.DataObject
) -> None:
    source = data.draw(st.sampled_from(images)).id
    order = [99, *(each.id for each in arrange(images, None, source))]
    assert order[0] == 99
    assert order[-1] == source
    assert sorted(order) == sorted({99, *(each.id for each in images)})
    before = [each.id for each in sorted(images, key=lambda each: (each.display_order, each.id))]
    assert order[1:-1] == [each for each in before if each != source]
    # A second cut-out of the same image finds nothing to move.
    placed = [image(each, order=n) for n, each in enumerate(order)]
    assert [99, *(each.id for each in arrange(placed, 99, source))] == order


def test_a_cut_out_of_itself_does_not_follow_itself() -> None:
    images = [image(1), image(2, order=1)]
    assert [each.id for each in arrange(images, 1, 1)] == [2]


@pytest.mark.parametrize(
    ("s3_key", "expected"),
    [
        ("7_0a.jpg", "books/7_0a.jpg"),
        ("7/image_01.webp", "books/7/image_01.webp"),
        ("books/7/image_01.png", "books/7/image_01.png"),
    ],
)
def test_objects_are_below_the_folder_once(s3_key: str, expected: str) -> None:
    assert object_key(s3_key) == expected


def test_a_cut_out_is_found_by_its_image_and_not_by_another_with_the_same_digits() -> None:
    images = [
        image(1, key="7_processed_3f2a.png", processed=True),
        image(2, key="7_processed_12_aa.png", processed=True),
        image(3, key="17_processed_1_aa.png", processed=True),
    ]
    assert find_cutout(images, 7, 1) is None
    found = find_cutout(images, 7, 12)
    assert found is not None
    assert found.id == 2
    assert [source_of_cutout(each.s3_key, 7) for each in images] == [None, 12, None]


@pytest.mark.parametrize(
    ("model", "recipe", "expected"),
    [
        ("u2net", "catalog", "u2net-alpha"),
        ("u2net", "cutout", "u2net"),
        ("isnet-general-use", "catalog", "isnet-general-use"),
        ("m" * 60, "cutout", "m" * 50),
    ],
)
def test_the_model_is_named_as_the_old_worker_named_it(
    model: str, recipe: str, expected: str
) -> None:
    assert model_used(model, parse_recipe(recipe)) == expected


def test_urls_need_a_domain() -> None:
    assert cloudfront_url(None, "7_a.png") is None
    assert cloudfront_url("cdn.example", "7_a.png") == "https://cdn.example/books/7_a.png"
