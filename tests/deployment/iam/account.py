"""An AWS account with a queue, buckets and the four roles."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import boto3
from botocore.config import Config

from tests.deployment.iam.grants import NODE_POLICIES, ROLES, Grant, policy_for_moto
from tests.deployment.iam.server import Server

REGION = "eu-central-1"
IMAGES, CUTOUTS, LEDGER = "shelf-images", "shelf-cutouts", "shelf-ledger"
"""Buckets of the images, of the results and of the ledger."""
OTHER = "somebody-elses"
"""Name of a bucket and of a queue to which no role has a right."""
QUEUE = "foreedge-production"
SECRET = f"{QUEUE}/api-keys"
"""Secret with the API keys of the endpoint."""
API_KEY = "sesame"
"""The only API key of the endpoint."""
_MAX_RECEIVES = 5
_POLICY = "effective"
_TRUST = '{"Version": "2012-10-17", "Statement": []}'


def _policy(effect: str) -> dict[str, Any]:
    statement = {"Effect": effect, "Action": "*", "Resource": "*"}
    return {"Version": "2012-10-17", "Statement": [statement]}


class Account:
    """An account in which policies count. Its administrator may do everything."""

    def __init__(self, server: Server) -> None:
        """Make the queues, the buckets, the roles that are missing, and an administrator."""
        self.endpoint_url = server.endpoint_url
        """Endpoint of every service."""
        self._credentials = {
            "": {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"},
        }
        s3, iam = self.client("s3"), self.client("iam")
        for bucket in (IMAGES, CUTOUTS, LEDGER, OTHER):
            s3.create_bucket(
                Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION}
            )
        s3.put_bucket_versioning(Bucket=IMAGES, VersioningConfiguration={"Status": "Enabled"})
        self.make_queues()
        sqs = self.client("sqs")
        self.other_url: str = sqs.create_queue(QueueName=OTHER)["QueueUrl"]
        """URL of a queue to which no role has a right."""
        self._store_api_keys()
        self._make_place_for_nodes()
        self._arns = {role["RoleName"]: role["Arn"] for role in iam.list_roles()["Roles"]}
        for role in (*ROLES, *NODE_POLICIES):
            self._assume(role)
        self._become_administrator()
        server.enforce()

    def make_queues(self) -> None:
        """Make the queue of jobs and its dead-letter queue, without the messages of earlier ones.

        SQS purges a queue once a minute only.
        """
        sqs = self.client("sqs")
        for url in sqs.list_queues(QueueNamePrefix=QUEUE).get("QueueUrls", []):
            sqs.delete_queue(QueueUrl=url)
        self.dead_url: str = sqs.create_queue(QueueName=f"{QUEUE}-dead")["QueueUrl"]
        names = ["QueueArn"]
        found = sqs.get_queue_attributes(QueueUrl=self.dead_url, AttributeNames=names)
        policy = {
            "deadLetterTargetArn": found["Attributes"]["QueueArn"],
            "maxReceiveCount": _MAX_RECEIVES,
        }
        attributes = {"RedrivePolicy": json.dumps(policy)}
        self.queue_url: str = sqs.create_queue(QueueName=QUEUE, Attributes=attributes)["QueueUrl"]

    def allow(self, role: str, grants: Sequence[Grant]) -> None:
        """Give a role these rights and no others."""
        iam, name = self.client("iam"), f"{QUEUE}-{role}"
        for attached in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            iam.detach_role_policy(RoleName=name, PolicyArn=attached["PolicyArn"])
        # A policy without a statement is none.
        document = policy_for_moto(grants) if grants else _policy("Deny")
        iam.put_role_policy(RoleName=name, PolicyName=_POLICY, PolicyDocument=json.dumps(document))

    def credentials(self, role: str | None) -> Mapping[str, str]:
        """Return the variables with which boto3 acts as a role, or as the administrator."""
        return self._credentials[role or ""]

    def client(self, service: Any, role: str | None = None) -> Any:
        """Return a client of a role, or of the administrator."""
        keys = self.credentials(role)
        return boto3.client(
            service,
            region_name=REGION,
            endpoint_url=self.endpoint_url,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=keys.get("AWS_SESSION_TOKEN"),
        )

    def _assume(self, role: str) -> None:
        """Get the credentials of a role, as EC2 or EKS would give them to its processes."""
        name = f"{QUEUE}-{role}"
        if name not in self._arns:
            made = self.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=_TRUST)
            self._arns[name] = made["Role"]["Arn"]
        session = self.client("sts").assume_role(RoleArn=self._arns[name], RoleSessionName="check")
        found = session["Credentials"]
        self._credentials[role] = {
            "AWS_ACCESS_KEY_ID": found["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": found["SecretAccessKey"],
            "AWS_SESSION_TOKEN": found["SessionToken"],
        }

    def _store_api_keys(self) -> None:
        secrets = self.client("secretsmanager")
        if not secrets.list_secrets(Filters=[{"Key": "name", "Values": [SECRET]}])["SecretList"]:
            secrets.create_secret(Name=SECRET)
        secrets.put_secret_value(SecretId=SECRET, SecretString=API_KEY)

    def _make_place_for_nodes(self) -> None:
        ec2, ecr = self.client("ec2"), self.client("ecr")
        arm = [{"Name": "architecture", "Values": ["arm64"]}]
        self.image: str = ec2.describe_images(Filters=arm)["Images"][0]["ImageId"]
        subnet = ec2.describe_subnets()["Subnets"][0]
        self.subnet: str = subnet["SubnetId"]
        self.security_group: str = ec2.create_security_group(
            GroupName="nodes", Description="Nodes of Ray", VpcId=subnet["VpcId"]
        )["GroupId"]
        known = {found["repositoryName"] for found in ecr.describe_repositories()["repositories"]}
        if QUEUE not in known:
            ecr.create_repository(repositoryName=QUEUE)

    def _become_administrator(self) -> None:
        iam = self.client("iam")
        iam.create_user(UserName="admin")
        iam.put_user_policy(
            UserName="admin", PolicyName=_POLICY, PolicyDocument=json.dumps(_policy("Allow"))
        )
        key = iam.create_access_key(UserName="admin")["AccessKey"]
        self._credentials[""] = {
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }
