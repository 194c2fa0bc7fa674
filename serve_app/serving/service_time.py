"""A replica's moving average of seconds per image, which it reports to the autoscaling policy."""

from __future__ import annotations

SECONDS_PER_IMAGE = "seconds_per_image"
"""Name of the value among the statistics that a replica reports to Serve's autoscaler."""

_SPAN_IMAGES = 50


class ServiceTime:
    """Moving average of the seconds that a replica needs per image.

    A replica with two threads that each work on an image for 0.2 s needs 0.1 s per image.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._seconds: float | None = None

    def add(self, busy_s: float, images: int = 1) -> None:
        """Add the time that one thread worked on some images.

        Args:
            busy_s: Time of the thread, in seconds.
            images: Number of images that the thread worked on.
        """
        seconds = busy_s / (images * self._threads)
        if self._seconds is None:
            self._seconds = seconds
        weight = min(1.0, images / _SPAN_IMAGES)
        self._seconds += weight * (seconds - self._seconds)

    def stats(self) -> dict[str, float]:
        """Return the statistics for ``record_autoscaling_stats``, empty before the first image."""
        return {} if self._seconds is None else {SECONDS_PER_IMAGE: self._seconds}
