"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# `make fuzz`; how many examples a test takes by itself is in the test.
settings.register_profile("fuzz", max_examples=1_000, deadline=None)
