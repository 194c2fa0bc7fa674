"""The metrics of a running application, as Prometheus reads them from Ray."""

from __future__ import annotations

import platform
import re
import time
import urllib.request
from collections.abc import Iterator

import ray

from serve_app.serving.metrics import (
    BATCH_IMAGES,
    BATCH_WAIT_SECONDS,
    BUILD_INFO,
    CONSUMER_HEALTHY,
    DECODED_LIMIT_BYTES,
    HTTP_REQUESTS,
    IMAGE_BYTES,
    IMAGES,
    LEDGER_PART_SECONDS,
    LEDGER_RECORDS,
    MASK_CONFIDENCE,
    MESSAGES_DELETED,
    MODEL_LOAD_SECONDS,
    PERMITS_FREE,
    QUEUE_MESSAGES,
    RECEIVES,
    STAGE_SECONDS,
    Metric,
)
from tests.support.images import book, jpeg
from tests.support.running_app import App

_EXPORTED_WITHIN_S = 60
_MAY_BE_0 = (QUEUE_MESSAGES,)
_SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def test_ray_exports_what_the_application_records(app: App) -> None:
    image = jpeg(book().image)
    app.finish(app.send(app.put({"1.jpg": image})))
    url, options = "/v1/cutout", {"min_subject_px": 1}
    assert app.http.post(url, params=options, content=image).status_code == 200
    assert app.http.post(url, params=options, content=b"no image").status_code == 415
    model = app.config.models[0]
    expected: list[tuple[Metric, dict[str, str]]] = [
        (BUILD_INFO, {"architecture": platform.machine(), "deployment": "CutoutPipeline"}),
        (IMAGES, {"way_in": "queue", "outcome": "done", "model": model}),
        (IMAGES, {"way_in": "http", "outcome": "done", "deployment": "HttpApi"}),
        (IMAGES, {"way_in": "http", "outcome": "failed", "code": "unsupported_format"}),
        (IMAGE_BYTES, {"way_in": "queue", "direction": "out"}),
        (STAGE_SECONDS, {"stage": "encode"}),
        (STAGE_SECONDS, {"stage": "publish"}),
        (MASK_CONFIDENCE, {"model": model}),
        (MODEL_LOAD_SECONDS, {"model": model, "deployment": f"Segmenter-{model}"}),
        (BATCH_IMAGES, {"model": model}),
        (BATCH_WAIT_SECONDS, {"model": model}),
        (DECODED_LIMIT_BYTES, {}),
        (HTTP_REQUESTS, {"route": "/v1/cutout", "status": "415", "code": "unsupported_format"}),
        (MESSAGES_DELETED, {"deployment": "SqsIngest", "application": "foreedge"}),
        (LEDGER_RECORDS, {}),
        (LEDGER_PART_SECONDS, {}),
        (RECEIVES, {}),
        (CONSUMER_HEALTHY, {}),
        (PERMITS_FREE, {}),
        (QUEUE_MESSAGES, {"state": "visible"}),
    ]
    deadline = time.monotonic() + _EXPORTED_WITHIN_S
    while missing := [each for each in expected if not _has(*each)]:
        assert time.monotonic() < deadline, missing
        time.sleep(2)


def _has(metric: Metric, labels: dict[str, str]) -> bool:
    name = metric.exported + ("_count" if metric.kind == "histogram" else "")
    return any(
        found == name and labels.items() <= has.items() and (value > 0 or metric in _MAY_BE_0)
        for found, has, value in _samples()
    )


def _samples() -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield the name, the labels and the value of everything that the nodes export."""
    for node in ray.nodes():
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
        for line in text.splitlines():
            if found := _SAMPLE.match(line):
                yield found[1], dict(_LABEL.findall(found[2])), float(found[3])
