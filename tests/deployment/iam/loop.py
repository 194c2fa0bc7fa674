"""The way of every job, from the source of a run to the end of its records, role by role."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.deployment.iam.account import IMAGES
from tests.deployment.iam.processes import SLOW
from tests.deployment.iam.steps import BULK, UPLOADS, Steps, job, json_in
from tests.support.fault_rig import commented


@dataclass(frozen=True)
class Sizes:
    """Numbers of images in each part of the loop."""

    bulk: int
    """Images of a prefix, one of which is missing at first."""
    uploaded: int
    """Images of a local folder."""
    posted: int
    """Jobs over HTTP, one of which names a version."""
    sent: int
    """Messages of another application."""

    @property
    def total(self) -> int:
        """Number of all images."""
        return self.bulk + self.uploaded + self.posted + self.sent


SIXTY = Sizes(50, 3, 4, 3)


def run_loop(steps: Steps, sizes: Sizes) -> int:
    """Take images through everything that a role has to do, and return how many are done.

    Raises:
        StepFailed: A step failed.
    """
    runs = [*_send(steps, sizes), f"sent-{steps.tag}"]
    _process_with_a_missing_image(steps, sizes, runs[0])
    _repair(steps, runs[0])
    runs.append(_produce(steps, sizes, runs[-1]))
    done = sum(int(steps.counts(run_id)["counts"]["done"]) for run_id in runs)
    _cancel(steps, sizes)
    _tidy_up(steps)
    return done


def _send(steps: Steps, sizes: Sizes) -> tuple[str, str]:
    tag = steps.tag
    bulk, uploaded = f"bulk-{tag}", f"uploaded-{tag}"
    for number in range(sizes.bulk):
        steps.put(f"in/{tag}/{number}{SLOW if number == 0 else '.jpg'}", number)
    folder = steps.folder / uploaded
    folder.mkdir()
    for number in range(sizes.uploaded):
        (folder / f"{number}.jpg").write_bytes(commented(number))
    steps.foreedge("bulk", f"s3://{IMAGES}/in/{tag}/", "--run-id", bulk, *BULK)
    steps.foreedge("bulk", str(folder), "--run-id", uploaded, "--upload-to", UPLOADS, *BULK)
    assert steps.read_backlog() == f"{sizes.bulk + sizes.uploaded} waiting"
    return bulk, uploaded


def _process_with_a_missing_image(steps: Steps, sizes: Sizes, bulk: str) -> None:
    steps.s3.delete_object(Bucket=IMAGES, Key=f"in/{steps.tag}/1.jpg")
    steps.work(sizes.bulk + sizes.uploaded)
    status = json_in(steps.foreedge("status", bulk, "--json"))
    assert status["codes"] == {"source_not_found": 1}
    assert status["queue"] == {"waiting": 0, "in_flight": 0}


def _repair(steps: Steps, bulk: str) -> None:
    steps.put(f"in/{steps.tag}/1.jpg", 1)
    steps.sqs.send_message(QueueUrl=steps.account.dead_url, MessageBody="of another application")
    report = steps.folder / f"report-{steps.tag}"
    steps.foreedge("report", bulk, "--out", str(report), "--pictures", "2")
    assert "source_not_found" in steps.foreedge("errors", bulk)
    redriven = json_in(steps.foreedge("redrive", bulk, "--clear-dead-letters", "--json"))
    assert (redriven["redriven"], redriven["dead_letters_deleted"]) == (1, 1)
    steps.work(1)
    steps.foreedge("verify", bulk)


def _produce(steps: Steps, sizes: Sizes, sent: str) -> str:
    """Send jobs over HTTP and as another application, and return the run of the former."""
    tag = steps.tag
    keys = [f"in/{tag}/of-{name}-{n}.jpg" for name in ("http", "sqs") for n in range(sizes.posted)]
    versions = [steps.put(key, number) for number, key in enumerate(keys, 100)]
    contents = [job(keys[0], version_id=versions[0]), *map(job, keys[1 : sizes.posted])]
    posted = steps.post(contents)
    others = keys[sizes.posted : sizes.posted + sizes.sent]
    steps.send([steps.message(sent, key) for key in others], "producer")
    steps.work(len(contents) + len(others))
    return posted


def _cancel(steps: Steps, sizes: Sizes) -> None:
    """Send the images of the folder once more, and cancel that run before any is processed."""
    images, cancelled = f"s3://{IMAGES}/uploads/", f"cancelled-{steps.tag}"
    steps.foreedge("bulk", images, "--run-id", cancelled, *BULK)
    steps.foreedge("cancel", cancelled)
    steps.work(sizes.uploaded)
    status = json_in(steps.foreedge("status", cancelled, "--json"))
    assert status["codes"] == {"run_cancelled": sizes.uploaded}
    resumed = steps.foreedge("bulk", images, "--run-id", cancelled, *BULK)
    assert "is not cancelled any more" in resumed


def _tidy_up(steps: Steps) -> None:
    steps.foreedge("runs", "--compact")
    # A run is pruned if it ended before the time that the command names.
    time.sleep(1)
    pruned = json_in(steps.foreedge("runs", "--prune", "1s", "--yes", "--json"))
    assert f"cancelled-{steps.tag}" in pruned["deleted"]
