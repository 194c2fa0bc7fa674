"""Reports of processes in Ray's key-value store, so that they outlive the processes.

A replica answers for itself while it runs. Each also stores its report every few seconds, if it has
anything new, and what was stored last counts after its end. Serve's controller, which runs the
autoscaling policy and cannot be asked, reports in this way only.
"""

from __future__ import annotations

import functools
import logging
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import orjson
from ray import serve
from ray.exceptions import RpcError
from ray.experimental.internal_kv import internal_kv_get_gcs_client
from ray.serve.exceptions import RayServeException

from serve_app.serving.ray_metrics import recent_values, sample_periodically
from serve_app.serving.recent_metrics import (
    REMEMBERED,
    RecentFailure,
    RecentReport,
    RecentValues,
    Series,
    last_slot,
    without_old_slots,
)

_NAMESPACE = b"foreedge"
_TIMEOUT_S = 2.0
_CONTROLLER = "controller"
_METRICS = {metric.name: metric for metric in REMEMBERED}

_logger = logging.getLogger(__name__)


class ReportKeeper:
    """Stores the report of one process. One thread may call it."""

    def __init__(self, application: str, owner: str, report: Callable[[], RecentReport]) -> None:
        """Store nothing yet.

        Args:
            application: Name of the application.
            owner: Name of the process, which no other one ever has.
            report: Function that returns its report.
        """
        self._application = application
        self._key = _prefix(application) + owner.encode()
        self._report = report
        self._stored = b""
        self._failing = False

    def keep(self) -> None:
        """Store the report, unless it is the one that was stored last. Blocks.

        The first time it removes reports that are too old, so that as many stay as there were
        processes within half an hour, whether anybody asks for them or not.
        """
        encoded = encode_report(self._report())
        client = internal_kv_get_gcs_client()
        if encoded == self._stored or client is None:
            return
        if not self._stored:
            kept_reports(self._application)
        try:
            client.internal_kv_put(self._key, encoded, True, _NAMESPACE, _TIMEOUT_S)
        except RpcError as error:
            if not self._failing:
                _logger.warning("What this process did will be lost with it: %s", error)
            self._failing = True
        else:
            self._stored = encoded
            self._failing = False


def own_report(failures: Iterable[RecentFailure] = ()) -> RecentReport:
    """Return the report of this replica.

    Args:
        failures: The last failures of this replica.
    """
    replica = _own_replica()
    return RecentReport(recent_values(), tuple(failures), replica[1] if replica else "")


def keep_replica_reports(report: Callable[[], RecentReport]) -> None:
    """Store the report of this replica now and then, in a thread that ends with its process.

    Args:
        report: Function that returns the report. It is called in that thread.
    """
    replica = _own_replica()
    if replica is not None:
        sample_periodically(ReportKeeper(*replica, report).keep)


@functools.cache
def keep_controller_reports(application: str) -> None:
    """Do the same in Serve's controller, once for each application.

    Args:
        application: Name of the application.
    """
    keeper = ReportKeeper(application, _CONTROLLER, lambda: RecentReport(recent_values()))
    sample_periodically(keeper.keep)


def kept_reports(application: str, present: Iterable[str] = ()) -> list[RecentReport]:
    """Return what was stored by the processes of an application that did not answer. Blocks.

    Reports that are older than what is remembered are removed, and those of other versions.

    Args:
        application: Name of the application.
        present: Replicas that answered for themselves.
    """
    client = internal_kv_get_gcs_client()
    if client is None:
        return []
    answered = {_prefix(application) + owner.encode() for owner in present}
    found = []
    try:
        keys = client.internal_kv_keys(_prefix(application), _NAMESPACE, _TIMEOUT_S)
        others = [key for key in keys if key not in answered]
        stored = client.internal_kv_multi_get(others, _NAMESPACE, _TIMEOUT_S) if others else {}
        for key, encoded in stored.items():
            report = decode_report(encoded)
            if report is None or last_slot(report.values) is None:
                client.internal_kv_del(key, False, _NAMESPACE, _TIMEOUT_S)
            else:
                found.append(report)
    except RpcError as error:
        _logger.warning("What ended replicas did cannot be read: %s", error)
    return found


def encode_report(report: RecentReport) -> bytes:
    """Return a report as compressed JSON."""
    values = report.values
    content = {
        "counts": _series_list(values.counts),
        "gauges": _series_list(values.gauges),
        "distributions": _series_list(values.distributions),
        "failures": [asdict(each) for each in report.failures],
    }
    return zlib.compress(orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS), 1)


def decode_report(encoded: bytes, now_s: float | None = None) -> RecentReport | None:
    """Return the report of ``encode_report``, without what is older than what is remembered.

    The store outlives an update, so another version of Foreedge may have stored it. Metrics that
    this version does not have, or has with other labels or buckets, are left out. None stands for a
    report of another form.

    Args:
        encoded: What was stored.
        now_s: The present time, in seconds since 1970, or None for the clock's.
    """
    try:
        content = orjson.loads(zlib.decompress(encoded))
        values = RecentValues(
            counts=_known("counter", _series_dict(content["counts"])),
            gauges=_known("gauge", _series_dict(content["gauges"])),
            distributions=_known("histogram", _series_dict(content["distributions"], tuple)),
        )
        failures = tuple(RecentFailure(**each) for each in content["failures"])
    except (zlib.error, ValueError, TypeError, KeyError) as error:
        _logger.info("A report is of another version of Foreedge: %r", error)
        return None
    return RecentReport(
        without_old_slots(values, time.time() if now_s is None else now_s), failures
    )


@functools.cache
def _own_replica() -> tuple[str, str] | None:
    """Return the application and the id of this replica. None in a process that is no replica."""
    try:
        context = serve.get_replica_context()
    except RayServeException:
        return None
    return context.app_name, context.replica_id.unique_id


def _prefix(application: str) -> bytes:
    return f"recent {application} ".encode()


def _series_list(series: dict[Series, dict[int, Any]]) -> list[Any]:
    return [[name, labels, by_slot] for (name, labels), by_slot in series.items()]


def _series_dict(
    found: list[Any], convert: Callable[[Any], Any] = float
) -> dict[Series, dict[int, Any]]:
    return {
        (name, tuple(labels)): {int(slot): convert(value) for slot, value in by_slot.items()}
        for name, labels, by_slot in found
    }


def _known(kind: str, found: dict[Series, dict[int, Any]]) -> dict[Series, dict[int, Any]]:
    """Return the series of metrics that this version remembers, as it records them."""
    return {
        series: by_slot for series, by_slot in found.items() if _is_known(kind, series, by_slot)
    }


def _is_known(kind: str, series: Series, by_slot: dict[int, Any]) -> bool:
    name, labels = series
    metric = _METRICS.get(name)
    if metric is None or (metric.kind, len(metric.labels)) != (kind, len(labels)):
        return False
    buckets = len(metric.buckets) + 1
    return kind != "histogram" or all(len(counted) == buckets for counted in by_slot.values())
