"""Many small jobs through a Ray cluster while something breaks every few seconds.

    python -m tests.faults.chaos --seed 7 --jobs 2000 --outage-s 60

After that come outages of a minute each, which ``/readyz`` must name and get over (``outages``).

The seed decides which faults occur, and when. At the end every job must have one outcome and one
object. If not, the program says what is wrong and ends with status 1.
"""

from __future__ import annotations

import argparse
import io
import random
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from ingest.local.aws import LocalAws, use_dummy_credentials
from tests.faults.outages import Seen, endure, ingest_health, outages_of
from tests.support.fault_effects import (
    cut,
    delay,
    deliver_twice,
    fail_entries,
    kill_caller,
    late_refusal,
    refuse,
    short,
)
from tests.support.fault_proxy import Effect, Proxy, recorded_before_deleted
from tests.support.fault_rig import Rig
from tests.support.two_nodes import CONSUMERS, RayCluster, two_nodes

MAX_RECEIVES = 5
SOURCES, RESULTS, PARTS = "*/in/*", "*/cutouts/*", "*.jsonl.gz"
_SEND_THREADS = 4
_MOST_WAITING = 120
_OUTAGE_JOBS = 30
_SETTLED_WITHIN_S = 120.0


@dataclass(frozen=True)
class Fault:
    name: str
    action: str
    effect: Effect
    where: str = "*"
    times: int | None = None
    """Number of requests that the fault hits, or None for all of them while it lasts."""


def half(code: str, *, sender_fault: bool) -> Effect:
    return fail_entries(lambda index, _: index % 2 == 0, code, sender_fault=sender_fault)


FAULTS = [
    Fault("pipeline killed in inference", "s3:GetObject", kill_caller(), SOURCES, 1),
    Fault("pipeline killed after an upload", "s3:PutObject", kill_caller(after=True), RESULTS, 1),
    Fault("ingest killed before the ledger", "s3:PutObject", kill_caller(), PARTS, 1),
    Fault("ingest killed after the ledger", "s3:PutObject", kill_caller(after=True), PARTS, 1),
    Fault("ingest killed before a deletion", "sqs:DeleteMessageBatch", kill_caller(), "*", 1),
    Fault(
        "ingest killed after a deletion", "sqs:DeleteMessageBatch", kill_caller(after=True), "*", 1
    ),
    Fault("sources: SlowDown", "s3:GetObject", refuse(503, "SlowDown"), SOURCES),
    Fault("results: SlowDown", "s3:PutObject", refuse(503, "SlowDown"), RESULTS),
    Fault("ledger: SlowDown", "s3:PutObject", refuse(503, "SlowDown"), PARTS),
    Fault("S3: expired credentials", "s3:*", refuse(400, "ExpiredToken")),
    Fault("SQS: expired credentials", "sqs:*", refuse(403, "ExpiredToken")),
    Fault("SQS: OverLimit", "sqs:ReceiveMessage", refuse(403, "OverLimit")),
    Fault(
        "heartbeats throttled", "sqs:ChangeMessageVisibilityBatch", refuse(400, "RequestThrottled")
    ),
    Fault(
        "deletions fail in part",
        "sqs:DeleteMessageBatch",
        half("InternalError", sender_fault=False),
    ),
    Fault(
        "extensions fail in part",
        "sqs:ChangeMessageVisibilityBatch",
        half("ReceiptHandleIsInvalid", sender_fault=True),
        "*",
        2,
    ),
    Fault("sources are cut short", "s3:GetObject", short(500), SOURCES, 4),
    Fault("connections are cut", "s3:*", cut(), "*", 6),
    Fault("answers of puts are lost", "s3:PutObject", cut(after=True), "*", 4),
    Fault(
        "conditional puts are lost",
        "s3:PutObject",
        late_refusal(412, "PreconditionFailed"),
        RESULTS,
        4,
    ),
    Fault(
        "conditional puts conflict",
        "s3:PutObject",
        refuse(409, "ConditionalRequestConflict"),
        RESULTS,
        4,
    ),
    Fault("answers of receives are lost", "sqs:ReceiveMessage", cut(after=True), "*", 2),
    Fault("answers of deletions are lost", "sqs:DeleteMessageBatch", cut(after=True), "*", 2),
    Fault("messages are delivered twice", "sqs:ReceiveMessage", deliver_twice(), "*", 3),
    Fault("S3 is slow", "s3:*", delay(0.7)),
]
"""Faults of requests. Those of the cluster are in ``Chaos``."""


@dataclass
class Chaos:
    """Breaks something every few seconds until an event is set."""

    rig: Rig
    cluster: RayCluster
    dice: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)

    def plan(self) -> Iterator[tuple[float, str, float]]:
        """Yield pauses, faults and durations without end. The seed decides all three."""
        while True:
            of_cluster = ["the controller is killed", "a node is lost"]
            # A node takes longest to come back.
            weights = [4] * len(FAULTS) + [3, 2]
            [name] = self.dice.choices([item.name for item in FAULTS] + of_cluster, weights)
            yield self.dice.uniform(0.5, 4), name, self.dice.uniform(1, 4)

    def run(self, ended: threading.Event) -> None:
        """Make faults, one after the other. Ray requires the main thread."""
        by_name = {item.name: item for item in FAULTS}
        for pause_s, name, lasts_s in self.plan():
            if ended.wait(pause_s):
                return
            self.counts[name] += 1
            if name == "the controller is killed":
                self.cluster.kill_controller()
            elif name == "a node is lost":
                self.cluster.lose_node()
                ended.wait(lasts_s)
                self.cluster.add_node()
            else:
                self._break(by_name[name], lasts_s, ended)

    def _break(self, fault: Fault, lasts_s: float, ended: threading.Event) -> None:
        proxy = self.rig.proxy
        rule = proxy.add(fault.action, fault.effect, name=fault.where, times=fault.times)
        ended.wait(lasts_s)
        proxy.remove(rule)
        self.hits[fault.name] += rule.hits


def feed(rig: Rig, jobs: int, ended: threading.Event, limit_s: float, console: Console) -> None:
    """Send jobs while others end, and set ``ended`` when no message is left, or after a time.

    Few messages wait at a time: the local server counts all messages of a queue for each one that
    it delivers, so that with thousands of them it would be the bottleneck.
    """
    names = [f"j{number:05d}" for number in range(jobs)]
    give_up_at = time.monotonic() + limit_s
    with ThreadPoolExecutor(_SEND_THREADS) as pool:

        def send_one(number: int) -> None:
            rig.put_numbered(names[number], number)
            rig.send_body(rig.message(names[number]))

        shown = -1
        while time.monotonic() < give_up_at and not ended.is_set():
            backlog = rig.held()
            sent = len(rig.sent)
            if (share := 10 * (sent - backlog) // jobs) > shown:
                shown = share
                console.print(f"  {sent - backlog} of {jobs} jobs have ended", highlight=False)
            if sent == jobs and backlog == 0:
                break
            more = range(sent, min(jobs, sent + _MOST_WAITING - backlog))
            list(pool.map(send_one, more))
            rig.sent += [names[number] for number in more]
            time.sleep(0.3)
    ended.set()


def verdict(rig: Rig) -> dict[str, int]:
    """Return counts of the jobs and their results. All but the first two and the last must be 0."""
    records = rig.records()
    outcomes = rig.outcomes()
    named = [item.output_key for item in outcomes.values() if item.output_key]
    objects = rig.objects()
    # An object is {prefix}in/{job}/{fingerprint}.png.
    folders = Counter(key.rpartition("/")[0] for key in objects)
    return {
        "jobs": len(rig.sent),
        "outcomes": len(outcomes),
        "lost (no outcome)": len(set(rig.sent) - set(outcomes)),
        "failed": sum(item.status == "failed" for item in outcomes.values()),
        "dead letters": len(rig.dead_letters()),
        "left on the queue": rig.held(),
        "duplicate objects": sum(folders.values()) - len(folders),
        "orphans (no outcome names it)": len(objects - set(named)),
        "missing objects": len(set(named) - objects),
        "records more than jobs, folded": len(records) - len(outcomes),
    }


def outages_one_by_one(
    rig: Rig, cluster: RayCluster, lasts_s: float, console: Console
) -> list[Seen]:
    """Let each outage last, with jobs before and during it, until the queue is empty again."""
    seen = []
    for outage in outages_of(rig):
        _until(lambda: not rig.held() and bool(ingest_health(cluster.url)["healthy"]))
        seen.append(endure(rig, outage, lasts_s, lambda: ingest_health(cluster.url), _OUTAGE_JOBS))
        console.print(f"  {seen[-1]}", highlight=False, soft_wrap=True)
    _until(lambda: not rig.held())
    return seen


def _until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, but not indefinitely, since the verdict says what is wrong."""
    give_up_at = time.monotonic() + _SETTLED_WITHIN_S
    while not condition() and time.monotonic() < give_up_at:
        time.sleep(0.5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--outage-s", type=float, default=60)
    options = parser.parse_args()
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    # Ray prints much about what was killed, which is not shown.
    console = Console(file=sys.stdout)
    console.print(f"chaos: {options.jobs} jobs, seed {seed}", highlight=False)
    use_dummy_credentials()
    with (
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
        LocalAws() as server,
        Proxy(server.endpoint_url) as proxy,
        two_nodes() as cluster,
    ):
        rig = Rig(server, proxy, MAX_RECEIVES)
        small: dict[str, Any] = {"replicas": 2, "num_cpus": 0.5}
        args = rig.args(consumers=CONSUMERS, visibility_timeout_s=10, max_in_flight=16)
        args |= {"pipeline": small, "segmenter": {**small, "threads": 1}}
        cluster.deploy(args)
        ended = threading.Event()
        started_at = time.monotonic()
        feeding = threading.Thread(
            target=feed, args=(rig, options.jobs, ended, 120 + options.jobs, console), daemon=True
        )
        feeding.start()
        chaos = Chaos(rig, cluster, random.Random(seed))
        chaos.run(ended)
        feeding.join()
        took_s = time.monotonic() - started_at
        seen = outages_one_by_one(rig, cluster, options.outage_s, console)
        found = verdict(rig)
        deletions = recorded_before_deleted(proxy.journal)
    show(console, chaos, found, seed, took_s, deletions)
    lost = found["outcomes"] != found["jobs"] or any(list(found.values())[2:-1])
    good = not lost and all(each.good for each in seen)
    console.print("[green]nothing lost[/green]" if good else "[red]something is wrong[/red]")
    return 0 if good else 1


def show(
    console: Console, chaos: Chaos, found: dict[str, int], seed: int, took_s: float, deletions: int
) -> None:
    faults = Table("fault", "times", "requests hit", title=f"Faults, seed {seed}")
    for name, count in sorted(chaos.counts.items()):
        faults.add_row(name, f"{count}", f"{chaos.hits[name]}" if name in chaos.hits else "")
    console.print(faults)
    results = Table("", "count", title=f"{found['jobs']} jobs, {took_s:.0f} s of faults")
    for name, count in found.items():
        results.add_row(name, f"{count}")
    results.add_row("deletions, each after its record", f"{deletions}")
    console.print(results)


if __name__ == "__main__":
    sys.exit(main())
