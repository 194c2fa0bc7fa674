"""``make check-iam``: the roles that Terraform makes do all of their work, and nothing else."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.deployment.iam.account import Account
from tests.deployment.iam.denials import succeeded
from tests.deployment.iam.grants import NODE_POLICIES, Grant, grants_of
from tests.deployment.iam.loop import SIXTY, run_loop
from tests.deployment.iam.server import Server
from tests.deployment.iam.shipped import (
    changed_files,
    made_by_terraform,
    parliament_findings,
    with_other_policies,
    write_files,
    wrongly_trusted,
)
from tests.deployment.iam.steps import Steps
from tests.deployment.iam.trials import Trials, expected_notice
from tests.deployment.terraform import missing_tools


def check(folder: Path, *, write: bool) -> list[str]:
    """Make the roles, let them work, and return what is wrong."""
    began = time.monotonic()
    with Server() as server:
        shipped = made_by_terraform(server.endpoint_url, folder / "terraform")
        if write:
            write_files(shipped)
        faults = [f"{path} is not what Terraform makes" for path in changed_files(shipped)]
        faults += [
            f"{name} has other policies" for name in with_other_policies(server.endpoint_url)
        ]
        faults += wrongly_trusted(server.endpoint_url)
        findings = [found for policy in shipped.values() if (found := parliament_findings(policy))]
        policies = {name: grants_of(policy) for name, policy in shipped.items()}
        account = Account(server)
        for name, grants in policies.items():
            account.allow(name, grants)
        done = run_loop(Steps(account, folder), SIXTY)
        print(f"{done} jobs done, each step by its own role", flush=True)
        if done != SIXTY.total:
            faults.append(f"{done} jobs of {SIXTY.total} are done")
        calls, allowed = succeeded(account)
        print(f"{calls} calls without a right, {len(allowed)} allowed", flush=True)
        trials = Trials(Steps(account, folder), policies)
        for name in NODE_POLICIES:
            trials.act(name)
        unnoticed = _unnoticed(trials, policies)
    print(
        f"{done} jobs done; {calls} calls without a right, {len(allowed)} allowed; "
        f"{sum(map(len, policies.values()))} rights taken away, {len(unnoticed)} unnoticed; "
        f"{len(policies)} policies, {len(findings)} with findings of parliament; "
        f"{time.monotonic() - began:.0f} s"
    )
    return faults + findings + allowed + unnoticed


def _unnoticed(trials: Trials, policies: Mapping[str, Sequence[Grant]]) -> list[str]:
    """Take each right from its role, and return those that it did not miss as it should."""
    wrong = []
    rights = [(role, grant) for role, grants in policies.items() for grant in grants]
    for role, grant in rights:
        expected = expected_notice(role, grant)
        failure = trials.without(role, grant)
        print(f"{role} without {grant}: {failure.step}: {expected.code}", flush=True)
        if failure.step != f"{role}: {expected.step}" or expected.code not in failure.text:
            wrong.append(f"{role} without {grant}: {failure}, not {expected}")
    return wrong


def main() -> None:
    """Check, print what is wrong, and exit with 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--write", action="store_true", help="Write cluster/terraform/policies first."
    )
    arguments = parser.parse_args()
    if reason := missing_tools():
        print(f"SKIPPED: {reason}")
        return
    with tempfile.TemporaryDirectory() as folder:
        faults = check(Path(folder), write=arguments.write)
    for fault in faults:
        print(f"FAULT: {fault}", file=sys.stderr)
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
