"""The dashboard and the alerts in a real run with a real Prometheus (`make check-monitoring`).

Prometheus finds what to scrape in the file that Ray writes. ``monitored_run`` says what happens.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray.dashboard.modules.metrics.dashboards.common import DashboardConfig
from ray.dashboard.modules.metrics.dashboards.serve_dashboard_panels import serve_dashboard_config
from ray.dashboard.modules.metrics.dashboards.serve_deployment_dashboard_panels import (
    serve_deployment_dashboard_config,
)

from cluster.monitoring.dashboard import FOLDER, dashboard
from tests.deployment.dashboard_picture import draw, filled
from tests.deployment.monitored_run import (
    PROMETHEUS,
    Prometheus,
    discovery_file,
    monitored_application,
    run_with_everything,
)
from tests.deployment.test_monitoring_rules import rules

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        PROMETHEUS is None, reason="prometheus is missing: apt-get install prometheus"
    ),
]

NO_DATA = {
    "ray_foreedge_catalog_repetitions_total": "needs a row that a user holds when a job wants it",
}
"""Metrics of which a run may have nothing to count, with the reason."""

PICTURE = FOLDER.parents[1] / "docs" / "images" / "dashboard.png"
_WRITE_PICTURE = "WRITE_DASHBOARD_PICTURE"
"""Environment variable that is set to draw the plots of the documents again."""


@dataclass(frozen=True)
class Recorded:
    """A run that has ended, and the Prometheus that has its data."""

    prometheus: Prometheus
    start_s: float
    end_s: float


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    with monitored_application(tmp_path_factory.mktemp("prometheus")) as monitored:
        start_s = time.time()
        run_with_everything(monitored)
        yield Recorded(monitored.prometheus, start_s, time.time())


def test_ray_lists_what_is_scraped(run: Recorded) -> None:
    targets = run.prometheus.targets()
    listed = {
        target for group in json.loads(discovery_file().read_text()) for target in group["targets"]
    }
    # Each is read once, although the dashboard lists it too.
    assert len(targets) == len(listed) >= 3
    assert set(targets) == {"up"}
    assert run.prometheus.discovered() == 2 * len(listed), "the file and the dashboard list each"


def test_every_panel_has_data(run: Recorded) -> None:
    empty = []
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            expression = filled(target["expr"])
            if not run.prometheus.range(expression, run.start_s, run.end_s):
                empty.append((panel["title"], expression))
    unexplained = [each for each in empty if not any(name in each[1] for name in NO_DATA)]
    assert unexplained == []


def test_every_rule_evaluates_and_no_alert_fires(run: Recorded) -> None:
    for rule in rules():
        run.prometheus.query(rule["expr"])
    names = run.prometheus.names()
    recording = [rule for rule in rules() if "record" in rule]
    for rule in recording:
        # Rules are evaluated every 30 s, so what was counted last may not be recorded yet.
        assert rule["record"] in names or run.prometheus.query(rule["expr"]), rule
    assert run.prometheus.query('ALERTS{alertstate="firing"}') == []


def test_the_failures_are_those_of_the_run(run: Recorded) -> None:
    found = run.prometheus.query(
        'sum by (code) (ray_foreedge_images_total{way_in="queue", outcome="failed"})'
    )
    counted = {series["metric"]["code"]: float(series["value"][1]) for series in found}
    codes = ["corrupt_image", "empty_image", "invalid_message", "no_subject", "unsupported_format"]
    assert counted == dict.fromkeys(codes, 1)
    refused = run.prometheus.query("sum by (code) (ray_foreedge_http_refusals_total)")
    assert {each["metric"]["code"] for each in refused} == {"rate_limited", "unauthenticated"}


def test_the_panels_of_ray_itself(run: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    shown, empty = 0, []
    for config in (serve_dashboard_config, serve_deployment_dashboard_config):
        for title, expression in _panels_of_ray(config):
            if run.prometheus.range(expression, run.start_s, run.end_s):
                shown += 1
            else:
                empty.append(title)
    with capsys.disabled():
        print(f"\nRay's Serve boards: {shown} expressions with data, {len(empty)} without:")
        print("; ".join(sorted(set(empty))))
    assert shown >= 30


def test_the_picture_of_the_panels(run: Recorded, tmp_path: Path) -> None:
    path = PICTURE if os.environ.get(_WRITE_PICTURE) else tmp_path / "dashboard.png"
    draw(dashboard(), run.prometheus, run.start_s, run.end_s, path)
    assert path.stat().st_size > 50_000


def _panels_of_ray(config: DashboardConfig) -> Iterator[tuple[str, str]]:
    panels: list[Any] = list(config.panels or [])
    for row in config.rows or []:
        panels += row.panels
    for panel in panels:
        for target in panel.targets:
            expression = target.expr.replace("{{{global_filters}}}", "{}")
            expression = expression.replace(",{global_filters}", "").replace("{global_filters}", "")
            expression = expression.replace("{{", "{").replace("}}", "}")
            expression = re.sub(r"\$\{?__\w+\}?", "1m", expression)
            yield panel.title, re.sub(r"\$\{?\w+\}?", ".*", expression)
