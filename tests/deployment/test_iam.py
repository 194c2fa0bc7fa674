"""A worker does all of its work with its own role, and notices each right that it lacks.

``make check-iam`` does the same for every role and every right, with the roles of Terraform.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.deployment.iam.account import Account
from tests.deployment.iam.denials import succeeded
from tests.deployment.iam.grants import Grant, grants_of, policy_for_moto, read_policies
from tests.deployment.iam.server import Server
from tests.deployment.iam.steps import Steps
from tests.deployment.iam.trials import NOTICES, Trials, expected_notice

POLICIES = {role: grants_of(policy) for role, policy in read_policies().items()}
PAGE = Path(__file__).parents[2] / "docs" / "operations" / "permissions.md"


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with Server() as server:
        made = Account(server)
        for name, grants in POLICIES.items():
            made.allow(name, grants)
        yield made


@pytest.fixture(scope="module")
def trials(account: Account, tmp_path_factory: pytest.TempPathFactory) -> Trials:
    return Trials(Steps(account, tmp_path_factory.mktemp("iam")), POLICIES)


def first_of_each_statement() -> list[Grant]:
    """Return a grant of each statement of a worker: the last one, of a resource that differs."""
    by_statement = {grant.sid: grant for grant in POLICIES["worker"]}
    return list(by_statement.values())


def test_a_worker_does_its_work(trials: Trials) -> None:
    trials.act("worker")


@pytest.mark.parametrize("grant", first_of_each_statement(), ids=lambda grant: grant.sid)
def test_a_worker_notices_that_it_lacks_a_right(trials: Trials, grant: Grant) -> None:
    expected = expected_notice("worker", grant)
    failure = trials.without("worker", grant)
    assert failure.step == f"worker: {expected.step}"
    assert expected.code in failure.text


def test_nothing_else_is_allowed(account: Account) -> None:
    tried, allowed = succeeded(account)
    assert tried > 100
    assert allowed == []


@pytest.mark.parametrize("role", POLICIES)
def test_every_grant_is_tried(role: str) -> None:
    for grant in POLICIES[role]:
        expected_notice(role, grant)
    assert len(NOTICES[role]) == len(POLICIES[role])


def test_a_policy_that_moto_cannot_check_is_refused() -> None:
    statement: dict[str, Any] = {"Sid": "S", "Effect": "Allow", "Action": "s3:b", "Resource": ""}
    changes: list[Mapping[str, Any]] = [{"Effect": "Deny"}, {"Condition": {}}, {"NotAction": "c"}]
    for change in changes:
        with pytest.raises(ValueError, match="S does more than to allow"):
            grants_of({"Statement": [statement | dict(change)]})


def test_only_moto_is_asked_for_actions_that_do_not_exist() -> None:
    shipped = {grant.action for grants in POLICIES.values() for grant in grants}
    assert not [name for name in shipped if name.endswith(("Batch", "*"))]
    for_moto = policy_for_moto([Grant("S", "sqs:SendMessage", "arn")])["Statement"]
    assert for_moto[0]["Action"] == ["sqs:SendMessage", "sqs:SendMessageBatch"]


def test_the_page_has_every_statement_with_its_actions() -> None:
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \| (.*?) \|", PAGE.read_text(), re.MULTILINE)
    described = {
        (role, sid): set(re.findall(r"`(\w+:\w+)`", actions)) for role, sid, actions in rows
    }
    shipped = {}
    for name, policy in read_policies().items():
        for statement in policy["Statement"]:
            actions = statement["Action"]
            shipped[name, statement["Sid"]] = {actions} if isinstance(actions, str) else {*actions}
    assert described == shipped
