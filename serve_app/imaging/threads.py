"""Threads inside of the libraries: none, since every image has a thread of its own."""

from __future__ import annotations

import cv2
from threadpoolctl import threadpool_limits


def disable_library_threads() -> None:
    """Let OpenCV and NumPy's BLAS work in the thread that calls them.

    Each would start as many threads as there are cores, for every one of ours.
    """
    cv2.setNumThreads(1)
    threadpool_limits(1, user_api="blas")
