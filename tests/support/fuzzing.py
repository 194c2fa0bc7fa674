"""How many examples a property test takes: few in every run, many in ``make fuzz``."""

from __future__ import annotations

from hypothesis import settings


def examples(count: int) -> int:
    """Return a number of examples, or that of the profile of ``make fuzz`` if it is loaded.

    Args:
        count: Number of examples in every other run.
    """
    is_fuzzing = settings.get_current_profile_name() == "fuzz"
    return settings().max_examples if is_fuzzing else count
