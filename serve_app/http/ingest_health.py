"""The health of all SqsIngest replicas, as one answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any


def summarize_replicas(answers: Sequence[Any]) -> dict[str, Any]:
    """Return the health of the ingest, by the answers of its replicas.

    Args:
        answers: What ``SqsIngest.status`` returned for each replica, or the exception of a replica
            that did not answer.

    Returns:
        Whether all are healthy, the reason of the first that is not, what they depend on with the
        number of those for which it is not well, the sums of their counters, the health of the
        catalog if one is configured, and the answer of each.
    """
    replicas = [
        answer
        if isinstance(answer, dict)
        else {"healthy": False, "reason": f"the replica does not answer: {answer!r}"}
        for answer in answers
    ]
    reasons = [replica["reason"] for replica in replicas if not replica["healthy"]]
    if not replicas:
        reasons = ["no replica of SqsIngest is running"]
    urls = [replica["queue_url"] for replica in replicas if "queue_url" in replica]
    # All replicas have the same database, so that the first answer stands for all.
    catalogs = [replica["catalog"] for replica in replicas if "catalog" in replica]
    return {
        **({"queue_url": urls[0]} if urls else {}),
        "healthy": not reasons,
        "reason": reasons[0] if reasons else None,
        "boundaries": _merge_boundaries(replicas),
        **_sums(replicas),
        **({"catalog": catalogs[0]} if catalogs else {}),
        "replicas": replicas,
    }


def _merge_boundaries(replicas: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each boundary with the first reason why it is not well, and for how many it is not."""
    found: dict[str, dict[str, Any]] = {}
    for replica in replicas:
        for each in replica.get("boundaries", []):
            name, reason = each["name"], each["reason"]
            merged = found.setdefault(name, {"name": name, "reason": None, "consumers": 0})
            merged["reason"] = merged["reason"] or reason
            merged["consumers"] += reason is not None
    return list(found.values())


def _sums(replicas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the sum of each counter, in the order in which the replicas have them."""
    sums: dict[str, Any] = {}
    for replica in replicas:
        for name, value in replica.items():
            if name == "catalog":
                continue
            if isinstance(value, dict):
                sums[name] = dict(Counter(sums.get(name, {})) + Counter(value))
            elif isinstance(value, int) and not isinstance(value, bool):
                sums[name] = sums.get(name, 0) + value
    return sums
