"""What each answer of S3 means: a table from the code of an error to a verdict.

The rows are AWS's list of error codes, as far as the calls of ``S3Store`` can be answered with
them, those of KMS that S3 passes on, and those of other stores with the same protocol. An answer
that has no row is judged by its HTTP status. What is no fault of the object is marked as a refusal,
so that no job is blamed for it (``errors.ForeedgeError.refusal``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from serve_app.errors import (
    ForeedgeError,
    SourceArchived,
    SourceChanged,
    SourceEncrypted,
    SourceForbidden,
    SourceNotFound,
    StorageRejected,
    StorageUnavailable,
)

_ERRORS = "https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html"
_CONDITIONS = "https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html"
_KMS = "https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html"
_CEPH = "https://docs.ceph.com/en/latest/radosgw/s3/"
_STORAGEGRID = "https://docs.netapp.com/us-en/storagegrid/s3/error-responses.html"
_HTTP = "https://www.rfc-editor.org/rfc/rfc9110#name-status-codes"


class Meaning(Enum):
    """What an answer means, for a job."""

    ABSENT = "the object, or its version, does not exist"
    NO_BUCKET = "the bucket does not exist, or not at this address"
    IMPOSSIBLE = "no object can have this name"
    DENIED = "access is denied"
    ARCHIVED = "the object must be restored from its archive"
    ENCRYPTED = "the object can be read with its owner's key only"
    CHANGED = "the object is not the expected one"
    REJECTED = "the store cannot do what it is asked"
    TRANSIENT = "the same request may succeed later"


@dataclass(frozen=True, slots=True)
class S3Answer:
    """Answers with one meaning and one piece of advice."""

    codes: str
    """Codes of the errors, between spaces."""
    meaning: Meaning
    advice: str
    """What to do about them. Empty if there is nothing to do but to wait."""
    source: str
    """URL of the page that documents them."""


_ROWS = (
    S3Answer("NoSuchKey NoSuchVersion NotFound 404", Meaning.ABSENT, "", _ERRORS),
    S3Answer("NoSuchBucket", Meaning.NO_BUCKET, "create the bucket, or correct its name", _ERRORS),
    S3Answer(
        "PermanentRedirect TemporaryRedirect Redirect AuthorizationHeaderMalformed "
        "IllegalLocationConstraintException 301 307",
        Meaning.NO_BUCKET,
        "the bucket is in another region: correct aws.region or aws.endpoint_url",
        _ERRORS,
    ),
    S3Answer(
        "KeyTooLongError InvalidURI InvalidBucketName InvalidArgument",
        Meaning.IMPOSSIBLE,
        "",
        _ERRORS,
    ),
    S3Answer("KeyTooLong", Meaning.IMPOSSIBLE, "", _STORAGEGRID),
    S3Answer("InvalidObjectName", Meaning.IMPOSSIBLE, "", _CEPH),
    S3Answer(
        "AccessDenied Forbidden 401 403 AccountProblem AllAccessDisabled InvalidPayer "
        "InvalidSecurity NotSignedUp AccessPointNotOwnedByYou NotDeviceOwnerError "
        "UnauthorizedAccess UnauthorizedAccessError InvalidAccessPointAliasError "
        "InvalidAccessPoint",
        Meaning.DENIED,
        "check the policies of the role and of the bucket, and who pays for requests",
        _ERRORS,
    ),
    S3Answer("UserSuspended", Meaning.DENIED, "the user is suspended", _CEPH),
    S3Answer(
        "KMS.DisabledException KMS.InvalidKeyUsageException KMS.KMSInvalidStateException "
        "KMS.NotFoundException KMS.AccessDeniedException KMS.InvalidStateException",
        Meaning.DENIED,
        "enable the KMS key of the object, and allow the role to use it",
        _KMS,
    ),
    S3Answer(
        "InvalidObjectState ObjectNotInActiveTierError RestoreAlreadyInProgress",
        Meaning.ARCHIVED,
        "restore the object, then redrive its job",
        _ERRORS,
    ),
    S3Answer("PreconditionFailed 412", Meaning.CHANGED, "", _CONDITIONS),
    S3Answer(
        "NotImplemented 501 NotSupported MethodNotAllowed 405",
        Meaning.REJECTED,
        "use a store that has all that S3 has, or correct aws.endpoint_url",
        _ERRORS,
    ),
    S3Answer(
        "EntityTooLarge EntityTooSmall InvalidDigest InvalidEncryptionAlgorithmError "
        "InvalidStorageClass MaxMessageLengthExceeded MetadataTooLarge "
        "MissingContentLength MissingSecurityHeader InvalidRange InvalidTag InvalidBucketState "
        "InvalidAddressingHeader CredentialsNotSupported RequestHeaderSectionTooLarge "
        "UnexpectedContent MalformedXML ServerSideEncryptionConfigurationNotFoundError 411 414 416",
        Meaning.REJECTED,
        "see the reason, and the settings of the bucket",
        _ERRORS,
    ),
    S3Answer(
        "EncryptionTypeMismatch InvalidWriteOffset TooManyParts",
        Meaning.REJECTED,
        "see the reason, and the settings of the bucket",
        "https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html",
    ),
    S3Answer(
        "ExpiredToken TokenRefreshRequired InvalidToken InvalidAccessKeyId SignatureDoesNotMatch "
        "AuthorizationQueryParametersError RequestExpired",
        Meaning.TRANSIENT,
        "renew the credentials",
        _ERRORS,
    ),
    S3Answer(
        "RequestTimeTooSkewed", Meaning.TRANSIENT, "correct the clock of this machine", _ERRORS
    ),
    S3Answer("ConditionalRequestConflict", Meaning.TRANSIENT, "", _CONDITIONS),
    S3Answer(
        "SlowDown InternalError ServiceUnavailable RequestTimeout OperationAborted Busy "
        "RequestLimitExceeded BandwidthLimitExceeded BadDigest IncompleteBody "
        "XAmzContentSHA256Mismatch 500 502 503 504",
        Meaning.TRANSIENT,
        "",
        _ERRORS,
    ),
    S3Answer(
        "KMS.ThrottlingException ThrottlingException KMS.KMSInternalException",
        Meaning.TRANSIENT,
        "",
        _KMS,
    ),
    S3Answer("408 409 429 507", Meaning.TRANSIENT, "", _HTTP),
)

ROWS: dict[str, S3Answer] = {code: row for row in _ROWS for code in row.codes.split()}
"""Rows of the table by code."""

_BY_STATUS = S3Answer("", Meaning.REJECTED, "see the reason", _HTTP)

_SSE_C = "server side encryption"
"""Part of the text, in small letters, of ``InvalidRequest`` for an object with SSE-C."""


def explain_answer(
    code: str, status: int, text: str, where: str, action: str = ""
) -> ForeedgeError:
    """Return our error for an answer of S3.

    Args:
        code: Code of the error. The answer to a HEAD has none but its status.
        status: HTTP status, or 0 if it is not known.
        text: Reason that S3 gives.
        where: URL of the object or bucket.
        action: Action of IAM that the request needs. Empty if it is not known.
    """
    row = _row(code, status, text)
    reason = " ".join(text.split())
    advice = f"; {row.advice}" if row.advice else ""
    match row.meaning:
        case Meaning.ABSENT:
            return SourceNotFound(f"{where} does not exist")
        case Meaning.NO_BUCKET:
            missing = SourceNotFound(f"{where}: the bucket does not exist here ({code}){advice}")
            missing.refusal = True
            return missing
        case Meaning.IMPOSSIBLE:
            return SourceNotFound(
                f"{where} cannot exist, correct the bucket, key or version: {code}: {reason}"
            )
        case Meaning.DENIED:
            # A denial of KMS is about the key, whatever S3 is asked for.
            needed = f"; it needs {action}" if action and not code.startswith("KMS.") else ""
            return SourceForbidden(f"{where}: access denied ({code}){needed}{advice}: {reason}")
        case Meaning.ARCHIVED:
            return SourceArchived(f"{where} is in an archive ({code}){advice}")
        case Meaning.ENCRYPTED:
            return SourceEncrypted(f"{where} is encrypted with SSE-C{advice}")
        case Meaning.CHANGED:
            return SourceChanged(f"{where} is no longer the object that the job names (ETag)")
        case Meaning.REJECTED:
            return StorageRejected(f"{where}: the store rejects this ({code}){advice}: {reason}")
        case Meaning.TRANSIENT:
            return StorageUnavailable(f"{where}: {code}: {reason}{advice}")


def _row(code: str, status: int, text: str) -> S3Answer:
    if code == "InvalidRequest" and _SSE_C in text.lower().replace("-", " "):
        advice = "store it again without the customer's key, then redrive its job"
        return S3Answer(code, Meaning.ENCRYPTED, advice, _ERRORS)
    return ROWS.get(code) or ROWS.get(str(status)) or _row_of_class(status)


def _row_of_class(status: int) -> S3Answer:
    """Return the row of a status that the table does not have: 5xx ends, other refusals do not."""
    return _BY_STATUS if 300 <= status < 500 else ROWS["InternalError"]
