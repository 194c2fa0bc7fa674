"""What the README says, held against the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from serve_app.config import AppConfig
from serve_app.contracts.recipe import PRESETS, Recipe
from serve_app.errors import BY_CODE
from serve_app.models.registry import MODEL_FACTS
from serve_app.serving.ray_environment import ENVIRONMENT

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_every_error_code_is_explained_with_its_status() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\d{3}) \| .+ \|$", README, re.MULTILINE))
    assert {code: int(status) for code, status in rows.items()} == {
        code: error.http_status for code, error in BY_CODE.items()
    }


def test_every_recipe_field_preset_and_model_is_named() -> None:
    names = set(re.findall(r"`(\w[\w-]*)`", README))
    assert set(Recipe.model_fields) - names == set()
    assert set(PRESETS) - names == set()
    assert set(MODEL_FACTS) - names == set()


def test_the_serve_file_is_a_valid_configuration() -> None:
    [block] = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    [application] = yaml.safe_load(block)["applications"]
    assert application["import_path"] == "serve_app.app:build"
    config = AppConfig.load(application["args"])
    assert config.models == ("u2net", "isnet-general-use")


@pytest.mark.parametrize("path", ["README.md", "docs/operations.md", "docs/performance.md"])
def test_links_to_files_lead_somewhere(path: str) -> None:
    document = ROOT / path
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text("utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_what_a_cluster_must_set_is_in_the_manual() -> None:
    manual = (ROOT / "docs/operations.md").read_text("utf-8")
    # The binary of HAProxy is for Linux only; the last one is a choice of who runs it.
    values = {**ENVIRONMENT, "RAY_SERVE_ENABLE_HA_PROXY": "1"}
    del values["RAY_USAGE_STATS_ENABLED"]
    assert [name for name, value in values.items() if f"{name}={value}`" not in manual] == []
