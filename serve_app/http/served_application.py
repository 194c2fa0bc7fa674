"""What the operations page asks the head of the cluster, which may not answer.

Ray's calls of Serve's controller have no time limit, and block. They run in a thread of their own,
so that a head that is lost takes neither the event loop nor a thread that requests need.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from serve_app.http.operations import describe_replicas
from serve_app.http.operations_answer import Replicas
from serve_app.serving.kept_reports import kept_reports
from serve_app.serving.recent_metrics import RecentReport

_LIMIT_S = 5.0

_logger = logging.getLogger(__name__)


class ServedApplication:
    """The application as one replica of HttpApi finds it. Belongs to one event loop."""

    def __init__(
        self,
        name: str,
        own: DeploymentHandle,
        count_replicas: Callable[[], list[Replicas]],
        limit_s: float = _LIMIT_S,
    ) -> None:
        """Ask nothing yet.

        Args:
            name: Name of the application.
            own: Handle of the deployment of this replica.
            count_replicas: Function that asks Serve's controller. It may block for any time.
            limit_s: Time, in seconds, for which an answer is awaited.
        """
        self.own = own
        self._name = name
        self._count_replicas = count_replicas
        self._limit_s = limit_s
        self._counting_thread = ThreadPoolExecutor(1, "count-replicas")
        self._counting: asyncio.Future[list[Replicas]] | None = None
        self._reading_thread = ThreadPoolExecutor(1, "kept-reports")

    @classmethod
    def of_this_replica(cls) -> ServedApplication:
        """Return the application of the replica of Serve that calls this."""
        context = serve.get_replica_context()
        # Without the check, which would ask the controller in the thread of the event loop. The
        # deployment exists, since this is a replica of it.
        own = serve.get_deployment_handle(
            context.deployment, context.app_name, _check_exists=False, _record_telemetry=False
        )
        return cls(context.app_name, own, partial(_count_replicas, context.app_name))

    async def replicas(self) -> list[Replicas] | None:
        """Return the replicas of each deployment, or None if Serve's controller does not answer.

        Whoever asks while the controller has not answered yet waits for the same answer.
        """
        if self._counting is None or self._counting.done():
            loop = asyncio.get_running_loop()
            self._counting = loop.run_in_executor(self._counting_thread, self._count_replicas)
        try:
            async with asyncio.timeout(self._limit_s):
                return await asyncio.shield(self._counting)
        except (RayError, RayServeException, TimeoutError) as error:
            _logger.warning("Serve's controller does not answer: %r", error)
            return None

    async def kept_reports(self, present: Iterable[str]) -> list[RecentReport]:
        """Return what was stored by the processes that did not answer.

        Args:
            present: Replicas that answered for themselves.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._reading_thread, kept_reports, self._name, list(present)
        )


def _count_replicas(application: str) -> list[Replicas]:
    """Return the replicas of each deployment, as Serve's controller counts them. Blocks."""
    found = serve.status().applications.get(application)
    if found is None:
        # As while Serve starts again on another head.
        raise RayServeException(f"Serve does not know the application {application}")
    return [
        describe_replicas(
            name,
            {str(state): n for state, n in each.replica_states.items()},
            each.status.value,
            each.message,
        )
        for name, each in found.deployments.items()
    ]
