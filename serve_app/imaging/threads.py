"""Threads of the libraries: none, because every image has a thread of its own."""

from __future__ import annotations

import cv2
from threadpoolctl import threadpool_limits


def disable_library_threads() -> None:
    """Make OpenCV and NumPy's BLAS work in the thread that calls them.

    Otherwise each would start as many threads as there are cores, for every thread of ours.
    """
    cv2.setNumThreads(1)
    threadpool_limits(1, user_api="blas")
