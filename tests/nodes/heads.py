"""The head is lost, with and without a Redis that keeps the state of Ray."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.nodes.machines import HOST
from tests.nodes.rig import Episode, Result, Rig

_REDIS = "redis-server"
_PASSWORD = "c" * 32
_PORT = 6390
_WORKERS_END_S = 240.0
REDIS_VARIABLES = {
    # Those that KubeRay sets for gcsFaultToleranceOptions.
    "RAY_REDIS_ADDRESS": f"{HOST}:{_PORT}",
    "REDIS_PASSWORD": _PASSWORD,
    "RAY_external_storage_namespace": "foreedge",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
}


def redis_problem() -> str | None:
    """Return why there is no Redis here, or None if there is."""
    return None if shutil.which(_REDIS) else f"{_REDIS} not found: apt-get install {_REDIS}"


@contextmanager
def redis(folder: Path) -> Iterator[None]:
    """Run Redis on the host's side of the bridge, whose state is in memory."""
    command = [
        *(_REDIS, "--bind", "0.0.0.0", "--port", str(_PORT), "--requirepass", _PASSWORD),
        *("--save", "", "--dir", str(folder)),
    ]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def head_loss(rig: Rig) -> Result:
    """Let the head lose its power, and with it the state of Ray, and start everything again."""

    def fault(episode: Episode) -> None:
        address = rig.cluster.head.address
        rig.cluster.head.kill()
        rig.cluster.start_head(address)
        episode.facts["new head after s"] = _since(episode)
        # Each waits for the head that it knew, and then ends. KubeRay starts its pod again.
        old = list(rig.cluster.workers)
        rig.cluster.until(
            lambda: not any(one.runs for one in old), "the old workers end", _WORKERS_END_S
        )
        episode.facts["old workers ended after s"] = _since(episode)
        for one in old:
            rig.cluster.forget(one)
        rig.cluster.start_workers(len(old))
        rig.deploy()

    return rig.endure("head_loss", fault)


def head_kept(rig: Rig) -> Result:
    """Let the head lose its power, and another take over the workers from the state in Redis."""

    def fault(episode: Episode) -> None:
        old = {one.name for one in rig.cluster.replicas()}
        address = rig.cluster.head.address
        rig.cluster.head.kill()
        rig.cluster.start_head(address)
        episode.facts["new head after s"] = _since(episode)
        rig.until_whole()
        kept = old & {one.name for one in rig.cluster.replicas()}
        episode.facts["replicas that survived"] = f"{len(kept)} of {len(old)}"
        episode.facts["workers that survived"] = sum(one.runs for one in rig.cluster.workers)

    return rig.endure("head_kept", fault)


def _since(episode: Episode) -> float:
    return round(time.monotonic() - episode.began, 1)
