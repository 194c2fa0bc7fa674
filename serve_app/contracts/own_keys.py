"""Recognition of objects that this application wrote, by the shape of their keys.

A bucket may send events for images, results and ledger alike, and the prefixes of a run need not be
those of the configuration. So it is the end of a key that counts, which no setting changes.
"""

from __future__ import annotations

import re

_RESULT = re.compile(r"(?:/|_processed_[0-9]+_)[0-9a-f]{20}(?:\.(?:png|webp|jpg)|_thumb\.jpg)\Z")
"""End of the key of a result or a thumbnail (``result_keys``): a fingerprint in a folder, or behind
the name that a job of the catalog gives it (``ingest.catalog.rules.cutout_stem``)."""
_LEDGER = re.compile(r"runs/[A-Za-z0-9._-]{1,100}/(?:[a-z_-]+\.json|[a-z_-]+/[^/]+\.jsonl\.gz)\Z")
"""End of the key of an object in the folder of a run (``ingest.runs.folder``)."""


def is_own_key(key: str) -> bool:
    """Return whether a key has the shape of a result, a thumbnail or an object of the ledger."""
    return _RESULT.search(key) is not None or _LEDGER.search(key) is not None
