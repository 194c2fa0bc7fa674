"""Texts about invalid fields stay short, whatever a message contains."""

from __future__ import annotations

import pytest

from serve_app.contracts.recipe import parse_recipe
from serve_app.errors import InvalidRecipe


def test_a_recipe_of_many_unknown_fields_is_described_in_short() -> None:
    with pytest.raises(InvalidRecipe) as caught:
        parse_recipe({f"field-{index}": index for index in range(60_000)})
    assert "field-0" in caught.value.message
    assert "and 59,990 more" in caught.value.message
    assert len(caught.value.message) < 1_000


def test_a_long_name_of_a_field_is_cut() -> None:
    with pytest.raises(InvalidRecipe) as caught:
        parse_recipe({"x" * 100_000: 1, "quality": 0})
    assert "x" * 100 + "…" in caught.value.message
    assert "quality" in caught.value.message
    assert len(caught.value.message) < 400
