"""What fails without a grant: each is taken from its role, and the role must notice.

The roles do their work in parts that are as short as can be, since there is one trial for each
grant.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tests.deployment.iam.account import CUTOUTS, IMAGES, LEDGER, QUEUE
from tests.deployment.iam.grants import Grant
from tests.deployment.iam.processes import SLOW
from tests.deployment.iam.steps import BULK, UPLOADS, StepFailed, Steps, job
from tests.support.fault_rig import commented

_DENIED_QUEUE, _DENIED_STORE = "queue_unavailable", "source_forbidden"
_JOBS, _DEAD = f":{QUEUE}", f":{QUEUE}-dead"
_NAMED_IMAGES, _UPLOADED = f"{IMAGES}/in/*", f"{IMAGES}/uploads/*"


class Notice(NamedTuple):
    """How a role notices that it lacks a grant."""

    step: str
    """Step that fails."""
    code: str
    """Error code in what the step prints."""


_CONSUME = Notice("consume", _DENIED_QUEUE), Notice("consume", _DENIED_STORE)
_REDRIVE, _REPORT = Notice("redrive", _DENIED_QUEUE), Notice("report", _DENIED_STORE)

NOTICES: Mapping[str, Mapping[tuple[str, str], Notice]] = {
    "head": {("sqs:GetQueueAttributes", _JOBS): Notice("autoscaling", "GetQueueAttributes")},
    # What other applications run is not ours: this is AWS's own code.
    "producer": {("sqs:SendMessage", _JOBS): Notice("send", "AccessDenied")},
    # Docker's and Ray's own errors, as well.
    "image": {
        ("ecr:GetAuthorizationToken", "*"): Notice("pull", "AccessDenied"),
        ("ecr:BatchGetImage", ""): Notice("pull", "AccessDenied"),
        ("ecr:GetDownloadUrlForLayer", ""): Notice("pull", "AccessDenied"),
    },
    "ray": {
        ("ec2:DescribeInstances", "*"): Notice("autoscaler", "AccessDenied"),
        ("ec2:RunInstances", ""): Notice("autoscaler", "AccessDenied"),
        ("ec2:CreateTags", ""): Notice("autoscaler", "AccessDenied"),
        ("ec2:TerminateInstances", ""): Notice("autoscaler", "AccessDenied"),
    },
    "worker": {
        ("sqs:SendMessage", _JOBS): Notice("POST /v1/jobs", _DENIED_QUEUE),
        ("secretsmanager:GetSecretValue", "/api-keys-??????"): Notice(
            "POST /v1/jobs", "invalid_config"
        ),
        ("sqs:ReceiveMessage", _JOBS): _CONSUME[0],
        ("sqs:GetQueueAttributes", _JOBS): _CONSUME[0],
        ("sqs:DeleteMessage", _JOBS): _CONSUME[0],
        ("sqs:ChangeMessageVisibility", _JOBS): _CONSUME[0],
        ("sqs:SendMessage", _DEAD): _CONSUME[0],
        ("sqs:GetQueueUrl", _DEAD): _CONSUME[0],
        ("s3:GetObject", _NAMED_IMAGES): _CONSUME[1],
        ("s3:GetObject", _UPLOADED): _CONSUME[1],
        ("s3:GetObjectVersion", _NAMED_IMAGES): _CONSUME[1],
        ("s3:GetObjectVersion", _UPLOADED): _CONSUME[1],
        ("s3:GetObject", f"{CUTOUTS}/results/*"): _CONSUME[1],
        ("s3:PutObject", f"{CUTOUTS}/results/*"): _CONSUME[1],
        ("s3:GetObject", f"{LEDGER}/_foreedge/*"): _CONSUME[1],
        ("s3:PutObject", f"{LEDGER}/_foreedge/*"): _CONSUME[1],
        ("s3:ListBucket", IMAGES): _CONSUME[1],
        ("s3:ListBucket", CUTOUTS): _CONSUME[1],
        ("s3:ListBucket", LEDGER): _CONSUME[1],
    },
    "operator": {
        ("sqs:GetQueueAttributes", _JOBS): Notice("status", _DENIED_QUEUE),
        ("sqs:SendMessage", _JOBS): Notice("bulk", _DENIED_QUEUE),
        ("sqs:GetQueueUrl", _DEAD): _REDRIVE,
        ("sqs:ReceiveMessage", _DEAD): _REDRIVE,
        ("sqs:DeleteMessage", _DEAD): _REDRIVE,
        ("sqs:ChangeMessageVisibility", _DEAD): _REDRIVE,
        ("s3:GetObject", _NAMED_IMAGES): _REPORT,
        ("s3:GetObject", _UPLOADED): _REPORT,
        ("s3:GetObject", f"{CUTOUTS}/results/*"): _REPORT,
        ("s3:GetObject", f"{LEDGER}/_foreedge/*"): Notice("status", _DENIED_STORE),
        ("s3:PutObject", f"{LEDGER}/_foreedge/*"): Notice("bulk", _DENIED_STORE),
        ("s3:DeleteObject", f"{LEDGER}/_foreedge/*"): Notice("bulk", _DENIED_STORE),
        ("s3:ListBucket", LEDGER): Notice("status", _DENIED_STORE),
        ("s3:ListBucket", IMAGES): Notice("bulk", _DENIED_STORE),
        ("s3:ListBucket", CUTOUTS): Notice("verify", _DENIED_STORE),
        ("s3:PutObject", _UPLOADED): Notice("bulk", _DENIED_STORE),
    },
}
"""What must be noticed, by role, action and end of the resource."""


def expected_notice(role: str, grant: Grant) -> Notice:
    """Return how a role must notice that it lacks a grant.

    Raises:
        KeyError: It is not known what the grant is for.
    """
    found = [
        notice
        for (action, resource), notice in NOTICES[role].items()
        if action == grant.action and grant.resource.endswith(resource)
    ]
    if len(found) != 1:
        raise KeyError(f"{role}: nothing says what {grant} is for")
    return found[0]


class Trials:
    """The trials in one account, whose roles have all of their grants in between."""

    def __init__(self, steps: Steps, policies: Mapping[str, Sequence[Grant]]) -> None:
        """Make a run that is done, and one whose only job has failed.

        Args:
            steps: Steps in the account.
            policies: Grants of each role.
        """
        self._steps = steps
        self._policies = policies
        tag = steps.tag
        self._done, self._failed = f"done-{tag}", f"failed-{tag}"
        self._images = f"s3://{IMAGES}/in/{tag}/"
        listed = steps.folder / f"{tag}.csv"
        keys = [f"in/{tag}/done.jpg", f"uploads/{tag}-done.jpg"]
        for number, key in enumerate(keys):
            steps.put(key, number)
        listed.write_text("".join(f"{IMAGES},{key}\n" for key in keys))
        steps.foreedge("bulk", str(listed), "--run-id", self._done, *BULK)
        listed.write_text(f"{IMAGES},in/{tag}/nowhere.jpg\n")
        steps.foreedge("bulk", str(listed), "--run-id", self._failed, *BULK)
        steps.work(3)
        dead = steps.sqs.receive_message(QueueUrl=steps.account.dead_url)
        self._letter = dead["Messages"][0]["Body"]

    def without(self, role: str, grant: Grant) -> StepFailed:
        """Return how a role fails without a grant.

        Raises:
            AssertionError: It does not fail.
        """
        account = self._steps.account
        account.allow(role, [other for other in self._policies[role] if other != grant])
        try:
            self.act(role)
        except StepFailed as failure:
            return failure
        finally:
            account.allow(role, self._policies[role])
        raise AssertionError(f"{role} does everything without {grant}")

    def act(self, role: str) -> None:
        """Let a role do its work.

        Raises:
            StepFailed: A step failed.
        """
        self._steps.account.make_queues()
        match role:
            case "head":
                self._steps.read_backlog()
            case "producer":
                self._steps.send([self._letter, self._letter], "producer")
            case "image":
                self._steps.pull_image()
            case "ray":
                self._steps.scale_nodes()
            case "worker":
                self._work()
            case "operator":
                self._operate()

    def _work(self) -> None:
        steps, name, run_id = self._steps, uuid.uuid4().hex[:8], f"worked-{uuid.uuid4().hex[:8]}"
        keys = [f"in/{name}/{n}.jpg" for n in range(6)]
        keys += [f"in/{name}/{SLOW}", f"uploads/{name}.jpg"]
        versioned = [f"in/{name}/old.jpg", f"uploads/{name}-old.jpg"]
        for number, key in enumerate(keys):
            steps.put(key, number)
        bodies = [steps.message(run_id, key) for key in [*keys, f"in/{name}/nowhere.jpg"]]
        for number, key in enumerate(versioned, len(keys)):
            bodies.append(steps.message(run_id, key, version_id=steps.put(key, number)))
        for start in range(0, len(bodies), 10):
            steps.send(bodies[start : start + 10])
        steps.work(len(bodies))
        steps.post([job(keys[0])])
        codes: dict[str, Any] = steps.counts(run_id)["codes"]
        if codes != {"source_not_found": 1}:
            raise StepFailed("worker: consume", json.dumps(codes))

    def _operate(self) -> None:
        steps, void = self._steps, f"void-{uuid.uuid4().hex[:8]}"
        for body in (self._letter, "of another application"):
            steps.sqs.send_message(QueueUrl=steps.account.dead_url, MessageBody=body)
        folder = steps.folder / void
        folder.mkdir()
        (folder / "1.jpg").write_bytes(commented(1))
        steps.foreedge("status", self._done, check=_without_code)
        steps.foreedge("report", self._done, "--out", str(folder / "report"), check=_without_code)
        steps.foreedge("errors", self._failed)
        steps.foreedge("verify", self._done)
        for _ in range(2):
            steps.foreedge("bulk", self._images, "--run-id", void, *BULK)
            steps.foreedge("cancel", void)
        uploaded = f"{void}-uploaded"
        steps.foreedge("bulk", str(folder), "--run-id", uploaded, "--upload-to", UPLOADS, *BULK)
        steps.foreedge("redrive", self._failed, "--clear-dead-letters")
        steps.foreedge("runs", "--compact")
        steps.foreedge("runs", "--prune", "1d", "--yes")


def _without_code(text: str) -> bool:
    return _DENIED_QUEUE not in text and _DENIED_STORE not in text
