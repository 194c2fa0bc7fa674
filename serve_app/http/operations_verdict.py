"""What somebody should look at, among all that ``/v1/ops`` reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from serve_app.errors import RunCancelled
from serve_app.http.operations_answer import Boundary, Moment, QueueState, Replicas
from serve_app.serving.recent_metrics import SLOT_S

FAILED_SHARE = 0.05
"""Share of the images of one way in that fail with one code. The same as in the alert
ForeedgeImagesFail of cluster/monitoring/rules.yaml, and so is the next one."""
FAILED_IMAGES = 20
_CANCELLED = {"cancelled", RunCancelled.code}
"""Codes of an image whose client left, and of one whose run was cancelled. The application is to
blame for neither."""
_ILL = {"UNHEALTHY", "DEPLOY_FAILED"}
"""States of a deployment that do not pass by themselves."""
_NO_CONTROLLER = "Serve's controller does not answer, so it is unknown how many replicas run."
_WAITED_S = 60
_WAYS = {"queue": "the queue", "http": "HTTP"}


def find_attention(
    boundaries: Sequence[Boundary],
    replicas: Iterable[Replicas] | None,
    ingest: Mapping[str, Any] | None,
    backlog: QueueState | None,
    history: Sequence[Moment],
    failed: Mapping[tuple[str, str], tuple[int, int]],
) -> list[str]:
    """Return what needs attention, what stops everything first.

    Args:
        boundaries: What the consumers depend on.
        replicas: Replicas of each deployment, or None if Serve's controller does not answer.
        ingest: Health of the consumers, or None if no queue is served.
        backlog: The queue, or None if it is unknown.
        history: The last half hour.
        failed: Images of the last quarter of an hour that failed, and all of the same way in, by
            way in and error code.
    """
    found = [f"{each.reason}{_shared(each, ingest)}" for each in boundaries if each.reason]
    reason = None if ingest is None else ingest.get("reason")
    if reason and not any(each.reason and each.reason in reason for each in boundaries):
        found.append(reason)
    if replicas is None:
        found.append(_NO_CONTROLLER)
    for each in replicas or ():
        if not each.running:
            found.append(f"{each.deployment} has no running replica.{_said(each)}")
        elif each.status in _ILL:
            found.append(f"{each.deployment} is {each.status.lower()}.{_said(each)}")
    if backlog is not None and backlog.drained_in_s is None and _has_waited(history):
        found.append("Messages wait, and none was processed in the last minute.")
    for (way_in, code), (number, all_images) in failed.items():
        many = number > FAILED_IMAGES and number > FAILED_SHARE * all_images
        if many and code not in _CANCELLED:
            found.append(
                f"{number / all_images:.0%} of the images by {_WAYS[way_in]} have failed with "
                f"{code} within 15 minutes."
            )
    return found


def find_notes(replicas: Iterable[Replicas]) -> list[str]:
    """Return what changes by itself: replicas that start or stop, with what Serve says of it."""
    found = []
    for each in replicas:
        others = [
            f"{number} {state.lower()}"
            for state, number in each.states.items()
            if state != "RUNNING"
        ]
        if others and each.running:
            said = "" if each.status in _ILL else _said(each)
            found.append(
                f"{each.deployment}: {each.running} of {each.wanted} replicas run, "
                f"{', '.join(others)}.{said}"
            )
    return found


def _shared(boundary: Boundary, ingest: Mapping[str, Any] | None) -> str:
    """Return for how many consumers a boundary is not well, if there are several."""
    consumers = len((ingest or {}).get("replicas", ()))
    return f" ({boundary.consumers} of {consumers} consumers)" if consumers > 1 else ""


def _said(replicas: Replicas) -> str:
    """Return what Serve says on one line, after a space."""
    text = " ".join(replicas.message.split())
    return f" {text}" if text else ""


def _has_waited(history: Sequence[Moment]) -> bool:
    """Return whether messages waited at every moment of the last whole minute.

    Messages that consumers hold do not count, since the last image of a run may take minutes.
    """
    return all(each.waiting for each in history[-_WAITED_S // SLOT_S - 1 :])
