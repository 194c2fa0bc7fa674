"""How long a call of SQS may take, so that one that is never answered costs no lease.

A lease is extended a beat after the last time, at least two beats before it would expire. A call
that hangs must therefore end within a fraction of a beat, or the next one comes too late.
"""

from __future__ import annotations

from serve_app.config import AwsConfig

RECEIVE_SLACK_S = 5.0
"""Time in seconds by which the answer to a receive may exceed the receive's own wait."""

_BEAT_MAX_S = 15.0
_SHORT_CALL_MIN_S = 2.0
_SHORT_CALL_MAX_S = 10.0
_RECEIVE_CONNECT_S = 3.0
# A client gives up before the consumer does, which would otherwise drop an answer on its way.
_CLIENT_SHARE = 0.45
_CLIENT_LEAD_S = 1.0


def beat_s(visibility_s: float) -> float:
    """Return the time in seconds after which a lease is extended.

    It is a third of the visibility timeout, and at most 15 s, so that a queue that does not answer
    is noticed within half a minute even if every permit is taken and no job ends.
    """
    return min(_BEAT_MAX_S, visibility_s / 3)


def short_call_s(visibility_s: float) -> float:
    """Return how many seconds a call other than a receive may take with its connection.

    It is half a beat, within limits: less than 2 s would fail calls of a healthy queue, and an
    answer that has taken 10 s does not come.
    """
    return min(_SHORT_CALL_MAX_S, max(_SHORT_CALL_MIN_S, beat_s(visibility_s) / 2))


def receive_limit_s(wait_s: float) -> float:
    """Return how many seconds a receive may take with its connection.

    Args:
        wait_s: Time in seconds that the receive itself waits for messages.
    """
    return wait_s + RECEIVE_SLACK_S + _RECEIVE_CONNECT_S + _CLIENT_LEAD_S


def for_short_calls(aws: AwsConfig, visibility_s: float, attempts: int) -> AwsConfig:
    """Return the settings of a client whose every attempt ends within ``short_call_s``.

    Args:
        aws: Settings of the application, whose smaller limits stay.
        visibility_s: Visibility timeout of the leases in seconds.
        attempts: Maximum number of attempts for one call.
    """
    each_s = _CLIENT_SHARE * short_call_s(visibility_s)
    connect_s, read_s = min(aws.connect_timeout_s, each_s), min(aws.read_timeout_s, each_s)
    return _limited(aws, connect_s, read_s, attempts)


def for_receives(aws: AwsConfig, wait_s: float) -> AwsConfig:
    """Return the settings of a client that waits for messages.

    It makes one attempt: the consumer repeats a receive itself, and sees each failure.
    """
    connect_s = min(aws.connect_timeout_s, _RECEIVE_CONNECT_S)
    return _limited(aws, connect_s, wait_s + RECEIVE_SLACK_S, 1)


def _limited(aws: AwsConfig, connect_s: float, read_s: float, attempts: int) -> AwsConfig:
    return aws.model_copy(
        update={
            "connect_timeout_s": connect_s,
            "read_timeout_s": read_s,
            "max_attempts": min(aws.max_attempts, attempts),
        }
    )
