"""The processes of replicas, for tests that kill one."""

from __future__ import annotations

import psutil


def replica_processes(
    deployment: str, application: str = "foreedge", of: psutil.Process | None = None
) -> list[psutil.Process]:
    """Return the processes of a deployment's replicas.

    Args:
        deployment: Name of the deployment.
        application: Name of the application.
        of: Process that started Ray, or None for this one.
    """
    # While a method runs, its name may follow that of the replica.
    title = f"ray::ServeReplica:{application}:{deployment}"
    started = (of or psutil.Process()).children(recursive=True)
    return [process for process in started if " ".join(process.cmdline()).startswith(title)]
