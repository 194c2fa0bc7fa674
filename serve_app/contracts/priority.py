"""Priority: whether somebody waits for an image, or it is one of many."""

from __future__ import annotations

from typing import Literal

Priority = Literal["interactive", "bulk"]
"""Class of an image at every place where images wait.

``interactive`` images come over HTTP, and a client waits for each. ``bulk`` images come from the
queue.
"""
