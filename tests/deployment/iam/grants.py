"""The policies of the roles as lists of grants, any of which can be taken out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROLES = ("head", "worker", "producer", "operator")
NODE_POLICIES = ("image", "ray")
"""Policies that head and worker have on EC2 as well. Here each is a role of its own."""
POLICIES = Path(__file__).parents[3] / "cluster" / "terraform" / "policies"
"""Folder of the policies as JSON, for an account whose names are examples."""

_KNOWN = ("sqs:", "s3:")
"""Services of which moto knows the resources. Of the others it knows no conditions either."""
_NOT_ASKED_FOR = {"iam:PassRole"}
"""Actions that AWS checks within other calls, and moto does not."""
_BATCHED = {"sqs:SendMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"}
"""Actions that AWS also checks for calls of a batch. moto asks for actions that do not exist."""


class Grant(NamedTuple):
    """One action on one resource, which a statement allows."""

    sid: str
    """Name of the statement."""
    action: str
    resource: str

    def __str__(self) -> str:
        """Return the grant for people."""
        return f"{self.sid}: {self.action} on {self.resource.rpartition(':')[2]}"


def read_policies() -> dict[str, dict[str, Any]]:
    """Return the policy of each role."""
    names = (*ROLES, *NODE_POLICIES)
    return {name: json.loads((POLICIES / f"{name}.json").read_text()) for name in names}


def grants_of(policy: Mapping[str, Any]) -> list[Grant]:
    """Return everything that a policy allows and moto can deny.

    An action of a service whose resources moto does not know is one grant for the whole policy.

    Raises:
        ValueError: A statement denies, or has a condition that moto would have to evaluate.
    """
    found = []
    whole: dict[str, Grant] = {}
    for statement in policy["Statement"]:
        sid, actions = statement["Sid"], _listed(statement["Action"])
        known = any(action.startswith(_KNOWN) for action in actions)
        expected = {"Sid", "Effect", "Action", "Resource"} | (set() if known else {"Condition"})
        if statement["Effect"] != "Allow" or not set(statement) <= expected:
            raise ValueError(f"{sid} does more than to allow actions on resources")
        for action in actions:
            resources = _listed(statement["Resource"])
            if known:
                found += [Grant(sid, action, resource) for resource in resources]
            elif action not in _NOT_ASKED_FOR:
                whole.setdefault(action, Grant(sid, action, resources[0]))
    return found + list(whole.values())


def policy_for_moto(grants: Iterable[Grant]) -> dict[str, Any]:
    """Return a policy that makes moto allow what AWS allows for these grants.

    This is the only place in which moto gets other rights than AWS does:

    - moto checks a batch of SQS as an action of its own, such as ``sqs:SendMessageBatch``.
    - It does not know which queue ``sqs:GetQueueUrl`` names.
    - It checks ``DeleteObjects`` once for the bucket, and AWS once for each key.
    - It knows the resources of SQS and S3 only, and conditions of no service.
    """
    statements = []
    for grant in grants:
        actions, resources = [grant.action], [grant.resource]
        if grant.action in _BATCHED:
            actions.append(f"{grant.action}Batch")
        if grant.action == "sqs:GetQueueUrl" or not grant.action.startswith(_KNOWN):
            resources = ["*"]
        if grant.action == "s3:DeleteObject":
            resources.append(grant.resource.partition("/")[0])
        statements.append({"Effect": "Allow", "Action": actions, "Resource": resources})
    return {"Version": "2012-10-17", "Statement": statements}


def _listed(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value
