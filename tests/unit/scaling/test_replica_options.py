"""The replica options of every deployment, as ``build`` hands them to Serve."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest
from ray.serve._private.build_app import build_app
from ray.serve.deployment import deployment_to_schema
from ray.serve.schema import DeploymentSchema

from serve_app import app
from serve_app.config import AppConfig
from serve_app.errors import InvalidConfig

SETTINGS: dict[str, Any] = {
    "models": ["folio", "u2netp"],
    "queue": {"url": "http://127.0.0.1:9/0/queue"},
    "ledger": {"bucket": "b"},
    "pipeline": {"threads": 2},
    "segmenter": {"threads": 4, "replicas": 2},
    "autoscaling": {"max_replicas": 9, "pixels_s": 0.2, "segment_s": 0.6, "drain_target_s": 630},
}


def deployments(settings: dict[str, Any]) -> dict[str, DeploymentSchema]:
    """Return the deployments of an application as Serve deploys them, by name."""
    built = build_app(app.build(settings), name="foreedge", make_deployment_handle=MagicMock())
    return {each.name: deployment_to_schema(each) for each in built.deployments}


def test_both_deployments_follow_the_backlog_each_by_its_own_time() -> None:
    built = deployments(SETTINGS)
    scaling: dict[str, Any] = {name: each.autoscaling_config for name, each in built.items()}
    assert isinstance(built["SqsIngest"].num_replicas, int)
    segmenter, pipeline = scaling["Segmenter-folio"], scaling["CutoutPipeline"]
    assert (segmenter.min_replicas, segmenter.max_replicas) == (2, 9)
    assert (pipeline.min_replicas, pipeline.max_replicas) == (1, 9)
    kwargs = segmenter.policy.policy_kwargs["settings"]
    assert (kwargs["seconds_per_image"], kwargs["slots"]) == (0.15, 4)
    assert (kwargs["drain_s"], kwargs["permits"]) == (600, 64)
    assert kwargs["queue_url"] == SETTINGS["queue"]["url"]
    kwargs = pipeline.policy.policy_kwargs["settings"]
    assert (kwargs["seconds_per_image"], kwargs["slots"]) == (0.1, pytest.approx(8))
    assert scaling["Segmenter-u2netp"].policy.policy_kwargs["settings"]["queue_url"] is None
    assert scaling["HttpApi"].target_ongoing_requests == 32


def test_models_inside_of_the_pipeline_scale_with_nothing() -> None:
    settings = {**SETTINGS, "segmenter": {"placement": "pipeline"}}
    with pytest.raises(InvalidConfig, match=r"segmenter\.placement deployment"):
        AppConfig.load(settings)
    del settings["autoscaling"]
    assert set(deployments(settings)) == {"HttpApi", "SqsIngest", "CutoutPipeline"}


def test_without_the_section_the_replicas_are_fixed() -> None:
    settings = {key: value for key, value in SETTINGS.items() if key != "autoscaling"}
    for name, deployment in deployments(settings).items():
        assert isinstance(deployment.num_replicas, int)
        assert deployment.num_replicas == (2 if name.startswith("Segmenter") else 1)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"max_replicas": 1}, "autoscaling.max_replicas must be at least 2"),
        ({"drain_target_s": 50}, "twice upscale_delay_s"),
        ({"max_replicas": 0}, "autoscaling.max_replicas"),
    ],
)
def test_settings_that_cannot_be(section: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        AppConfig.load({**SETTINGS, "autoscaling": section})
