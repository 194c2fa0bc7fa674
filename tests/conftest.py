"""Settings that all tests share."""

from __future__ import annotations

import os
from importlib.util import find_spec

from hypothesis import settings

# Set before any process starts Ray. Every deployment of a test waits for Serve's control loop.
os.environ.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.1")
# The bundled model, which every machine has. Tests of another model, or of the default, say so.
os.environ.setdefault("FOREEDGE_MODELS", '["folio"]')
# The profile of `make fuzz`. Without it, each test says how many examples it takes.
# A wall time is no property of the code: machines are shared, and some are slow.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")
settings.register_profile("fuzz", max_examples=1_000, deadline=None)

NEED_CATALOG = ["catalog", "deployment/test_monitoring_run.py"]
"""Tests that need the extra ``catalog``, without which everything else must work."""
collect_ignore = [] if find_spec("psycopg") else NEED_CATALOG


def pytest_report_header() -> str | None:
    """Say what is left out."""
    return (
        f"left out, since the extra 'catalog' is not installed: {', '.join(collect_ignore)}"
        if collect_ignore
        else None
    )
