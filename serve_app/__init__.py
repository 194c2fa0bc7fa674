"""Foreedge removes the background from images, one at a time or by the million.

The public names are imported when they are first used. Every replica imports this package, and an
import of ``build`` alone would load all four deployments into each of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serve_app.app import build
    from serve_app.config import AppConfig
    from serve_app.contracts.job import Job, Output, Source
    from serve_app.contracts.outcome import Outcome
    from serve_app.contracts.recipe import Recipe
    from serve_app.errors import ForeedgeError
else:

    def __getattr__(name: str) -> object:
        """Import the module that defines a public name."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_MODULES[name]), name)


__all__ = [
    "AppConfig",
    "ForeedgeError",
    "Job",
    "Outcome",
    "Output",
    "Recipe",
    "Source",
    "build",
]

_MODULES = {
    "AppConfig": "serve_app.config",
    "ForeedgeError": "serve_app.errors",
    "Job": "serve_app.contracts.job",
    "Outcome": "serve_app.contracts.outcome",
    "Output": "serve_app.contracts.job",
    "Recipe": "serve_app.contracts.recipe",
    "Source": "serve_app.contracts.job",
    "build": "serve_app.app",
}


def __dir__() -> list[str]:
    """List the public names, whether they are imported yet or not."""
    return sorted({*globals(), *__all__})
