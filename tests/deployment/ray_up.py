"""What `ray up` makes of cluster/ray-up.yaml, found out with Ray's own EC2 provider.

Ray fills the file with its defaults, completes it from the account and launches nodes. All of that
runs here against a local EC2, and the nodes are read back from it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import yaml
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import (
    NODE_KIND_HEAD,
    NODE_KIND_WORKER,
    TAG_RAY_LAUNCH_CONFIG,
    TAG_RAY_NODE_KIND,
    TAG_RAY_USER_NODE_TYPE,
)

FILE = Path(__file__).parents[2] / "cluster" / "ray-up.yaml"
AMI_PARAMETER = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64"
REGION = "eu-central-1"
AGENT_PORTS = (
    "metrics-export",
    "dashboard-agent-listen",
    "dashboard-agent-grpc",
    "runtime-env-agent",
)


@dataclass(frozen=True)
class Account:
    """An AWS account that has what the file names.

    Attributes:
        variables: Values of the variables in the file.
        security_groups: Identifiers of all security groups in the account.
    """

    variables: Mapping[str, str]
    security_groups: frozenset[str]


@contextmanager
def account(endpoint_url: str, folder: Path) -> Iterator[Account]:
    """Make the account in a local EC2, and let boto3's default clients reach it.

    Args:
        endpoint_url: Endpoint of the local EC2, IAM and SSM.
        folder: Home for the SSH key that Ray makes, and place of the files that Ray copies.
    """
    changed = {"AWS_ENDPOINT_URL": endpoint_url, "AWS_DEFAULT_REGION": REGION, "HOME": str(folder)}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield _made_account(folder)
    finally:
        for name, text in before.items():
            os.environ.pop(name)
            if text is not None:
                os.environ[name] = text


def _made_account(folder: Path) -> Account:
    ec2, iam, ssm = boto3.client("ec2"), boto3.client("iam"), boto3.client("ssm")
    for name in ("foreedge-head", "foreedge-worker"):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    subnets = ec2.describe_subnets()["Subnets"]
    group = ec2.create_security_group(
        GroupName="foreedge", Description="Ray's nodes", VpcId=subnets[0]["VpcId"]
    )["GroupId"]
    files = folder / "files"
    files.mkdir()
    (files / "auth_token").write_text("a" * 64)
    (files / "serve.yaml").write_text((FILE.parent / "serve.yaml").read_text())
    variables = {
        "CLUSTER_NAME": "foreedge",
        "AWS_REGION": REGION,
        "IMAGE": "000000000000.dkr.ecr.eu-central-1.amazonaws.com/foreedge:1",
        "AMI": ssm.get_parameter(Name=AMI_PARAMETER)["Parameter"]["Value"],
        "SUBNETS": ", ".join(subnet["SubnetId"] for subnet in subnets),
        "SECURITY_GROUPS": group,
        "HEAD_PROFILE": "foreedge-head",
        "WORKER_PROFILE": "foreedge-worker",
        "SETTINGS": "--env FOREEDGE_LEDGER__BUCKET=shelf --env FOREEDGE_AWS__REGION=eu-central-1 ",
        "FILES": str(files),
    }
    return Account(variables, frozenset(_security_groups()))


def filled(variables: Mapping[str, str]) -> dict[str, Any]:
    """Return the file with its variables replaced, as `envsubst` does.

    Raises:
        KeyError: The file has a variable without a value.
    """
    # `$RAY_HEAD_IP`, without braces, is for the shell of a node.
    text = re.sub(r"\$\{(\w+)\}", lambda found: variables[found[1]], FILE.read_text())
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def launched(config: dict[str, Any]) -> dict[str, Any]:
    """Launch one node of each type as `ray up` does.

    Args:
        config: Content of the file.

    Returns:
        The instance of each node type, as EC2 describes it.

    Raises:
        ValidationError: The file is no cluster file of this Ray.
    """
    complete = prepare_config(config)
    validate_config(complete)
    complete = _bootstrap_config(complete, no_config_cache=True)
    provider = AWSNodeProvider(complete["provider"], complete["cluster_name"])
    ec2 = boto3.client("ec2")
    nodes = {}
    for name, node_type in complete["available_node_types"].items():
        is_head = name == complete["head_node_type"]
        # Ray adds what it made for the head alone, such as its default role.
        node_config = {**node_type["node_config"], **(complete["head_node"] if is_head else {})}
        tags = {
            TAG_RAY_NODE_KIND: NODE_KIND_HEAD if is_head else NODE_KIND_WORKER,
            TAG_RAY_USER_NODE_TYPE: name,
            TAG_RAY_LAUNCH_CONFIG: "0",
        }
        [instance_id] = provider.create_node(node_config, tags, 1)
        reservations = ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
        nodes[name] = reservations[0]["Instances"][0]
    return nodes


def faults(config: dict[str, Any], nodes: Mapping[str, Any], account: Account) -> list[str]:
    """Return what is wrong with a file and the nodes that Ray launched from it.

    Args:
        config: Content of the file.
        nodes: Instances of its node types, from ``launched``.
        account: Account in which they were launched.
    """
    complete = prepare_config(config)
    found = [*_faults_of_commands(complete), *_faults_of_access(complete)]
    for name, node in nodes.items():
        found += [f"{name}: {fault}" for fault in _faults_of_node(node, config, name)]
    if created := _security_groups() - account.security_groups:
        found.append(f"Ray made the security groups {sorted(created)}, open to SSH from everywhere")
    return found


def _faults_of_commands(config: Mapping[str, Any]) -> Iterator[str]:
    for name in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        if config[name]:
            yield f"{name} change the image: {config[name][0].strip()[:60]}"
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        start = next(command for command in config[name] if "ray start" in command)
        missing = [port for port in AGENT_PORTS if f"--{port}-port=" not in start]
        if missing:
            yield f"{name}: the agents' ports {', '.join(missing)} are not fixed"
    if "--num-cpus=0" not in " ".join(config["head_start_ray_commands"]):
        yield "replicas may run on the head"


def _faults_of_access(config: Mapping[str, Any]) -> Iterator[str]:
    options = " ".join(config["docker"].get("run_options", []))
    paths = [word.split("=")[1] for word in options.split() if "RAY_AUTH_TOKEN_PATH=" in word]
    if "RAY_AUTH_MODE=token" not in options:
        yield "Ray runs the code of everybody who reaches a port"
    if not paths or str(Path(paths[0]).parent) not in config["file_mounts"]:
        yield "the nodes do not get the token"
    head = config["available_node_types"][config["head_node_type"]]["node_config"]
    if "IamInstanceProfile" not in head:
        yield "Ray gives the head a role that may do everything in EC2 and S3"
    if not config["provider"].get("use_internal_ips"):
        yield "nodes have public addresses"
    if config["provider"].get("cache_stopped_nodes", True):
        yield "stopped nodes are kept, with their old image"


def _faults_of_node(node: Mapping[str, Any], config: Mapping[str, Any], name: str) -> Iterator[str]:
    ec2 = boto3.client("ec2")
    described = ec2.describe_instance_types(InstanceTypes=[node["InstanceType"]])["InstanceTypes"]
    if described[0]["ProcessorInfo"]["SupportedArchitectures"] != ["arm64"]:
        yield f"{node['InstanceType']} is no Graviton"
    if ec2.describe_images(ImageIds=[node["ImageId"]])["Images"][0]["Architecture"] != "arm64":
        yield f"{node['ImageId']} is not for arm64"
    role = "foreedge-head" if name == config["head_node_type"] else "foreedge-worker"
    profile = node.get("IamInstanceProfile", {}).get("Arn", "none")
    if profile.rsplit("/")[-1] != role:
        yield f"its instance profile is {profile}, not {role}"
    is_spot = node.get("InstanceLifecycle") == "spot"
    if is_spot != (name == "spot"):
        yield f"its life cycle is {'spot' if is_spot else 'on demand'}"
    if node.get("MetadataOptions", {}).get("HttpTokens") != "required":
        yield "its metadata answer without a session token"


def _security_groups() -> set[str]:
    groups = boto3.client("ec2").describe_security_groups()["SecurityGroups"]
    return {group["GroupId"] for group in groups}
