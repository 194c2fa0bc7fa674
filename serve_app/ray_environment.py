"""What must be in the environment of every process that starts Ray.

Ray reads it once, where it starts, and passes it on to its workers: on a cluster it belongs to the
containers of all nodes (docs/operations.md).
"""

from __future__ import annotations

import os

from serve_app.http_front import CALLBACK

INLINE_BYTES = 4 * 1024 * 1024
"""Up to this size what is passed between replicas travels in the message itself. Ray's own limit is
100 KiB, past which it goes through the object store: a model's input, most photographs and most
results, at the cost of a sixth of the throughput (docs/decisions/0010)."""

METRICS_EVERY_MS = 5_000
"""How often a process of Serve hands its counts to Ray, which passes them on every 10 s. By Serve's
own 100 ms every one of them wakes ten times a second, idle or not."""

CONTROL_LOOP_S = 0.5
"""The pause of Serve's controller. By its own 0.1 s it and the GCS that it asks take 6 % of a core,
idle; with this, half. Whatever it decides here is a matter of seconds."""

ENVIRONMENT = {
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": CALLBACK,
    "RAY_max_direct_call_object_size": str(INLINE_BYTES),
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": str(METRICS_EVERY_MS),
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": str(CONTROL_LOOP_S),
    # This machine may be offline.
    "RAY_USAGE_STATS_ENABLED": "0",
}


def set_environment() -> None:
    """Set what is not set."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
