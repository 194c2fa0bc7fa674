"""What keeps the autoscaling policy from reading its queue. It reports this, the ingest reads it.

The policy runs in Serve's controller, which may have another role than the replicas. Serve lets a
policy report nothing but a number of replicas. Ray's key-value store is in reach of every process
of the cluster, and outlives the controller.
"""

from __future__ import annotations

from typing import Any

from ray.exceptions import RpcError
from ray.experimental.internal_kv import internal_kv_get_gcs_client

_NAMESPACE = b"foreedge"
_KEY = "scaling_trouble "
_TIMEOUT_S = 2.0


class TroubleNotStored(Exception):
    """Ray's key-value store does not answer, or this process belongs to no cluster."""


def report_scaling_trouble(queue_url: str, trouble: str | None) -> None:
    """Store why the backlog of a queue cannot be read, or None if it can. Blocks.

    Raises:
        TroubleNotStored: It could not be stored.
    """
    try:
        if trouble is None:
            _store().internal_kv_del(
                _key(queue_url), False, namespace=_NAMESPACE, timeout=_TIMEOUT_S
            )
        else:
            _store().internal_kv_put(
                _key(queue_url), trouble.encode(), True, namespace=_NAMESPACE, timeout=_TIMEOUT_S
            )
    except RpcError as error:
        raise TroubleNotStored(f"Ray's key-value store: {error}") from error


def read_scaling_trouble(queue_url: str) -> str | None:
    """Return why the backlog of a queue cannot be read, or None if nothing is known. Blocks."""
    try:
        found = _store().internal_kv_get(_key(queue_url), namespace=_NAMESPACE, timeout=_TIMEOUT_S)
    except (RpcError, TroubleNotStored) as error:
        return f"the autoscaling policy cannot be asked about the queue: {error}"
    return None if found is None else str(found, "utf-8")


def _key(queue_url: str) -> bytes:
    return (_KEY + queue_url).encode()


def _store() -> Any:
    client = internal_kv_get_gcs_client()
    if client is None:
        raise TroubleNotStored("this process belongs to no Ray cluster")
    return client
