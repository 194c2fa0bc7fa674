"""Hostile uploads next to good ones: right verdicts, answered health checks and bounded memory."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import psutil

from loadtests.benchmarks.hostile import Clients
from loadtests.harness.hostile_files import hostile_files
from loadtests.harness.metering import Meter, ray_part
from tests.support.images import book, jpeg
from tests.support.running_app import App

VERDICTS = {
    "jpeg-comments": "413",
    "jpeg-fill-bytes": "200",
    "jpeg-fill-bytes-in-scan": "413",
    "jpeg-exif-segments": "200",
    "png-chunks": "422",
    "png-xmp": "200",
    "gif-junk": "200",
    "webp-chunks": "422",
    "tiff-jpeg-60-scans": "422",
    "avif-boxes": "422",
}
"""Status of each upload. Four such files froze a replica for 85 s before headers were bounded."""
SECONDS = 10.0
HEALTH_TIMEOUT_S = 15.0
"""Busy machines take seconds for a health check, a replica that is frozen takes a minute."""
MOST_GROWTH_MB = 1_200
"""The budget of decoded images (640 MB), and the copies of the uploads that are under way."""


def test_good_images_and_health_checks_are_answered_next_to_hostile_uploads(
    app: App, tmp_path: Path
) -> None:
    makers, hostile = hostile_files(), []
    for name in VERDICTS:
        hostile.append(tmp_path / name)
        hostile[-1].write_bytes(makers[name]())
    good = [jpeg(book(seed=seed, width=400, height=300).image) for seed in range(4)]
    clients = Clients(app.url, good, hostile, health_timeout_s=HEALTH_TIMEOUT_S)
    warm = clients.run(1.0, hostile=False)
    assert not warm.good_failures
    meter = Meter(os.getpid(), ray_part)
    _reset_peaks()
    before_mb = meter.peak_mb()

    phase = clients.run(SECONDS, hostile=True)

    assert not phase.good_failures
    assert len(phase.good_s) >= 8
    assert phase.health_s
    assert phase.failed_health_checks == 0
    uploads = sum(phase.hostile.values())
    assert uploads >= 5
    assert phase.hostile == Counter(list(VERDICTS.values())[:uploads])
    for part in ("CutoutPipeline", "HttpApi"):
        assert meter.peak_mb()[part] - before_mb[part] < MOST_GROWTH_MB


def _reset_peaks() -> None:
    """Set the peak of the resident memory of each process to what it has now."""
    for process in psutil.Process().children(recursive=True):
        # See proc(5): 5 resets VmHWM.
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")
