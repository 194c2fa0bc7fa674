"""The tuner changes a running application, with a restart only when it needs one."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from loadtests.tuner.driver import TrialDriver
from loadtests.tuner.target import Target, own_ray
from loadtests.tuner.trials import Setting
from tests.support.images import book, jpeg


def deployments(target: Target) -> dict[str, set[str]]:
    """Return the ids of the replicas of each deployment."""
    status = target.status()
    assert status is not None
    return {
        name: {replica["replica_id"] for replica in deployment["replicas"]}
        for name, deployment in status["deployments"].items()
    }


def post_image(target: Target) -> int:
    """Return the status of a request."""
    with httpx.Client(trust_env=False, timeout=60) as client:
        url = f"{target.http}/v1/cutout?min_subject_px=1"
        return client.post(url, content=jpeg(book().image)).status_code


@pytest.mark.slow
def test_settings_are_applied_to_a_running_application() -> None:
    args = {"models": ["folio"], "http": {"max_concurrent": 8}}
    with own_ray(args) as target:
        first = Setting(threads=1)
        target.apply(first)
        assert post_image(target) == 200
        before = deployments(target)
        segmenters, pipelines = before["Segmenter-folio"], before["CutoutPipeline"]

        target.apply(replace(first, threads=2, segmenters=2, max_ongoing=16))
        after = deployments(target)
        assert len(after["Segmenter-folio"]) == 2
        assert segmenters < after["Segmenter-folio"]
        assert pipelines == after["CutoutPipeline"]

        target.apply(Setting("stack", threads=2, max_batch_size=4))
        assert not segmenters & deployments(target)["Segmenter-folio"]
        assert post_image(target) == 200

        target.apply(Setting(placement="pipeline", threads=1))
        after = deployments(target)
        assert not pipelines & after["CutoutPipeline"]
        assert "Segmenter-folio" not in after
        assert post_image(target) == 200

        # What the application cannot run is a failed trial, and the next setting works.
        reports: list[str] = []
        driver = TrialDriver(target, [1], 1, "small", reports.append)
        failed = driver.measure(replace(first, threads=0), 1)
        assert (failed.images_per_s, failed.failures) == (0, 1)
        assert "FAILED" in reports[0]
        assert "threads" in reports[0]
        target.apply(first)
        assert post_image(target) == 200
