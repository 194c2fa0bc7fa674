"""Numba's cache of compiled functions in a folder that is read-only when the application runs.

The container image compiles pymatting when it is built, and names this class in
``NUMBA_CACHE_LOCATOR_CLASSES``. Numba's own class refuses a folder that it cannot write to, and
compiles everything again, which takes a minute in each replica.
"""

from __future__ import annotations

from pathlib import Path

from numba.core.caching import UserProvidedCacheLocator


class BuiltCacheLocator(UserProvidedCacheLocator):
    """The folder of ``NUMBA_CACHE_DIR``, which need not be writable once it has been filled."""

    def ensure_cache_path(self) -> None:
        """Make the folder if it does not exist.

        Raises:
            OSError: It does not exist and cannot be made.
        """
        Path(self.get_cache_path()).mkdir(parents=True, exist_ok=True)
