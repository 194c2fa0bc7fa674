"""Settings from files, assignments and options."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.cli.settings import apply_setting, merge_settings, read_settings_file
from serve_app.config import AppConfig, LedgerConfig
from serve_app.errors import InvalidConfig


def test_settings_come_from_both_kinds_of_file(tmp_path: Path) -> None:
    plain, serve = tmp_path / "plain.yaml", tmp_path / "serve.yaml"
    plain.write_text("ledger: {bucket: l}\nqueue:\n")
    serve.write_text("applications:\n- import_path: x:y\n  args:\n    ledger: {bucket: l}\n")

    for path in (plain, serve):
        args = merge_settings(path, "http://q", None, None, ["segmenter.threads=4"])
        config = AppConfig.load(args)
        assert config.queue is not None
        assert config.queue.url == "http://q"
        assert config.ledger == LedgerConfig(bucket="l")
        assert config.segmenter.threads == 4


@pytest.mark.parametrize("text", ["- 1", "applications: []", "a: [", "applications: {a: 1}"])
def test_files_that_hold_no_settings(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)

    with pytest.raises(InvalidConfig, match=r"c\.yaml"):
        read_settings_file(path)


def test_a_setting_below_a_value_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="models"):
        apply_setting({"models": ["a"]}, "models.x", 1)


@pytest.mark.parametrize(
    "text",
    ["2026-02-30", "0b_", "!!bool no idea", "[" * 2_000, "a: ["],
    ids=["date", "number", "tag", "depth", "list"],
)
def test_a_value_that_is_not_yaml_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"x: {text}")
    with pytest.raises(InvalidConfig, match=r"c\.yaml are not YAML") as in_file:
        read_settings_file(path)
    with pytest.raises(InvalidConfig, match="the value is not YAML") as assigned:
        merge_settings(None, None, None, None, [f"queue.output_prefix={text}"])
    for refused in (in_file, assigned):
        assert "\n" not in refused.value.message
