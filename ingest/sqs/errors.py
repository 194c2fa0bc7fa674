"""Map botocore's errors to QueueUnavailable, with advice for each code."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from serve_app.errors import QueueUnavailable

if TYPE_CHECKING:
    pass
if TYPE_CHECKING:
    pass


def call_sqs(queue_url: str, action: str, method: Callable[..., Any], **arguments: Any) -> Any:
    """Return what a method of SQS's client answers; blocks.

    Raises:
        QueueUnavailable: It raised; says what to do.
    """
    try:
        return method(QueueUrl=queue_url, **arguments)
    except (ClientError, BotoCoreError, ValueError) as error:
        raise map_sqs_error(error, f"{queue_url}: {action}") from error


_CREDENTIALS = "renew them, or give the process a role"


_ADVICE = {
    "QueueDoesNotExist": "create it, or correct queue.url and aws.region",
    "NonExistentQueue": "create it, or correct queue.url and aws.region",
    "InvalidAddress": "correct queue.url and aws.region",
    "AccessDenied": "the role's policy must allow this action on the queue",
    "AccessDeniedException": "the role's policy must allow this action on the queue",
    "ExpiredToken": _CREDENTIALS,
    "ExpiredTokenException": _CREDENTIALS,
    "InvalidClientTokenId": _CREDENTIALS,
    "UnrecognizedClientException": _CREDENTIALS,
    "SignatureDoesNotMatch": _CREDENTIALS,
    "OverLimit": "too many messages are in flight; consumers are not deleting them",
}


def map_sqs_error(error: Exception, where: str) -> QueueUnavailable:
    """Return the error of our tree for one of botocore's.

    Args:
        error: What botocore raised.
        where: The queue and the action, for the message.
    """
    advice = None
    if isinstance(error, ClientError):
        # Both of SQS's protocols: the older one's codes are "AWS.SimpleQueueService.…".
        advice = _ADVICE.get(error.response.get("Error", {}).get("Code", "").rpartition(".")[2])
    elif isinstance(error, NoCredentialsError):
        advice = _CREDENTIALS
    return QueueUnavailable(f"{where}: {error}" + (f" -- {advice}" if advice else ""))
