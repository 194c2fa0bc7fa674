"""What a check of an installation has found: one line for each thing that it looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from serve_app.config import AppConfig
from serve_app.errors import ForeedgeError

_DENIED = {"AccessDenied", "AccessDeniedException", "403", "Forbidden"}
_QUICK = {"max_attempts": 1, "connect_timeout_s": 2, "read_timeout_s": 4}
"""Settings of AWS's clients with which every check ends within seconds."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str
    """What was checked."""
    problem: str | None = None
    """What is wrong and what to do, or None."""
    detail: str = ""
    """What was found."""


def with_quick_answers(config: AppConfig) -> AppConfig:
    """Return settings with which AWS's clients give up within seconds."""
    return config.model_copy(update={"aws": config.aws.model_copy(update=_QUICK)})


def checked(check: str, work: Callable[[], str]) -> Finding:
    """Return the finding of a check.

    Args:
        check: What is checked.
        work: Function that returns what it found, or raises one of our errors.
    """
    try:
        return Finding(check, detail=work())
    except ForeedgeError as error:
        return Finding(check, error.message)


def tried(
    right: str,
    where: str,
    action: Callable[[], object],
    accepted: tuple[str, ...] = (),
    *,
    advice: str = "allow it in its policy",
) -> Finding:
    """Return the finding of a call of AWS that changes nothing, and shows whether it is allowed.

    AWS looks at the rights before it looks at what is asked for. So a call that asks for something
    that cannot be is refused in another way than one that is denied.

    Args:
        right: Action in the policy of the role.
        where: URL of the queue or the bucket.
        action: Function that makes the call.
        accepted: Codes of the refusals that show that the call was allowed.
        advice: What to do if it is denied.
    """
    try:
        action()
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "").rpartition(".")[2]
        if code in _DENIED:
            return Finding(right, f"the role may not {right} on {where}; {advice}")
        if code == "NoSuchBucket":
            return Finding(right, f"{where} does not exist; create it, or correct its name")
        if code not in accepted:
            return Finding(right, f"{where}: {error}")
    except (BotoCoreError, ValueError) as error:
        return Finding(right, f"{where}: {error}")
    return Finding(right, detail="allowed")
