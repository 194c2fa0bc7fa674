"""Histories of an application, minute by minute, and the alerts that fire in them.

Values are written as promtool reads them: ``0+5x10`` is a value and ten more that grow by 5,
``_x3`` are three minutes without a sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field

BUILD = 'ray_foreedge_build_info{deployment="HttpApi"}'
VISIBLE = 'ray_foreedge_queue_messages{state="visible", replica="a"}'
HELD = 'ray_foreedge_queue_messages{state="not_visible", replica="a"}'
HEALTHY = 'ray_foreedge_consumer_healthy{replica="a"}'
OLDEST = 'ray_foreedge_oldest_received_seconds{replica="a"}'
RECEIVED = 'ray_foreedge_messages_received_total{replica="a"}'
DEAD = 'ray_foreedge_dead_letters_total{replica="a"}'
LOST = 'ray_foreedge_leases_lost_total{replica="a"}'
LAG = 'ray_foreedge_ledger_lag_seconds{replica="a"}'
DECODED = 'ray_foreedge_decoded_bytes{replica="p"}'
DECODED_LIMIT = 'ray_foreedge_decoded_limit_bytes{replica="p"}'
WORKER_USED = 'ray_node_mem_used{ip="w", IsHeadNode="false"}'
WORKER_TOTAL = 'ray_node_mem_total{ip="w", IsHeadNode="false"}'
HEAD_USED = 'ray_node_mem_used{ip="h", IsHeadNode="true"}'
HEAD_TOTAL = 'ray_node_mem_total{ip="h", IsHeadNode="true"}'


def images(outcome: str = "done", code: str = "", way_in: str = "queue") -> str:
    labels = f'way_in="{way_in}", outcome="{outcome}", code="{code}", replica="a"'
    return f"ray_foreedge_images_total{{{labels}}}"


def requests(status: int, code: str = "", route: str = "/v1/cutout") -> str:
    labels = f'route="{route}", status="{status}", code="{code}", replica="h"'
    return f"ray_foreedge_http_requests_total{{{labels}}}"


def refusals(code: str) -> str:
    return f'ray_foreedge_http_refusals_total{{code="{code}", limit="", replica="h"}}'


def serve(name: str, deployment: str, replica: str = "") -> str:
    labels = f'application="foreedge", deployment="{deployment}", replica="{replica}"'
    return f"ray_serve_{name}{{{labels}}}"


def within(namespace: str, series: dict[str, str]) -> dict[str, str]:
    """Return series as Kubernetes labels them."""
    return {
        name.replace("{", f'{{namespace="{namespace}", ', 1): values
        for name, values in series.items()
    }


CATALOG_HEALTHY = 'ray_foreedge_catalog_database_healthy{replica="a"}'
CATALOG_OLDEST = 'ray_foreedge_catalog_oldest_pending_seconds{replica="a"}'
CATALOG_UNSENT = 'ray_foreedge_catalog_jobs{state="queue_failed", replica="a"}'
CATALOG_GIVEN_UP = 'ray_foreedge_catalog_jobs{state="permanently_failed", replica="a"}'
CATALOG_STALE = 'ray_foreedge_catalog_stale_jobs{replica="a"}'
STARTED = serve("replica_startup_latency_ms_count", "CutoutPipeline")


@dataclass(frozen=True)
class Case:
    """One history."""

    name: str
    series: dict[str, str]
    firing: dict[int, set[str]]
    """Alerts that fire at a minute. Nothing else fires then."""
    running: bool = True
    """Whether the application reports its build all the time."""
    alerts: dict[int, int] = field(default_factory=dict)
    """How many alerts of one name fire at a minute, if not one."""
    evaluated_every: str = "30s"
    """How often the rules are evaluated. Days take long by the half minute."""

    @property
    def all_series(self) -> dict[str, str]:
        return {**({BUILD: "1x1500"} if self.running else {}), **self.series}


FIRING = (
    Case(
        "ForeedgeNotRunning",
        {BUILD: "1x9 _x30 1x20"},
        {23: set(), 26: {"ForeedgeNotRunning"}, 41: set()},
        running=False,
    ),
    Case(
        "ForeedgeNoConsumer",
        {VISIBLE: "100x80", HEALTHY: "1x9 0x19 1x40", images(): "0+60x80"},
        {19: set(), 21: {"ForeedgeNoConsumer"}, 29: {"ForeedgeNoConsumer"}, 31: set()},
    ),
    Case(
        "ForeedgeNotRunning",
        # Production ends with an empty queue, and staging lives on in the same Prometheus. Who took
        # it away on purpose hears of it for a day.
        {
            **within("staging", {BUILD: "1x1500", VISIBLE: "0x1500", HEALTHY: "1x1500"}),
            **within("production", {BUILD: "1x9", VISIBLE: "0x9", HEALTHY: "1x9"}),
        },
        {23: set(), 26: {"ForeedgeNotRunning"}, 1400: {"ForeedgeNotRunning"}, 1470: set()},
        running=False,
        evaluated_every="5m",
    ),
    Case(
        "ForeedgeNotRunning",
        # Nothing is left of two applications: reported for each, and after a day in general.
        within("staging", {BUILD: "1x9"}) | within("production", {BUILD: "1x9"}),
        {23: set(), 1400: {"ForeedgeNotRunning"}, 1480: {"ForeedgeNotRunning"}},
        running=False,
        alerts={1400: 2, 1480: 1},
        evaluated_every="5m",
    ),
    Case(
        "ForeedgeNoConsumer",
        # The consumers of production end, and with them what is known about its queue.
        {
            **within("staging", {BUILD: "1x90", VISIBLE: "50x90", HEALTHY: "1x90"}),
            **within("staging", {images(): "0+60x90"}),
            **within("production", {BUILD: "1x90", VISIBLE: "5000x9 _x50 5000x30"}),
            **within("production", {HEALTHY: "1x9 _x50 1x30", images(): "0+60x9 _x50 600+60x30"}),
        },
        {23: set(), 27: {"ForeedgeNoConsumer"}, 59: {"ForeedgeNoConsumer"}, 62: set()},
        running=False,
    ),
    Case(
        "ForeedgeBacklogNotDraining",
        {VISIBLE: "100x80", HEALTHY: "1x80", images(): "0+60x10 600x39 660+60x30"},
        {34: set(), 36: {"ForeedgeBacklogNotDraining"}, 53: set()},
    ),
    Case(
        "ForeedgeBacklogNotDraining",
        # No image has ever ended, so there is no series of images.
        {VISIBLE: "0x9 100x60", HEALTHY: "1x80"},
        {29: set(), 31: {"ForeedgeBacklogNotDraining"}},
    ),
    Case(
        "ForeedgeMessagesNearExpiry",
        {OLDEST: "100x9 260000x19 0x10"},
        {14: set(), 16: {"ForeedgeMessagesNearExpiry"}, 31: set()},
    ),
    Case(
        "ForeedgeDeadLetters",
        {RECEIVED: "0+100x90", DEAD: "0x9 5+5x19 100x60"},
        {15: set(), 22: {"ForeedgeDeadLetters"}, 42: set()},
    ),
    Case(
        "ForeedgeImagesFail",
        {images(): "0+100x90", images("failed", "no_subject"): "_x10 20+20x19 400x50"},
        {14: set(), 18: {"ForeedgeImagesFail"}, 45: set()},
    ),
    Case(
        "ForeedgeImagesFail",
        {
            images(way_in="http"): "0+10x90",
            images("failed", "internal_error", "http"): "0x9 5+5x19 100x50",
        },
        {13: set(), 22: {"ForeedgeImagesFail"}, 48: set()},
    ),
    Case(
        "ForeedgeLeasesLost",
        {RECEIVED: "0+100x90", LOST: "_x10 5+5x19 100x60"},
        {15: set(), 22: {"ForeedgeLeasesLost"}, 42: set()},
    ),
    Case(
        "ForeedgeLedgerSlow",
        {LAG: "0x9 30+60x19 0x10"},
        {14: set(), 17: {"ForeedgeLedgerSlow"}, 31: set()},
    ),
    Case(
        "ForeedgeReplicasCrash",
        {
            STARTED: "1x9 2+1x12 14x40",
            serve("deployment_replica_healthy", "CutoutPipeline", "p"): "1x60",
        },
        {15: set(), 18: {"ForeedgeReplicasCrash"}, 35: set()},
    ),
    Case(
        "ForeedgeReplicasMissing",
        {
            serve("autoscaling_target_replicas", "Segmenter-folio"): "2x9 4x50",
            serve("deployment_replica_healthy", "Segmenter-folio", "a"): "1x60",
            serve("deployment_replica_healthy", "Segmenter-folio", "b"): "1x60",
            serve("deployment_replica_healthy", "Segmenter-folio", "c"): "_x40 1x20",
            serve("deployment_replica_healthy", "Segmenter-folio", "d"): "_x40 1x20",
        },
        {29: set(), 31: {"ForeedgeReplicasMissing"}, 41: set()},
    ),
    Case(
        "ForeedgeImagesWaitForMemory",
        {DECODED: "10x9 98x29 10x20", DECODED_LIMIT: "100x60"},
        {24: set(), 26: {"ForeedgeImagesWaitForMemory"}, 41: set()},
    ),
    Case(
        "ForeedgeNodeMemory",
        {WORKER_USED: "50x9 95x19 50x20", WORKER_TOTAL: "100x60"},
        {19: set(), 21: {"ForeedgeNodeMemory"}, 31: set()},
    ),
    Case(
        "ForeedgeHeadMemory",
        {HEAD_USED: "50x9 90x19 50x20", HEAD_TOTAL: "100x60"},
        {19: set(), 21: {"ForeedgeHeadMemory"}, 31: set()},
    ),
    Case(
        "ForeedgeHttpErrors",
        {requests(200): "0+50x90", requests(500, "internal_error"): "_x10 5+5x9 50x60"},
        {14: set(), 20: {"ForeedgeHttpErrors"}, 40: set()},
    ),
    Case(
        "ForeedgeHttpRefusals",
        {
            requests(200): "0+50x90",
            requests(503, "overloaded"): "_x10 20+20x19 400x60",
            refusals("overloaded"): "_x10 20+20x19 400x60",
        },
        {14: set(), 20: {"ForeedgeHttpRefusals"}, 46: set()},
    ),
    Case(
        "ForeedgeCatalogDatabase",
        {CATALOG_HEALTHY: "1x9 0x19 1x20"},
        {14: set(), 17: {"ForeedgeCatalogDatabase"}, 31: set()},
    ),
    Case(
        "ForeedgeCatalogJobsWait",
        {CATALOG_OLDEST: "37000+600x30 0x20"},
        {24: set(), 29: {"ForeedgeCatalogJobsWait"}, 33: set()},
    ),
    Case(
        "ForeedgeCatalogJobsUnsent",
        {CATALOG_UNSENT: "0x9 3x39 0x20", CATALOG_GIVEN_UP: "0x70"},
        {38: set(), 42: {"ForeedgeCatalogJobsUnsent"}, 51: set()},
    ),
    Case(
        "ForeedgeCatalogJobsStale",
        {CATALOG_STALE: "0x9 2x39 0x20"},
        {38: set(), 42: {"ForeedgeCatalogJobsStale"}, 51: set()},
    ),
)
"""Each alert fires at its minute, and ends when its reason has ended."""
