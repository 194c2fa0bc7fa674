"""What happens to machines, and what must be true afterwards."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import httpx

from tests.nodes.cluster import SERVE_PORT, TOKEN
from tests.nodes.jobs import small_image
from tests.nodes.machines import Machine
from tests.nodes.rig import Episode, Result, Rig

GRACE_S = 90.0
"""Time, in seconds, that a worker has from SIGTERM to SIGKILL: the grace of its pod."""
_STRANGER_S = 60.0
_IMAGES = 10
_DECIDED_S = 45.0
"""Time, in seconds, after the end of a partition in which Ray gives up a node, if it does. It needs
five failures to answer, 13 s apart."""


def stranger(rig: Rig) -> Result:
    """Let a machine without the token, and one with another token, try to join."""

    def fault(episode: Episode) -> None:
        cluster = rig.cluster
        known = cluster.living_nodes()
        open_one = {
            name: value
            for name, value in cluster.environment().items()
            if not name.startswith("RAY_AUTH")
        }
        machines = [
            cluster.boot_worker(open_one),
            cluster.boot_worker({**open_one, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" * 64}),
        ]
        joined: set[str] = set()
        deadline = time.monotonic() + _STRANGER_S
        while any(one.runs for one in machines) and time.monotonic() < deadline:
            joined |= cluster.living_nodes() - known
            time.sleep(0.5)
        episode.facts["strangers that joined"] = len(joined | (cluster.living_nodes() - known))
        episode.facts["strangers that ended"] = sum(not one.runs for one in machines)
        for one in machines:
            one.close()
        for name, token in (("without a token", None), ("other token", "b" * 64), ("token", TOKEN)):
            episode.facts[f"dashboard, {name}"] = cluster.dashboard_status(token)

    return rig.endure("stranger", fault)


def elsewhere(rig: Rig) -> Result:
    """Send images to machines without an HttpApi replica, of which there must be one."""

    def fault(episode: Episode) -> None:
        with_it = rig.machines_with("HttpApi")
        machines = [rig.cluster.head, *rig.cluster.workers]
        without = [one for one in machines if one.address not in with_it]
        episode.facts["machines without HttpApi"] = len(without)
        results: Counter[str] = Counter()
        with httpx.Client(timeout=60, trust_env=False) as client:
            for machine in without * _IMAGES:
                url = f"http://{machine.address}:{SERVE_PORT}/v1/cutout"
                results[str(client.post(url, content=small_image()).status_code)] += 1
        episode.facts["images sent there"] = dict(results)

    return rig.endure("elsewhere", fault)


def notice(rig: Rig) -> Result:
    """Send SIGTERM to a worker, as before a spot node is taken away, and kill it 90 s later."""

    def fault(episode: Episode) -> None:
        victim = rig.victim()
        victim.terminate()
        rig.cluster.start_workers(1)
        left_s = GRACE_S - (time.monotonic() - episode.began)
        victim.wait(left_s)
        episode.facts["ended by itself"] = not victim.runs
        episode.facts["ended after s"] = round(time.monotonic() - episode.began, 1)
        victim.close()
        rig.cluster.forget(victim)

    return rig.endure("notice", fault)


def loss(rig: Rig) -> Result:
    """Let a worker lose its power."""

    def fault(episode: Episode) -> None:
        victim = rig.victim()
        victim.kill()
        _replace(rig, victim)

    return rig.endure("loss", fault)


def partition(rig: Rig) -> Result:
    """Cut off a worker from all others, and from SQS and S3, for a while."""

    def fault(episode: Episode) -> None:
        victim = rig.victim()
        victim.unplug()
        time.sleep(rig.settings.partition_s)
        victim.plug()
        episode.facts["outcomes meanwhile"] = episode.jobs.ended()
        # Ray decides whether it gives up the node, which then ends, and somebody starts another.
        victim.wait(_DECIDED_S)
        episode.facts["node survived"] = victim.runs
        if not victim.runs:
            _replace(rig, victim)

    return rig.endure("partition", fault)


def update(rig: Rig) -> Result:
    """Deploy another revision."""

    def fault(episode: Episode) -> None:
        old = {one.name for one in rig.cluster.replicas()}
        rig.deploy(revision="two")

        def replaced() -> bool:
            # While Serve builds the application, it lists no replica of either revision.
            return rig.is_whole() and not old & {one.name for one in rig.cluster.replicas()}

        rig.cluster.until(replaced, "every replica is replaced")
        revisions = {_revision(one) for one in rig.cluster.workers}
        episode.facts["revisions afterwards"] = sorted(revisions)

    return rig.endure("update", fault)


def _replace(rig: Rig, victim: Machine) -> None:
    rig.cluster.forget(victim)
    rig.cluster.start_workers(1)


def _revision(machine: Machine) -> str:
    url = f"http://{machine.address}:{SERVE_PORT}/healthz"
    return str(httpx.get(url, timeout=30, trust_env=False).json()["revision"])


Scenario = Callable[[Rig], Result]
