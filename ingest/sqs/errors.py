"""Map botocore's errors to QueueUnavailable, with advice on what to do about each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    ReadTimeoutError,
)

from serve_app.aws import CREDENTIAL_ERRORS, CREDENTIALS_ADVICE
from serve_app.errors import QueueUnavailable

_MISSING = "create it, or correct queue.url and aws.region"
_DENIED = "the role's policy must allow this action on the queue"
_KEY = "enable the KMS key of the queue, and allow the role to use it"
_TOO_MANY = "too many messages are in flight; consumers are not deleting them"

# SQS has these codes in two spellings, one for each of its protocols.
# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html#API_SendMessage_Errors
_KMS_CODES = (
    "KmsAccessDenied",
    "KmsDisabled",
    "KmsInvalidKeyUsage",
    "KmsInvalidState",
    "KmsNotFound",
    "KMS.AccessDeniedException",
    "KMS.DisabledException",
    "KMS.InvalidKeyUsageException",
    "KMS.InvalidStateException",
    "KMS.KMSInvalidStateException",
    "KMS.NotFoundException",
)

_ADVICE = {
    "QueueDoesNotExist": _MISSING,
    "NonExistentQueue": _MISSING,
    "InvalidAddress": "correct queue.url and aws.region",
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    **dict.fromkeys(_KMS_CODES, _KEY),
    "ExpiredToken": CREDENTIALS_ADVICE,
    "ExpiredTokenException": CREDENTIALS_ADVICE,
    "InvalidClientTokenId": CREDENTIALS_ADVICE,
    "UnrecognizedClientException": CREDENTIALS_ADVICE,
    "SignatureDoesNotMatch": CREDENTIALS_ADVICE,
    "OverLimit": _TOO_MANY,
}


@contextmanager
def map_sqs_errors(where: str, *, if_missing: str = _MISSING) -> Iterator[None]:
    """Raise QueueUnavailable in place of an error of botocore.

    Args:
        where: Queue and action, for the message.
        if_missing: Advice if the queue does not exist.

    Raises:
        QueueUnavailable: The call in the ``with`` block failed. The text says what to do.
    """
    try:
        yield
    # A ValueError is botocore's answer to a queue URL that is none.
    except (ClientError, BotoCoreError, ValueError) as error:
        advice = _advice_on(error)
        if advice == _MISSING:
            advice = if_missing
        raise QueueUnavailable(f"{where}: {error}" + (f" -- {advice}" if advice else "")) from error


def is_timeout(error: QueueUnavailable) -> bool:
    """Return whether a call failed because it was not answered in time."""
    return isinstance(error.__cause__, ReadTimeoutError | ConnectTimeoutError | TimeoutError)


def is_denial(error: QueueUnavailable) -> bool:
    """Return whether a call was refused for a reason that only somebody outside can remove."""
    cause = error.__cause__
    # Too many messages in flight become fewer without anybody's help.
    return isinstance(cause, ClientError) and _advice_on(cause) not in (None, _TOO_MANY)


def is_refused_message(error: QueueUnavailable) -> bool:
    """Return whether SQS answered, and did not take one message of a batch."""
    return error.__cause__ is None


def _advice_on(error: Exception) -> str | None:
    if isinstance(error, CREDENTIAL_ERRORS):
        return CREDENTIALS_ADVICE
    if isinstance(error, ReadTimeoutError | ConnectTimeoutError):
        return "SQS does not answer; check the network between this process and the queue"
    if isinstance(error, ClientError):
        # SQS has two protocols. In the older one, codes begin with "AWS.SimpleQueueService.".
        code = error.response.get("Error", {}).get("Code", "")
        return _ADVICE.get(code) or _ADVICE.get(code.rpartition(".")[2])
    return None
