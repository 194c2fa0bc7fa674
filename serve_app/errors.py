"""Every way in which a cut-out can fail, as one tree.

Each class carries a stable ``code`` (what clients and reports key on), a ``retry`` class (what
the ingest loop does with the message) and an HTTP status (what the endpoint answers)::

    ForeedgeError
    ├── PermanentError                      retry = permanent: the same input fails again
    │   ├── InvalidRequest            400   invalid_request
    │   ├── InvalidMessage            400   invalid_message
    │   ├── InvalidRecipe             400   invalid_recipe
    │   ├── UnknownModel              400   unknown_model
    │   ├── Unauthenticated           401   unauthenticated
    │   ├── SourceForbidden           403   source_forbidden
    │   ├── SourceNotAllowed          403   source_not_allowed
    │   ├── SourceNotFound            404   source_not_found
    │   ├── NotAcceptable             406   not_acceptable
    │   ├── SourceChanged             409   source_changed
    │   ├── RequestTooLarge           413   request_too_large
    │   ├── ImageTooLarge             413   image_too_large
    │   ├── UnsupportedFormat         415   unsupported_format
    │   ├── InvalidParameters         422   invalid_parameters
    │   ├── EmptyImage                422   empty_image
    │   ├── CorruptImage              422   corrupt_image
    │   └── CheckFailed                     the mask did not pass; the next model may
    │       ├── NoSubject             422   no_subject
    │       └── SubjectTooSmall       422   subject_too_small
    ├── TransientError                      retry = transient: try again later
    │   ├── Overloaded                503   overloaded
    │   ├── StorageUnavailable        503   storage_unavailable
    │   ├── QueueUnavailable          503   queue_unavailable
    │   ├── ModelUnavailable          503   model_unavailable
    │   ├── ReplicaLost               503   replica_lost
    │   ├── InternalError             500   internal_error
    │   └── DeadlineExceeded          504   deadline_exceeded
    └── FatalError                          retry = fatal: the process must not serve
        ├── InvalidConfig             500   invalid_config
        └── ModelChecksumMismatch     500   model_checksum_mismatch

Exceptions of the libraries below are mapped where they enter: botocore's in ``storage.s3``,
``http.api_keys`` and ``ingest.sqs.errors``, Pillow's in ``imaging.decode``, ONNX Runtime's in
``models.inference``, aiohttp's in ``http.url_fetch`` and Ray's in ``serving.handle_calls``.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Retry = Literal["permanent", "transient", "fatal"]


class ForeedgeError(Exception):
    """The root of the tree.

    Attributes:
        code: Stable identifier, part of the public contract.
        retry: Whether another attempt can help.
        http_status: Status of the HTTP answer that reports it.
        message: What was wrong, with which object, and what to do.
    """

    code: ClassVar[str]
    retry: ClassVar[Retry]
    http_status: ClassVar[int]

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class PermanentError(ForeedgeError):
    """The same input fails in the same way again: never retried."""

    retry = "permanent"


class InvalidRequest(PermanentError):
    """An HTTP request with a header, a path or a form that cannot be read."""

    code = "invalid_request"
    http_status = 400


class InvalidMessage(PermanentError):
    """A queue message that no known shape describes."""

    code = "invalid_message"
    http_status = 400


class InvalidRecipe(PermanentError):
    """A recipe with an unknown preset, field or value."""

    code = "invalid_recipe"
    http_status = 400


class UnknownModel(PermanentError):
    """A model that this application does not serve."""

    code = "unknown_model"
    http_status = 400


class Unauthenticated(PermanentError):
    """An HTTP request without one of the API keys."""

    code = "unauthenticated"
    http_status = 401


class SourceForbidden(PermanentError):
    """The object store denies the read of the source, or the write of the result."""

    code = "source_forbidden"
    http_status = 403


class SourceNotAllowed(PermanentError):
    """A bucket that is not on the allow-list."""

    code = "source_not_allowed"
    http_status = 403


class SourceNotFound(PermanentError):
    """The source object, its version or its bucket does not exist."""

    code = "source_not_found"
    http_status = 404


class NotAcceptable(PermanentError):
    """An ``Accept`` header that rules out every format that results have."""

    code = "not_acceptable"
    http_status = 406


class SourceChanged(PermanentError):
    """The source's ETag is no longer the one that the job names."""

    code = "source_changed"
    http_status = 409


class RequestTooLarge(PermanentError):
    """An HTTP request whose body, other than an image, has too many bytes."""

    code = "request_too_large"
    http_status = 413


class ImageTooLarge(PermanentError):
    """Over a limit: bytes, pixels, or the length of one side."""

    code = "image_too_large"
    http_status = 413


class UnsupportedFormat(PermanentError):
    """Not an image, or an image format that is not on the allow-list."""

    code = "unsupported_format"
    http_status = 415


class InvalidParameters(PermanentError):
    """A parameter of rembg's API that its server refuses too, or that cannot be done here."""

    code = "invalid_parameters"
    http_status = 422


class EmptyImage(PermanentError):
    """Zero bytes, or an image with a side of zero pixels."""

    code = "empty_image"
    http_status = 422


class CorruptImage(PermanentError):
    """The header reads well and the pixels do not."""

    code = "corrupt_image"
    http_status = 422


class CheckFailed(PermanentError):
    """The mask did not pass the recipe's checks; the recipe's next model is asked."""


class NoSubject(CheckFailed):
    """The model found nothing to keep."""

    code = "no_subject"
    http_status = 422


class SubjectTooSmall(CheckFailed):
    """The subject is smaller than, or shaped unlike, what the recipe asks for."""

    code = "subject_too_small"
    http_status = 422


class TransientError(ForeedgeError):
    """Nothing is wrong with the input: another attempt may succeed."""

    retry = "transient"
    http_status = 503


class Overloaded(TransientError):
    """Every place in every bounded queue is taken."""

    code = "overloaded"

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        """Make the error.

        Args:
            message: As in every error.
            retry_after_s: When a place may be free; what ``Retry-After`` says.
        """
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StorageUnavailable(TransientError):
    """The object store does not answer, throttles, or fails."""

    code = "storage_unavailable"


class QueueUnavailable(TransientError):
    """SQS does not answer, or no queue is configured."""

    code = "queue_unavailable"


class ModelUnavailable(TransientError):
    """The model could not be run, for a reason that is not the image."""

    code = "model_unavailable"


class ReplicaLost(TransientError):
    """The replica died while it held the job."""

    code = "replica_lost"


class InternalError(TransientError):
    """A defect of ours. Retried, since the queue's redrive policy bounds the attempts."""

    code = "internal_error"
    http_status = 500


class DeadlineExceeded(TransientError):
    """The job took longer than its deadline."""

    code = "deadline_exceeded"
    http_status = 504


class FatalError(ForeedgeError):
    """The process must not serve: it never becomes ready, and says why."""

    retry = "fatal"
    http_status = 500


class InvalidConfig(FatalError):
    """A setting that is missing, empty or contradicts another."""

    code = "invalid_config"


class ModelChecksumMismatch(FatalError):
    """A model file whose digest is not the published one."""

    code = "model_checksum_mismatch"


def leaves(root: type[ForeedgeError] = ForeedgeError) -> tuple[type[ForeedgeError], ...]:
    """Return every concrete error of the tree, in the order of its definition."""
    found: list[type[ForeedgeError]] = []
    for child in root.__subclasses__():
        found += leaves(child) if child.__subclasses__() else [child]
    return tuple(found)


BY_CODE: dict[str, type[ForeedgeError]] = {leaf.code: leaf for leaf in leaves()}
"""Concrete error classes by their code, for errors that crossed a process as an Outcome."""
