"""Prometheus next to a local application: its configuration, and why it does not start."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from ingest.cli.main import app
from ingest.local.monitor import Monitor, local_configuration, monitoring
from ingest.local.ports import free_port
from serve_app.errors import InternalError, InvalidConfig


def test_a_prometheus_that_does_not_start_says_why(tmp_path: Path) -> None:
    program = tmp_path / "prometheus"
    program.write_text("#!/bin/sh\necho 'first line'\necho 'flag not known' >&2\nexit 2\n")
    program.chmod(0o755)
    with (
        pytest.raises(InternalError, match=r"Prometheus \(.*\) ended at its start: flag not known"),
        monitoring(Monitor(str(program), free_port()), tmp_path),
    ):
        pass


def test_without_prometheus_nothing_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(app, ["serve", "--monitor", "--model", "folio"])
    assert isinstance(done.exception, InvalidConfig)
    assert "there is no program prometheus on PATH" in str(done.exception)


def test_only_the_list_of_the_present_session_is_scraped(tmp_path: Path) -> None:
    config = local_configuration(tmp_path)
    assert config["rule_files"] == ["rules.yaml"]
    [scraped] = config["scrape_configs"]
    listed = [path for group in scraped["file_sd_configs"] for path in group["files"]]
    assert listed == [str(tmp_path / "prom_metrics_service_discovery.json")]
    assert "http_sd_configs" not in scraped
