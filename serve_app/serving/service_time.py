"""How fast a replica is: what the autoscaling policy is told of it."""

from __future__ import annotations

SECONDS_PER_IMAGE = "seconds_per_image"
"""Name of the value in what a replica tells Serve's autoscaler."""

_SPAN_IMAGES = 50


class ServiceTime:
    """Seconds of a replica for one image, as a moving average over the last images.

    A replica with two threads that are busy for 0.2 s with each image needs 0.1 s an image.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._seconds: float | None = None

    def add(self, busy_s: float, images: int = 1) -> None:
        """Count what one thread was busy for, with this many images."""
        seconds = busy_s / (images * self._threads)
        if self._seconds is None:
            self._seconds = seconds
        weight = min(1.0, images / _SPAN_IMAGES)
        self._seconds += weight * (seconds - self._seconds)

    def stats(self) -> dict[str, float]:
        """Return what ``record_autoscaling_stats`` reports; empty before the first image."""
        return {} if self._seconds is None else {SECONDS_PER_IMAGE: self._seconds}
