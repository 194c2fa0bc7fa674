"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# Serve's own pause, before any process starts Ray: each deployment of a test waits for some of it.
os.environ.setdefault("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.1")
# `make fuzz`; how many examples a test takes by itself is in the test.
settings.register_profile("fuzz", max_examples=1_000, deadline=None)
