"""Write the files that are made of others: ``python -m cluster.monitoring.dashboard``.

``foreedge-dashboard.json`` is the dashboard for Grafana, made of ``panels.yaml``.
``prometheus-rule.yaml`` gives the rules of ``rules.yaml`` to the operator of Kubernetes. ``foreedge
serve --monitor`` gets copies of ``rules.yaml`` and ``prometheus.yml``. ``make docs`` runs this, and
a test fails when a file is out of date.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
PANELS = FOLDER / "panels.yaml"
RULES = FOLDER / "rules.yaml"
_LOCAL = FOLDER.parents[1] / "ingest" / "local" / "monitoring"

_FILTER = 'namespace=~"$namespace"'
_COLUMNS, _WIDTH, _HEIGHT = 24, 12, 8
_PRICES = FOLDER.parents[1] / "ingest" / "scaling" / "data" / "prices.yaml"
_WORKER = "c8g.2xlarge"
_RAY_DASHBOARDS = ("rayDefaultDashboard", "rayServeDashboard", "rayServeDeploymentDashboard")
"""Identifiers that Ray gives its own dashboards."""


def rows() -> list[dict[str, Any]]:
    """Return the rows of panels, with the filter by namespace in their expressions."""
    text = PANELS.read_text("utf-8").replace("$ns", _FILTER)
    return yaml.safe_load(text)  # type: ignore[no-any-return]


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    return {
        "uid": "foreedge",
        "title": "Foreedge",
        "description": "Backlog, throughput, failures, stages, replicas, nodes and cost.",
        "tags": ["foreedge", "ray"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [_link(uid) for uid in _RAY_DASHBOARDS],
        "templating": {"list": [*_variables()]},
        "annotations": {"list": []},
        "panels": list(_panels()),
    }


def prometheus_rule() -> str:
    """Return the rules as an object of the Prometheus operator."""
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "foreedge", "labels": {"app.kubernetes.io/name": "foreedge"}},
        "spec": {"groups": groups},
    }
    head = "# Made of rules.yaml by `make docs`.\n"
    return head + yaml.safe_dump(manifest, sort_keys=False, width=100)


def files() -> dict[Path, str]:
    """Return the content of each file that is made."""
    return {
        FOLDER / "foreedge-dashboard.json": json.dumps(dashboard(), indent=1) + "\n",
        FOLDER / "prometheus-rule.yaml": prometheus_rule(),
        **{_LOCAL / path.name: _copy(path) for path in (RULES, FOLDER / "prometheus.yml")},
    }


def _copy(path: Path) -> str:
    head = f"# A copy of cluster/monitoring/{path.name}, made by `make docs`.\n#\n"
    return head + path.read_text("utf-8")


def _panels() -> Iterator[dict[str, Any]]:
    number = 0
    y = 0
    for row in rows():
        number += 1
        position = {"x": 0, "y": y, "w": _COLUMNS, "h": 1}
        yield {
            "id": number,
            "type": "row",
            "title": row["row"],
            "collapsed": False,
            "gridPos": position,
            "panels": [],
        }
        y += 1
        for index, panel in enumerate(row["panels"]):
            number += 1
            column, line = index * _WIDTH % _COLUMNS, index * _WIDTH // _COLUMNS
            at = {"x": column, "y": y + line * _HEIGHT, "w": _WIDTH, "h": _HEIGHT}
            yield {"id": number, "gridPos": at, **_time_series(panel)}
        y += -(-len(row["panels"]) * _WIDTH // _COLUMNS) * _HEIGHT


def _time_series(panel: dict[str, Any]) -> dict[str, Any]:
    stacking = "normal" if panel.get("stacked") else "none"
    return {
        "type": "timeseries",
        "title": panel["title"],
        "description": panel["description"],
        "datasource": _source(),
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": _source(),
                "expr": query["expr"],
                "legendFormat": query["legend"],
            }
            for number, query in enumerate(panel["queries"])
        ],
        "fieldConfig": {
            "defaults": {
                "unit": panel["unit"],
                "min": 0,
                "custom": {
                    "fillOpacity": 10 if stacking == "normal" else 0,
                    "stacking": {"mode": stacking, "group": "A"},
                },
            },
            "overrides": [],
        },
        "options": {
            "legend": {
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": True,
                "calcs": ["mean", "max", "lastNotNull"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _source() -> dict[str, str]:
    return {"type": "prometheus", "uid": "${datasource}"}


def _variables() -> Iterator[dict[str, Any]]:
    yield {
        "type": "datasource",
        "name": "datasource",
        "label": "Prometheus",
        "query": "prometheus",
    }
    # Outside of Kubernetes there is no namespace, which .* matches too.
    yield {
        "type": "query",
        "name": "namespace",
        "label": "Namespace",
        "datasource": _source(),
        "query": "label_values(ray_foreedge_build_info, namespace)",
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "refresh": 2,
        "current": {"text": "All", "value": "$__all"},
    }
    yield {
        "type": "textbox",
        "name": "price",
        "label": "US dollars per node and hour",
        "query": f"{_price_of_a_worker():.3f}",
    }


def _price_of_a_worker() -> float:
    """Return the price of an on-demand worker of cluster/ray-up.yaml, in US dollars per hour."""
    family, size = _WORKER.split(".")
    facts = yaml.safe_load(_PRICES.read_text("utf-8"))["families"][family]
    return float(facts["per_vcpu_hour"] * facts["sizes"][size])


def _link(uid: str) -> dict[str, Any]:
    return {
        "type": "link",
        "title": uid,
        "url": f"/d/{uid}",
        "keepTime": True,
        "targetBlank": True,
    }


def main() -> None:
    """Write the files."""
    for path, content in files().items():
        path.write_text(content, "utf-8")


if __name__ == "__main__":
    main()
