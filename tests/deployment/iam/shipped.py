"""The policies and roles that cluster/terraform makes, and what parliament says about them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3

from tests.deployment.iam.account import QUEUE, REGION
from tests.deployment.iam.grants import NODE_POLICIES, POLICIES, ROLES
from tests.deployment.terraform import STATE_BUCKET, TOOLS, Terraform

_EVERYBODY = {"nodes_on_ec2": "true", "pod_identity": "true"}
"""Variables with which every kind of process may have the roles of head and worker."""
_ISSUER = "oidc.eks.eu-central-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
_CLUSTER = f"arn:aws:eks:{REGION}:123456789012:cluster/production"
_ON_EC2 = {"head": ("image", "ray"), "worker": ("image",)}
"""Policies for nodes that the roles have as well, if the nodes are on EC2."""
Document = Mapping[str, Any]


def made_by_terraform(
    endpoint_url: str, folder: Path, environment: str = "production"
) -> dict[str, Any]:
    """Make an environment in a local AWS, and return the policy of each role.

    Args:
        endpoint_url: Endpoint of the local AWS, in which everything is made.
        folder: New folder for Terraform.
        environment: Name of the environment.
    """
    _client("s3", endpoint_url).create_bucket(
        Bucket=STATE_BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    Terraform(folder, endpoint_url, environment, _EVERYBODY).init().apply()
    iam = _client("iam", endpoint_url)
    found = {}
    for policy in iam.list_policies(Scope="Local")["Policies"]:
        version = iam.get_policy_version(
            PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"]
        )
        role = policy["PolicyName"].rpartition("-")[2]
        if role in (*ROLES, *NODE_POLICIES):
            found[role] = version["PolicyVersion"]["Document"]
    return found


def with_other_policies(endpoint_url: str) -> list[str]:
    """Return the roles to which not exactly their own policies are attached."""
    iam = _client("iam", endpoint_url)
    wrong = []
    for role in ROLES:
        name = f"{QUEUE}-{role}"
        attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
        inline = iam.list_role_policies(RoleName=name)["PolicyNames"]
        expected = {name, *(f"{QUEUE}-node-{policy}" for policy in _ON_EC2.get(role, ()))}
        if {policy["PolicyName"] for policy in attached} != expected or inline:
            wrong.append(name)
    return wrong


def wrongly_trusted(endpoint_url: str) -> list[str]:
    """Return the roles that others may have than those that the environment names."""
    iam = _client("iam", endpoint_url)
    wrong = []
    for role in ROLES:
        document = iam.get_role(RoleName=f"{QUEUE}-{role}")["Role"]["AssumeRolePolicyDocument"]
        if {statement["Sid"]: _trusted(statement) for statement in document["Statement"]} != (
            _expected_trust(role)
        ):
            wrong.append(f"{role} trusts others: {json.dumps(document['Statement'])}")
    return wrong


def _trusted(statement: Document) -> tuple[str, Any]:
    """Return the principal of a trust, and its conditions as texts."""
    [principal] = statement["Principal"].values()
    conditions = statement.get("Condition", {}).get("StringEquals", {})
    return principal, {
        name: value if isinstance(value, str) else value[0] for name, value in conditions.items()
    }


def _expected_trust(role: str) -> dict[str, tuple[str, Any]]:
    iam = "arn:aws:iam::123456789012"
    people = {"operator": f"{iam}:role/engineers", "producer": f"{iam}:role/book-shop"}
    if role in people:
        return {"NamedPrincipals": (people[role], {})}
    account = f"foreedge-{role}"
    irsa = {
        f"{_ISSUER}:sub": f"system:serviceaccount:foreedge:{account}",
        f"{_ISSUER}:aud": "sts.amazonaws.com",
    }
    pods = {
        "aws:RequestTag/eks-cluster-arn": _CLUSTER,
        "aws:RequestTag/kubernetes-namespace": "foreedge",
        "aws:RequestTag/kubernetes-service-account": account,
    }
    return {
        "InstancesOfEc2": ("ec2.amazonaws.com", {}),
        "ServiceAccountOfEks": (f"{iam}:oidc-provider/{_ISSUER}", irsa),
        "PodsOfEks": ("pods.eks.amazonaws.com", pods),
    }


def changed_files(policies: Mapping[str, Document]) -> list[Path]:
    """Return the files of the policies as JSON that differ from these policies."""
    return [
        _file(role)
        for role, policy in policies.items()
        if not _file(role).exists() or _file(role).read_text() != _text(policy)
    ]


def write_files(policies: Mapping[str, Document]) -> None:
    """Write the policies as JSON."""
    POLICIES.mkdir(exist_ok=True)
    for role, policy in policies.items():
        _file(role).write_text(_text(policy))


def parliament_findings(policy: Document) -> str:
    """Return what parliament finds in a policy, which is empty if that is nothing.

    It knows every action of AWS with its kinds of resources. It runs in .venv-deployment.
    """
    command = [str(TOOLS / "bin" / "parliament"), "--string", json.dumps(policy)]
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.strip()


def _file(role: str) -> Path:
    return POLICIES / f"{role}.json"


def _text(policy: Document) -> str:
    return json.dumps(policy, indent=2) + "\n"


def _client(service: Any, endpoint_url: str) -> Any:
    return boto3.client(
        service,
        region_name=REGION,
        endpoint_url=endpoint_url,
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
