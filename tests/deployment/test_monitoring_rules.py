"""The alerts fire when they should and only then, and every name in a panel exists."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.dashboard.modules.metrics import metrics_head

from cluster.monitoring.dashboard import FOLDER, RULES, dashboard, files
from serve_app.serving.metrics import METRICS
from tests.deployment.alert_cases import FIRING, Case
from tests.deployment.quiet_cases import QUIET

PROMTOOL = shutil.which("promtool")
PAGE = FOLDER.parents[1] / "docs" / "operations" / "monitoring.md"

_OURS = re.compile(r"\bray_foreedge_\w+")
_PARTS = re.compile(r"_(bucket|sum|count)$")

MODELS = FOLDER.parents[1] / ".venv-deployment" / "bin" / "python"

needs_grafana_models = pytest.mark.skipif(
    not MODELS.exists(), reason=f"{MODELS} is missing (make check-monitoring)"
)
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is missing: apt-get install prometheus"
)


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    """Return every expression of the dashboard and of the rules."""
    panels = dashboard()["panels"]
    shown = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return [*shown, *(rule["expr"] for rule in rules())]


def promtool(*arguments: str | Path) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_files_are_what_make_docs_writes() -> None:
    for path, content in files().items():
        assert path.read_text("utf-8") == content, f"{path.name}: run `make docs`"


def test_every_metric_is_shown_and_every_name_exists() -> None:
    used = {name for expression in expressions() for name in _OURS.findall(expression)}
    exported = {metric.exported: metric for metric in METRICS}
    plain = {name if name in exported else _PARTS.sub("", name) for name in used}
    assert plain - set(exported) == set(), "these are not exported"
    assert set(exported) - plain == set(), "no panel and no alert uses these"
    histograms = {name for name, metric in exported.items() if metric.kind == "histogram"}
    assert {name for name in used if name in histograms} == set(), "a part of each is exported"


def test_every_alert_names_a_section_of_the_runbook() -> None:
    for rule in rules():
        if "alert" not in rule:
            continue
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        headings = re.findall(r"^### (\w+)$", (FOLDER.parents[1] / page).read_text("utf-8"), re.M)
        assert rule["alert"] in headings
        assert anchor == rule["alert"].lower()
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_every_alert_has_a_case() -> None:
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert {case.name for case in FIRING} == alerts
    for case in FIRING:
        assert {case.name} in case.firing.values()
        assert set() in case.firing.values()


@needs_grafana_models
@pytest.mark.parametrize("mistake", [None, "legendFormats", "gridPosition"])
def test_grafana_knows_every_field_of_the_dashboard(mistake: str | None, tmp_path: Path) -> None:
    made = dashboard()
    if mistake is not None:
        made["panels"][1]["targets"][0][mistake] = made["panels"][1][mistake] = "x"
    file = tmp_path / "dashboard.json"
    file.write_text(json.dumps(made))
    program = Path(__file__).parent / "programs" / "grafana_fields.py"
    done = subprocess.run(
        [MODELS, program, file], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines() == (
        []
        if mistake is None
        else [f"dashboard.panels[1].targets[0].{mistake}", f"dashboard.panels[1].{mistake}"]
    )


@needs_promtool
def test_the_rules_and_the_configuration_are_valid() -> None:
    promtool("check", "rules", RULES)
    promtool("check", "config", FOLDER / "prometheus.yml")


@needs_promtool
@pytest.mark.parametrize("case", [*FIRING, *QUIET], ids=lambda case: case.name)
def test_what_fires(case: Case, tmp_path: Path) -> None:
    firing = 'count by (alertname) (ALERTS{alertstate="firing"})'
    expected = [
        {
            "expr": firing,
            "eval_time": f"{minute}m",
            "exp_samples": [
                {"labels": f'{{alertname="{name}"}}', "value": case.alerts.get(minute, 1)}
                for name in sorted(names)
            ],
        }
        for minute, names in case.firing.items()
    ]
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": case.evaluated_every,
        "group_eval_order": ["foreedge", "foreedge-alerts"],
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": name, "values": values} for name, values in case.all_series.items()
                ],
                "promql_expr_test": expected,
            }
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(test, width=10_000))
    promtool("test", "rules", file)


@pytest.mark.parametrize("file", ["ray-up.yaml", "kubernetes/base/rayservice.yaml"])
def test_rays_dashboard_knows_prometheus_and_grafana(file: str) -> None:
    text = (FOLDER.parent / file).read_text("utf-8")
    names = re.findall(r"^\| `(RAY_\w+)` \|", PAGE.read_text("utf-8"), re.M)
    assert len(names) == 5
    assert [name for name in names if not re.search(rf"{name}(=|, value: )\S+", text)] == []
    # What the files name is what Ray reads.
    read = inspect.getsource(metrics_head)
    assert [name for name in names if f'"{name}"' not in read] == []
