"""Histories in which no alert fires, although replicas, nodes and whole runs come and go."""

from __future__ import annotations

from tests.deployment.alert_cases import (
    CATALOG_HEALTHY,
    CATALOG_OLDEST,
    CATALOG_STALE,
    CATALOG_UNSENT,
    DEAD,
    DECODED,
    DECODED_LIMIT,
    HEAD_TOTAL,
    HEAD_USED,
    HEALTHY,
    HELD,
    LAG,
    LOST,
    OLDEST,
    RECEIVED,
    STARTED,
    VISIBLE,
    WORKER_TOTAL,
    WORKER_USED,
    Case,
    images,
    refusals,
    requests,
    serve,
)


def _update() -> dict[str, str]:
    """Return the replacement of 64 replicas at the minutes 10 to 14, during a run."""
    found = {}
    for deployment in ("CutoutPipeline", "Segmenter-u2netp"):
        for number in range(32):
            goes, comes = f"1x{10 + number % 4}", f"_x{12 + number % 4} 1x60"
            healthy = "deployment_replica_healthy"
            found[serve(healthy, deployment, f"old{number}")] = goes
            found[serve(healthy, deployment, f"new{number}")] = comes
        found[serve("replica_startup_latency_ms_count", deployment)] = "32x11 40+8x3 64x60"
        found[serve("autoscaling_target_replicas", deployment)] = "32x80"
    return found


_HOURS = 1_440
_NODES = {
    WORKER_USED: f"80x{_HOURS}",
    WORKER_TOTAL: f"100x{_HOURS}",
    HEAD_USED: f"60x{_HOURS}",
    HEAD_TOTAL: f"100x{_HOURS}",
}

QUIET = (
    Case(
        "a rolling update during a run",
        {
            **_update(),
            VISIBLE: "50000-500x80",
            HELD: "2000x80",
            HEALTHY: "1x10 0x2 1x60",
            # The replicas that go give their images back, and some requests are refused.
            images(): "0+500x10 5000x3 5000+500x60",
            RECEIVED: "0+500x12 6000+500x60",
            LOST: "_x12 6x60",
            requests(200): "0+60x80",
            requests(503, "overloaded"): "_x12 5x60",
            refusals("overloaded"): "_x12 5x60",
            requests(500, "replica_lost"): "_x12 2x60",
            # Probes of replicas that load their models.
            requests(504, "deadline_exceeded", "/readyz"): "_x12 40x60",
        },
        {minute: set() for minute in range(1, 80)},
    ),
    Case(
        "a large run that is cancelled",
        {
            VISIBLE: "9000-300x29 0x50",
            HEALTHY: "1x80",
            images(): "0+100x10 1000x70",
            images("failed", "run_cancelled"): "_x10 300+300x29 9000x40",
            images("failed", "cancelled", "http"): "_x10 30+30x29 900x40",
            RECEIVED: "0+300x40 12000x40",
        },
        {minute: set() for minute in range(1, 80)},
    ),
    Case(
        "an idle night",
        {
            **_NODES,
            VISIBLE: "0x720",
            HELD: "0x720",
            HEALTHY: "1x720",
            OLDEST: "0x720",
            RECEIVED: "500x720",
            images(): "490x720",
            images("failed", "corrupt_image"): "10x720",
            DEAD: "10x720",
            LAG: "0x720",
            CATALOG_HEALTHY: "1x720",
            CATALOG_OLDEST: "0+60x30 0x690",
            # The sweep takes up to 5 minutes.
            CATALOG_UNSENT: "0x100 4x5 0x610",
            CATALOG_STALE: "0x300 1x20 0x400",
            DECODED: "0x720",
            DECODED_LIMIT: "100x720",
            requests(200): "100x720",
            serve("autoscaling_target_replicas", "CutoutPipeline"): "1x720",
            serve("deployment_replica_healthy", "CutoutPipeline", "p"): "1x720",
            STARTED: "5x720",
        },
        {minute: set() for minute in range(5, 720, 35)},
    ),
    Case(
        "a run of ten million images",
        {
            **_NODES,
            # Sent within two hours, done within fourteen, and 0.6 % of the images are broken.
            VISIBLE: "0+71000x119 8500000-12000x700 0x500",
            HELD: "2000x820 0x500",
            HEALTHY: f"1x{_HOURS}",
            OLDEST: "0+55x820 0x500",
            RECEIVED: "0+12000x833 10000000x500",
            images(): "0+11900x833 9912700x500",
            images("failed", "corrupt_image"): "0+40x833 33320x500",
            images("failed", "no_subject"): "0+32x833 26656x500",
            DEAD: "0+72x833 59976x500",
            # A spot node goes every hour, and each takes some leases with it.
            LOST: "0+2x833 1666x500",
            LAG: f"2x{_HOURS}",
            DECODED: "87x833 0x500",
            DECODED_LIMIT: f"100x{_HOURS}",
            serve("autoscaling_target_replicas", "CutoutPipeline"): "1x5 32x830 1x600",
            **{
                serve("deployment_replica_healthy", "CutoutPipeline", f"p{number}"): (
                    f"_x{10 + number % 6} 1x820"
                )
                for number in range(1, 32)
            },
            # Thirty replicas come back within each hour.
            STARTED: "1x9 32+0.5x820",
            serve("deployment_replica_healthy", "CutoutPipeline", "p0"): f"1x{_HOURS}",
        },
        {minute: set() for minute in range(1, 1_300, 13)},
    ),
)
"""Nothing fires in these."""
