"""Recipes from the options and the headers of a request."""

from __future__ import annotations

import pytest

from serve_app.contracts.recipe import MEDIA_TYPES, Matting, Recipe
from serve_app.errors import InvalidRecipe, NotAcceptable
from serve_app.http.recipe_options import (
    RecipeOptions,
    negotiate_format,
    recipe_from_request,
    recipe_options_from_form,
)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "png"),
        ("", "png"),
        ("*/*", "png"),
        ("image/*", "png"),
        ("application/json, text/plain, */*", "png"),
        ("image/webp", "webp"),
        ("image/jpeg, image/png", "jpeg"),
        ("image/jpeg;q=0.5, image/png", "png"),
        ("image/jpeg; q=0.5, image/webp; q=0.8, */*; q=0.1", "webp"),
        ("image/avif,image/webp,image/apng,*/*;q=0.8", "webp"),
        ("image/*;q=0.9, image/png;q=0.1", "webp"),
        ("*/*, image/png;q=0", "webp"),
        ("IMAGE/JPEG", "jpeg"),
        ("image/jpg", "jpeg"),
        ("image/webp;q=nonsense", "webp"),
        ("image/webp;level=3;q=0.2, image/png;q=0.1", "webp"),
        (",,image/webp,", "webp"),
    ],
)
def test_the_accept_header_selects_the_preferred_format(accept: str | None, expected: str) -> None:
    assert negotiate_format(accept) == expected


@pytest.mark.parametrize(
    "accept", ["text/html", "application/json", "image/gif", "*/*;q=0", "image/png;q=0"]
)
def test_an_accept_header_without_an_available_format_is_rejected(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="image/png, image/webp, image/jpeg"):
        negotiate_format(accept)


def test_a_requested_format_takes_precedence_over_accept() -> None:
    assert recipe_from_request(RecipeOptions(format="webp"), "text/html").format == "webp"
    inline = RecipeOptions(recipe='{"format": "webp"}')
    assert recipe_from_request(inline, "image/png").format == "webp"


def test_a_client_that_accepts_only_jpeg_gets_a_white_background() -> None:
    assert recipe_from_request(RecipeOptions(), "image/jpeg").background == "white"
    assert (
        recipe_from_request(RecipeOptions(background="black"), "image/jpeg").background == "black"
    )
    inline = RecipeOptions(recipe='{"background": "#102030"}')
    assert recipe_from_request(inline, "image/jpeg").background == "#102030"


def test_every_field_of_a_recipe_has_an_option() -> None:
    given = {
        "models": "folio, u2net",
        "background": "#FFEEDD",
        "format": "webp",
        "quality": "70",
        "png_compression": "6",
        "mask_only": "true",
        "crop_to_subject": "1",
        "min_subject_px": "0",
        "min_subject_area": "0.01",
        "max_aspect_change": "3",
        "min_confidence": "0.95",
        "post_process_mask": "true",
        "matting": "closed_form",
        "matting_foreground_above": "250",
        "matting_background_below": "5",
        "matting_erode_px": "3",
    }
    recipe = recipe_from_request(recipe_options_from_form(given), None)
    assert recipe == Recipe.model_validate(
        {
            "models": ["folio", "u2net"],
            "background": "#ffeedd",
            "format": "webp",
            "quality": 70,
            "png_compression": 6,
            "mask_only": True,
            "crop_to_subject": True,
            "post_process_mask": True,
            "matting": {
                "method": "closed_form",
                "foreground_above": 250,
                "background_below": 5,
                "erode_px": 3,
            },
            "checks": {
                "min_subject_px": 0,
                "min_subject_area": 0.01,
                "max_aspect_change": 3,
                "min_confidence": 0.95,
            },
        }
    )
    named = {*RecipeOptions.model_fields, "checks", "thumbnail"} - {
        "recipe",
        "min_subject_px",
        "min_subject_area",
        "max_aspect_change",
        "min_confidence",
        "matting_foreground_above",
        "matting_background_below",
        "matting_erode_px",
    }
    assert named == set(Recipe.model_fields)


def test_options_override_a_whole_recipe_and_checks_are_merged() -> None:
    whole = '{"checks": {"min_subject_px": 7, "min_subject_area": 0.2}, "quality": 50}'
    recipe = recipe_from_request(RecipeOptions(recipe=whole, quality=60, min_subject_px=9), None)
    assert recipe.quality == 60
    assert (recipe.checks.min_subject_px, recipe.checks.min_subject_area) == (9, 0.2)


def test_matting_of_a_preset_and_its_options_are_merged() -> None:
    recipe = recipe_from_request(RecipeOptions(recipe="catalog", matting_erode_px=3), None)
    assert recipe.matting == Matting(method="closed_form", erode_px=3)
    object_form = '{"matting": {"method": "closed_form", "foreground_above": 200}}'
    recipe = recipe_from_request(RecipeOptions(recipe=object_form, matting="decontaminate"), None)
    assert recipe.matting == Matting(method="decontaminate", foreground_above=200)
    with pytest.raises(InvalidRecipe, match="matting"):
        recipe_from_request(RecipeOptions(recipe='{"matting": 3}', matting_erode_px=3), None)


def test_a_thumbnail_is_ignored() -> None:
    plain = recipe_from_request(RecipeOptions(recipe="{}"), None)
    assert (
        recipe_from_request(RecipeOptions(recipe='{"thumbnail": {"size_px": 100}}'), None) == plain
    )


@pytest.mark.parametrize(
    "recipe", ["nonsense", "{", '{"models": 3}', '{"colour": "red"}', '{"checks": 1}', "", '{"a":']
)
def test_invalid_recipes_are_rejected(recipe: str) -> None:
    with pytest.raises(InvalidRecipe):
        recipe_from_request(RecipeOptions(recipe=recipe, min_subject_px=1), None)


@pytest.mark.parametrize(
    "fields",
    [
        {"quality": "0"},
        {"quality": "85.5"},
        {"quality": ""},
        {"format": "gif"},
        {"mask_only": "perhaps"},
        {"min_subject_area": "1"},
        {"max_aspect_change": "1"},
        {"min_confidence": "1.1"},
        {"min_confidence": "0"},
        {"colour": "red"},
    ],
)
def test_invalid_options_are_rejected(fields: dict[str, str]) -> None:
    with pytest.raises(InvalidRecipe, match=next(iter(fields))):
        recipe_options_from_form(fields)


def test_media_types_are_those_of_the_formats() -> None:
    for name, media_type in MEDIA_TYPES.items():
        assert negotiate_format(media_type) == name
