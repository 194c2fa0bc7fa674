"""Keys of a run's folder in the ledger."""

from __future__ import annotations

from serve_app.config import LedgerConfig


def run_folder(ledger: LedgerConfig, run_id: str) -> str:
    """Return where everything of a run is: a prefix that ends in a slash."""
    return f"{ledger.prefix}runs/{run_id}/"
