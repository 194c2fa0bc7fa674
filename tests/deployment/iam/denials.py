"""What no role may do, whatever the code would try."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from tests.deployment.iam.account import CUTOUTS, IMAGES, LEDGER, OTHER, Account
from tests.deployment.iam.grants import ROLES

_DENIED = {"AccessDenied", "AccessDeniedException", "403"}


class Attempt(NamedTuple):
    """A call of AWS that must be denied."""

    role: str
    what: str
    call: Callable[[], Any]


def attempts(account: Account) -> Iterator[Attempt]:
    """Yield calls that the roles have no right to, with the objects and queues that they name."""
    for role in ROLES:
        sqs, s3 = account.client("sqs", role), account.client("s3", role)
        calls = _on_queues(account, sqs) | _on_buckets(s3) | _of_one_role(account, role, sqs, s3)
        for what, call in calls.items():
            yield Attempt(role, what, call)


def succeeded(account: Account) -> tuple[int, list[str]]:
    """Return how many calls were tried, and which of them were not denied."""
    allowed, number = [], 0
    for attempt in attempts(account):
        number += 1
        try:
            attempt.call()
        except ClientError as error:
            if error.response["Error"]["Code"] in _DENIED:
                continue
            raise
        allowed.append(f"{attempt.role} may {attempt.what}")
    return number, allowed


def _on_queues(account: Account, sqs: Any) -> dict[str, Callable[[], Any]]:
    jobs, dead, other = account.queue_url, account.dead_url, account.other_url
    return {
        "delete the queue": lambda: sqs.delete_queue(QueueUrl=jobs),
        "delete the dead-letter queue": lambda: sqs.delete_queue(QueueUrl=dead),
        "purge the queue": lambda: sqs.purge_queue(QueueUrl=jobs),
        "change the queue": lambda: sqs.set_queue_attributes(
            QueueUrl=jobs, Attributes={"VisibilityTimeout": "1"}
        ),
        "receive from another queue": lambda: sqs.receive_message(QueueUrl=other),
        "send to another queue": lambda: sqs.send_message(QueueUrl=other, MessageBody="x"),
        "read another queue's length": lambda: sqs.get_queue_attributes(
            QueueUrl=other, AttributeNames=["All"]
        ),
        "make a queue": lambda: sqs.create_queue(QueueName="new"),
    }


def _on_buckets(s3: Any) -> dict[str, Callable[[], Any]]:
    return {
        "list another bucket": lambda: s3.list_objects_v2(Bucket=OTHER),
        "read another bucket": lambda: s3.get_object(Bucket=OTHER, Key="in/1.jpg"),
        "write to another bucket": lambda: s3.put_object(Bucket=OTHER, Key="1.jpg", Body=b""),
        "read another prefix": lambda: s3.get_object(Bucket=IMAGES, Key="private/1.jpg"),
        "write among the images": lambda: s3.put_object(Bucket=IMAGES, Key="in/x.jpg", Body=b""),
        "delete an image": lambda: s3.delete_object(Bucket=IMAGES, Key="in/1.jpg"),
        "delete a result": lambda: s3.delete_object(Bucket=CUTOUTS, Key="results/1.png"),
        "write outside the results": lambda: s3.put_object(Bucket=CUTOUTS, Key="x", Body=b""),
        "write outside the ledger": lambda: s3.put_object(Bucket=LEDGER, Key="x", Body=b""),
        "delete a bucket": lambda: s3.delete_bucket(Bucket=LEDGER),
        "list the buckets": lambda: s3.list_buckets(),
    }


def _of_one_role(account: Account, role: str, sqs: Any, s3: Any) -> dict[str, Callable[[], Any]]:
    """Return what other roles may do, and this one may not."""
    jobs, dead = account.queue_url, account.dead_url
    calls: dict[str, Callable[[], Any]] = {}
    if role != "worker":
        calls |= {
            "receive from the queue": lambda: sqs.receive_message(QueueUrl=jobs),
            "send a dead letter": lambda: sqs.send_message(QueueUrl=dead, MessageBody="x"),
            "write a result": lambda: s3.put_object(Bucket=CUTOUTS, Key="results/x.png", Body=b""),
        }
    if role != "operator":
        calls |= {
            "receive a dead letter": lambda: sqs.receive_message(QueueUrl=dead),
            "upload an image": lambda: s3.put_object(Bucket=IMAGES, Key="uploads/x.jpg", Body=b""),
            "delete a record": lambda: s3.delete_object(
                Bucket=LEDGER, Key="_foreedge/runs/x/run.json"
            ),
        }
    if role in ("head", "producer"):
        calls |= {
            "read an image": lambda: s3.get_object(Bucket=IMAGES, Key="in/1.jpg"),
            "read the ledger": lambda: s3.get_object(Bucket=LEDGER, Key="_foreedge/runs/x"),
            "list the images": lambda: s3.list_objects_v2(Bucket=IMAGES),
        }
    if role == "head":
        calls["send a job"] = lambda: sqs.send_message(QueueUrl=jobs, MessageBody="x")
    return calls
