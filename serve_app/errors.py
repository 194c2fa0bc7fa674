"""The tree of errors.

Each class has a stable ``code`` for clients and reports, a ``retry`` class that decides what the
consumer does with the message, and the HTTP status of the endpoint's answer::

    ForeedgeError
    ├── PermanentError                      retry = permanent: the same input fails again
    │   ├── InvalidRequest            400   invalid_request
    │   ├── InvalidMessage            400   invalid_message
    │   ├── InvalidRecipe             400   invalid_recipe
    │   ├── UnknownModel              400   unknown_model
    │   ├── Unauthenticated           401   unauthenticated
    │   ├── StorageRejected           400   storage_rejected
    │   ├── SourceForbidden           403   source_forbidden
    │   ├── SourceArchived            403   source_archived
    │   ├── SourceEncrypted           403   source_encrypted
    │   ├── SourceNotAllowed          403   source_not_allowed
    │   ├── SourceNotFound            404   source_not_found
    │   ├── SourceDeleted             404   source_deleted
    │   ├── JobUnknown                404   job_unknown
    │   ├── NotAcceptable             406   not_acceptable
    │   ├── SourceChanged             409   source_changed
    │   ├── RunCancelled              409   run_cancelled
    │   ├── RequestTooLarge           413   request_too_large
    │   ├── ImageTooLarge             413   image_too_large
    │   ├── UnsupportedFormat         415   unsupported_format
    │   ├── InvalidParameters         422   invalid_parameters
    │   ├── EmptyImage                422   empty_image
    │   ├── CorruptImage              422   corrupt_image
    │   └── CheckFailed                     the next model is tried
    │       ├── NoSubject             422   no_subject
    │       └── SubjectTooSmall       422   subject_too_small
    ├── TransientError                      retry = transient: another attempt may succeed
    │   ├── LimitReached                    the client may try again after some seconds
    │   │   ├── RateLimited           429   rate_limited
    │   │   └── Overloaded            503   overloaded
    │   ├── StorageUnavailable        503   storage_unavailable
    │   ├── QueueUnavailable          503   queue_unavailable
    │   ├── DatabaseUnavailable       503   database_unavailable
    │   ├── ModelUnavailable          503   model_unavailable
    │   ├── ReplicaLost               503   replica_lost
    │   ├── InternalError             500   internal_error
    │   └── DeadlineExceeded          504   deadline_exceeded
    └── FatalError                          retry = fatal: the process must not serve
        ├── InvalidConfig             500   invalid_config
        └── ModelChecksumMismatch     500   model_checksum_mismatch

The exceptions of libraries are mapped to these classes where they enter (docs/errors.md).
"""

from __future__ import annotations

from serve_app.error_root import ForeedgeError as ForeedgeError
from serve_app.error_root import Retry as Retry


class PermanentError(ForeedgeError):
    """An error that the same input causes again. It is never retried."""

    retry = "permanent"


class InvalidRequest(PermanentError):
    """An HTTP request has a header, a path or a form that cannot be read."""

    code = "invalid_request"
    http_status = 400


class InvalidMessage(PermanentError):
    """A queue message has no known shape, or an invalid field."""

    code = "invalid_message"
    http_status = 400


class InvalidRecipe(PermanentError):
    """A recipe has an unknown preset, or an unknown or invalid field."""

    code = "invalid_recipe"
    http_status = 400


class UnknownModel(PermanentError):
    """The application does not serve the requested model."""

    code = "unknown_model"
    http_status = 400


class Unauthenticated(PermanentError):
    """An HTTP request has no valid API key."""

    code = "unauthenticated"
    http_status = 401


class StorageRejected(PermanentError):
    """The object store rejects a request, and would reject it again."""

    code = "storage_rejected"
    http_status = 400
    refusal = True


class SourceForbidden(PermanentError):
    """The object store denies access to the source, or to the place of the result."""

    code = "source_forbidden"
    http_status = 403
    refusal = True


class SourceArchived(PermanentError):
    """The source is in an archive, and must be restored before it can be read."""

    code = "source_archived"
    http_status = 403


class SourceEncrypted(PermanentError):
    """The source is encrypted with a key that only its owner has (SSE-C)."""

    code = "source_encrypted"
    http_status = 403


class SourceNotAllowed(PermanentError):
    """A bucket or host is not on the allow-list."""

    code = "source_not_allowed"
    http_status = 403


class SourceNotFound(PermanentError):
    """The source object, its version or its bucket does not exist."""

    code = "source_not_found"
    http_status = 404


class SourceDeleted(PermanentError):
    """The image of a book was deleted before its cut-out could be entered."""

    code = "source_deleted"
    http_status = 404


class JobUnknown(PermanentError):
    """A message names a job that the database does not have."""

    code = "job_unknown"
    http_status = 404


class NotAcceptable(PermanentError):
    """The ``Accept`` header of an HTTP request rules out every format of results."""

    code = "not_acceptable"
    http_status = 406


class SourceChanged(PermanentError):
    """The source no longer has the ETag that the job names."""

    code = "source_changed"
    http_status = 409


class RunCancelled(PermanentError):
    """The run of the job is cancelled. Its message is deleted without a dead letter."""

    code = "run_cancelled"
    http_status = 409


class RequestTooLarge(PermanentError):
    """The body of an HTTP request, other than an image, is too large."""

    code = "request_too_large"
    http_status = 413


class ImageTooLarge(PermanentError):
    """An image exceeds a limit: bytes, pixels, the length of a side, or parts of its file."""

    code = "image_too_large"
    http_status = 413


class UnsupportedFormat(PermanentError):
    """The data is not an image, or an image of a format that is not accepted."""

    code = "unsupported_format"
    http_status = 415


class InvalidParameters(PermanentError):
    """A parameter of rembg's API is invalid or not supported."""

    code = "invalid_parameters"
    http_status = 422


class EmptyImage(PermanentError):
    """The image has no bytes, or a side of zero pixels."""

    code = "empty_image"
    http_status = 422


class CorruptImage(PermanentError):
    """The data is an image, but its header or its pixels cannot be decoded."""

    code = "corrupt_image"
    http_status = 422


class CheckFailed(PermanentError):
    """The mask failed the recipe's checks. The recipe's next model is tried."""


class NoSubject(CheckFailed):
    """The model found no subject in the image."""

    code = "no_subject"
    http_status = 422


class SubjectTooSmall(CheckFailed):
    """The subject is smaller than the recipe demands, or has another aspect ratio."""

    code = "subject_too_small"
    http_status = 422


class TransientError(ForeedgeError):
    """An error that is not the input's fault. Another attempt may succeed."""

    retry = "transient"
    http_status = 503


class LimitReached(TransientError):
    """A limit is reached that has room again after some time."""

    def __init__(self, message: str, retry_after_s: int = 1, limit: str = "") -> None:
        """Create the error.

        Args:
            message: Text that says which limit is reached.
            retry_after_s: Time, in seconds, after which the client may try again (``Retry-After``).
            limit: Name of the setting that holds the limit, for metrics.
        """
        super().__init__(message)
        self.retry_after_s, self.limit = retry_after_s, limit


class RateLimited(LimitReached):
    """An API key has sent more requests than it may."""

    code = "rate_limited"
    http_status = 429


class Overloaded(LimitReached):
    """A limit on concurrent work or buffered bytes is reached."""

    code = "overloaded"
    refusal = True


class StorageUnavailable(TransientError):
    """The object store does not answer, throttles, or fails."""

    code = "storage_unavailable"
    refusal = True


class QueueUnavailable(TransientError):
    """SQS does not answer, or no queue is configured."""

    code = "queue_unavailable"


class DatabaseUnavailable(TransientError):
    """The catalog's database does not answer, takes no changes, or lacks what jobs need."""

    code = "database_unavailable"
    refusal = True


class ModelUnavailable(TransientError):
    """The model could not be run, for a reason other than the image."""

    code = "model_unavailable"
    refusal = True
    lasting = False
    """Whether no repetition cures it: the weights are not on this machine."""


class ReplicaLost(TransientError):
    """The replica died while it processed the job."""

    code = "replica_lost"


class InternalError(TransientError):
    """A defect in Foreedge. It is retried, since the queue's redrive policy limits the attempts."""

    code = "internal_error"
    http_status = 500


class DeadlineExceeded(TransientError):
    """The job or the request took longer than its deadline."""

    code = "deadline_exceeded"
    http_status = 504
    refusal = True


class FatalError(ForeedgeError):
    """An error that keeps a process from ever becoming ready. The process reports the reason."""

    retry = "fatal"
    http_status = 500


class InvalidConfig(FatalError):
    """A setting is missing or invalid, or contradicts another."""

    code = "invalid_config"


class ModelChecksumMismatch(FatalError):
    """The digest of a model file is not the published one."""

    code = "model_checksum_mismatch"


def concrete_errors(root: type[ForeedgeError] = ForeedgeError) -> tuple[type[ForeedgeError], ...]:
    """Return the classes of the tree that can be raised, in the order of definition."""
    if not (children := root.__subclasses__()):
        return (root,)
    return tuple(each for child in children for each in concrete_errors(child))


BY_CODE: dict[str, type[ForeedgeError]] = {error.code: error for error in concrete_errors()}
"""Classes by their code, for errors that crossed processes as an Outcome."""
