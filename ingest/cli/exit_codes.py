"""The exit codes of the ``foreedge`` command, which scripts may rely on."""

from __future__ import annotations

from serve_app.errors import (
    DatabaseUnavailable,
    ForeedgeError,
    ModelUnavailable,
    QueueUnavailable,
    StorageUnavailable,
)

SUCCESS = 0
"""Everything that was asked for is done."""

FAILED = 1
"""Images failed, results are missing, a check failed, or another attempt may cure the error."""

WRONG_USAGE = 2
"""A wrong argument or setting, or a run, bucket, file or model that does not exist."""

STALLED = 3
"""A run that was waited for cannot end: its queue is empty, and jobs have no result."""

UNAVAILABLE = 4
"""SQS, S3 or the catalog's database did not answer, so nothing is known. The run continues."""

INTERRUPTED = 130
"""Ctrl-C or SIGTERM."""

OUTPUT_CLOSED = 141
"""The program that read the output has ended, as ``head`` does."""


def exit_code_of(error: ForeedgeError) -> int:
    """Return the exit code of a command that an error ended."""
    if isinstance(error, QueueUnavailable | StorageUnavailable | DatabaseUnavailable):
        return UNAVAILABLE
    if isinstance(error, ModelUnavailable) and error.lasting:
        return WRONG_USAGE
    return FAILED if error.retry == "transient" else WRONG_USAGE
