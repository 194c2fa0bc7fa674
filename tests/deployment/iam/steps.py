"""Single steps of an application and of its commands, each with the credentials of a role."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from tests.deployment.iam import nodes, processes
from tests.deployment.iam.account import (
    CUTOUTS,
    IMAGES,
    LEDGER,
    QUEUE,
    REGION,
    SECRET,
    Account,
)
from tests.deployment.iam.processes import VISIBILITY_S, Ended
from tests.support.fault_rig import commented

RECIPE: dict[str, Any] = {"checks": {"min_subject_px": 1}}
BULK = ("--recipe", json.dumps(RECIPE), "--output", f"s3://{CUTOUTS}/results/")
"""Options of every ``foreedge bulk``."""
UPLOADS = f"s3://{IMAGES}/uploads/"


class StepFailed(Exception):
    """A step that did not do what it should. The message has what it printed."""

    def __init__(self, step: str, text: str) -> None:
        super().__init__(f"{step}: {text}")
        self.step = step
        """Role and name of the step."""
        self.text = text
        """What the step printed, or the reason why it stopped."""


@dataclass
class Steps:
    """The steps of one account. Names that begin with ``tag`` belong to them alone."""

    account: Account
    folder: Path
    tag: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def __post_init__(self) -> None:
        """Begin with empty queues."""
        self.s3, self.sqs = self.account.client("s3"), self.account.client("sqs")
        self.account.make_queues()

    def put(self, key: str, number: int) -> str:
        """Store an image as the administrator, and return its version."""
        answer = self.s3.put_object(Bucket=IMAGES, Key=key, Body=commented(number))
        version: str = answer["VersionId"]
        return version

    def message(self, run_id: str, key: str, **source: str) -> str:
        """Return the body of a message for an image."""
        return json.dumps({**job(key, **source), "run_id": run_id, "job_id": uuid.uuid4().hex})

    def send(self, bodies: Sequence[str], role: str | None = None) -> None:
        """Send messages as another application does: the first one alone, the others together.

        Raises:
            StepFailed: The role may not do that.
        """
        sqs = self.account.client("sqs", role)
        entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies[1:])]
        try:
            sqs.send_message(QueueUrl=self.account.queue_url, MessageBody=bodies[0])
            if entries:
                sqs.send_message_batch(QueueUrl=self.account.queue_url, Entries=entries)
        except ClientError as error:
            raise StepFailed(f"{role}: send", str(error)) from error

    def work(self, messages: int) -> None:
        """Consume messages until all are settled. Raises StepFailed with the reason if not."""
        self.step("worker", "consume", processes.worker, messages)

    def post(self, contents: Sequence[Any]) -> str:
        """Post jobs to /v1/jobs, and return their run. Raises StepFailed unless all are queued."""
        answer = self.step(
            "worker",
            "POST /v1/jobs",
            processes.jobs,
            contents,
            check=lambda text: json.loads(text).get("queued") == len(contents),
        )
        run_id: str = json.loads(answer)["run_id"]
        return run_id

    def counts(self, run_id: str, role: str | None = "worker") -> dict[str, Any]:
        """Return the counts of a run by /v1/jobs. Raises StepFailed if it has none."""
        answer = self.step(
            role,
            "GET /v1/jobs",
            processes.counts,
            run_id,
            check=lambda text: "counts" in json.loads(text),
        )
        counts: dict[str, Any] = json.loads(answer)
        return counts

    def read_backlog(self) -> str:
        """Return what the head reads of the queue. Raises StepFailed with the reason if nothing."""
        return self.step("head", "autoscaling", processes.head)

    def pull_image(self) -> str:
        """Ask the registry for an image as a node's Docker does. Raises StepFailed if denied."""
        return self.step("image", "pull", nodes.pull, QUEUE)

    def scale_nodes(self) -> str:
        """Start and end a node as Ray's autoscaler does. Raises StepFailed if that is denied."""
        place = self.account.image, self.account.subnet, self.account.security_group
        return self.step("ray", "autoscaler", nodes.scale, *place)

    def foreedge(self, *arguments: str, check: Callable[[str], bool] = lambda _: True) -> str:
        """Run a command, and return what it prints.

        Args:
            arguments: Arguments of ``foreedge``.
            check: Function that says whether the output is right.

        Raises:
            StepFailed: The exit code is not 0, or the output is not right.
        """
        return self.step(
            "operator", arguments[0], processes.command, arguments, self.folder, check=check
        )

    def step(
        self,
        role: str | None,
        name: str,
        target: Callable[..., None],
        *arguments: Any,
        check: Callable[[str], bool] = lambda _: True,
    ) -> str:
        """Run a function of ``processes`` with the credentials of a role."""
        ended: Ended = processes.run(target, self._environment(role), *arguments)
        if ended.status or not check(ended.text):
            raise StepFailed(f"{role}: {name}", ended.text)
        return ended.text

    def _environment(self, role: str | None) -> dict[str, str]:
        inherited = {
            name: text
            for name, text in os.environ.items()
            if not name.startswith(("AWS_", "FOREEDGE_"))
        }
        settings = {
            "AWS__ENDPOINT_URL": self.account.endpoint_url,
            "AWS__REGION": REGION,
            "AWS__MAX_ATTEMPTS": "1",
            "HTTP__API_KEYS_SECRET": SECRET,
            "LEDGER__BUCKET": LEDGER,
            "LEDGER__PART_INTERVAL_S": "0.2",
            "MODELS": '["folio"]',
            "QUEUE__URL": self.account.queue_url,
            "QUEUE__VISIBILITY_TIMEOUT_S": str(VISIBILITY_S),
            "QUEUE__LONG_POLL_S": "0",
            "QUEUE__MAX_IN_FLIGHT": "16",
            "QUEUE__RETRY_BASE_S": "0.2",
            "QUEUE__RETRY_MAX_S": "1",
        }
        named = {f"FOREEDGE_{name}": text for name, text in settings.items()}
        # For clients that are not ours.
        named["AWS_ENDPOINT_URL"] = self.account.endpoint_url
        # Texts are looked for, and must not be broken into lines.
        named["COLUMNS"] = "1000"
        return inherited | named | dict(self.account.credentials(role))


def json_in(text: str) -> dict[str, Any]:
    """Return the JSON that a command has printed, next to texts for people."""
    found: dict[str, Any] = json.loads(next(n for n in text.splitlines() if n.startswith("{")))
    return found


def job(key: str, **source: str) -> dict[str, Any]:
    """Return a job for an image, as clients of /v1/jobs post it."""
    return {
        "source": {"bucket": IMAGES, "key": key, **source},
        "output": {"bucket": CUTOUTS, "prefix": "results/"},
        "recipe": RECIPE,
    }
