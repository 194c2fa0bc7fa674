"""cluster/terraform makes what the application needs (`make check-terraform`)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ingest.local.aws import LocalAws, use_dummy_credentials
from ingest.messages.parse import parse_message
from ingest.sqs.queue_client import QueueClient
from ingest.sqs.redrive_policy import read_redrive_policy
from serve_app.aws import aws_client
from serve_app.config import AppConfig, AwsConfig, QueueConfig
from serve_app.contracts.job import Job, Output
from tests.deployment.provider_names import parsed_files
from tests.deployment.terraform import (
    MODULE,
    STATE_BUCKET,
    Terraform,
    TerraformFailed,
    is_real,
    missing_tools,
)

REGION = "eu-central-1"
UPLOADS = "shelf-staging"
"""Bucket whose events are jobs in staging. In production no bucket sends events."""
DAY_S = 24 * 3600


@dataclass(frozen=True)
class Account:
    """A local AWS with both environments."""

    staging: Terraform
    production: Terraform
    outputs: dict[str, Any]
    """Outputs of staging."""
    endpoint_url: str

    def client(self, service: str) -> Any:
        """Return a client of the local AWS."""
        return aws_client(service, AwsConfig(endpoint_url=self.endpoint_url, region=REGION))


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    if reason := missing_tools():
        pytest.skip(reason)
    use_dummy_credentials()
    folder = tmp_path_factory.mktemp("terraform")
    with LocalAws() as aws:
        aws.create_bucket(STATE_BUCKET)
        s3: Any = aws_client("s3", AwsConfig(endpoint_url=aws.endpoint_url, region=REGION))
        # Its events go to a queue of the same region only.
        s3.create_bucket(Bucket=UPLOADS, CreateBucketConfiguration={"LocationConstraint": REGION})
        events = {"event_buckets": json.dumps([UPLOADS])}
        staging = Terraform(folder / "staging", aws.endpoint_url, variables=events).init()
        staging.apply()
        outputs = staging.outputs()
        # An account has GitHub's provider once.
        shared = {"github_provider_arn": outputs["github_provider_arn"]}
        production = Terraform(folder / "production", aws.endpoint_url, "production", shared)
        production.init().apply()
        yield Account(staging, production, outputs, aws.endpoint_url)


def test_the_module_is_valid_and_formatted(account: Account) -> None:
    answer = json.loads(account.staging.run("validate", "-json"))
    assert (answer["valid"], answer["diagnostics"]) == (True, [])
    account.staging.run("fmt", "-check", "-recursive", str(MODULE))


def test_a_file_that_is_not_formatted_is_found(account: Account) -> None:
    (account.staging.folder / "ugly.tfvars").write_text("a=1\n")
    with pytest.raises(TerraformFailed, match=r"(?s)terraform fmt: .*ugly"):
        account.staging.run("fmt", "-check", "-recursive")


def test_a_second_apply_changes_nothing(account: Account) -> None:
    assert account.staging.planned() == []
    assert account.production.planned() == []


def test_a_change_by_hand_is_found(account: Account) -> None:
    # Without events, because moto forgets the policy of a queue whose attributes are set.
    outputs = account.production.outputs()
    sqs, url = account.client("sqs"), outputs["environment"]["FOREEDGE_QUEUE__URL"]
    policy = {"deadLetterTargetArn": outputs["dead_letter_queue_arn"], "maxReceiveCount": 4}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)})
    assert account.production.planned() == ["aws_sqs_queue.jobs"]
    account.production.apply()
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])
    assert json.loads(found["Attributes"]["RedrivePolicy"])["maxReceiveCount"] == 5


@pytest.mark.parametrize(
    ("actions", "before", "after", "expected"),
    [
        (["no-op"], {"a": "1"}, {"a": "1"}, False),
        (["read"], None, {"a": "1"}, False),
        (["update"], {"a": '{"b": 1}'}, {"a": '{"b":1}'}, False),
        (["update"], {"a": '{"b": 1}'}, {"a": '{"b":2}'}, True),
        (["update"], {"a": {"c": '{"b": 1}'}}, {"a": {"c": '{"b":2}'}}, True),
        (["update"], {"a": " 1"}, {"a": "1"}, True),
        (["create"], None, {"a": "1"}, True),
        (["delete"], {"a": "1"}, None, True),
        (["delete", "create"], {"a": "1"}, {"a": "2"}, True),
    ],
)
def test_only_white_space_of_json_is_no_change(
    actions: list[str], before: Any, after: Any, expected: bool
) -> None:
    assert is_real({"actions": actions, "before": before, "after": after}) == expected


def test_the_settings_of_the_queue_are_those_of_the_application(account: Account) -> None:
    [settings] = [
        local["queue"][0]
        for local in parsed_files(MODULE)["locals.tf"]["locals"]
        if "queue" in local
    ]
    queue = QueueConfig(url="https://sqs.example/queue")
    assert settings == {name: getattr(queue, name) for name in settings}


def test_the_queue_has_these_settings(account: Account) -> None:
    sqs, url = account.client("sqs"), account.outputs["environment"]["FOREEDGE_QUEUE__URL"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    settings = QueueConfig(url=url)
    assert found["VisibilityTimeout"] == str(settings.visibility_timeout_s)
    assert found["ReceiveMessageWaitTimeSeconds"] == str(settings.long_poll_s)
    assert json.loads(found["RedrivePolicy"]) == {
        "deadLetterTargetArn": account.outputs["dead_letter_queue_arn"],
        "maxReceiveCount": settings.default_max_receives,
    }
    dead = read_redrive_policy(QueueClient(sqs, url))
    assert dead is not None
    # SQS moves a message with its age, so that the dead letters have the difference left.
    kept = sqs.get_queue_attributes(QueueUrl=dead.dead_letter_url, AttributeNames=["All"])[
        "Attributes"
    ]
    difference_s = int(kept["MessageRetentionPeriod"]) - int(found["MessageRetentionPeriod"])
    assert difference_s >= 7 * DAY_S


def test_the_application_starts_with_the_output(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in account.outputs["environment"].items():
        monkeypatch.setenv(name, text)
    config = AppConfig.load()
    assert config.aws.region == REGION
    assert config.queue is not None
    assert config.queue.url == account.outputs["environment"]["FOREEDGE_QUEUE__URL"]
    assert config.ledger is not None
    assert (config.ledger.bucket, config.ledger.prefix) == ("shelf-staging", "_foreedge/")
    assert config.storage.allowed_buckets == ("shelf-staging",)
    secret = account.client("secretsmanager").describe_secret(SecretId=config.http.api_keys_secret)
    assert secret["Name"] == "foreedge-staging/api-keys"


def test_an_uploaded_image_becomes_a_job(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = account.outputs["environment"]
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    s3, sqs, url = account.client("s3"), account.client("sqs"), environment["FOREEDGE_QUEUE__URL"]
    queue = {"QueueArn": account.outputs["queue_arn"], "Events": ["s3:ObjectCreated:*"]}
    s3.put_bucket_notification_configuration(
        Bucket=UPLOADS, NotificationConfiguration={"QueueConfigurations": [queue]}
    )
    s3.put_object(Bucket=UPLOADS, Key="photographs/one.jpg", Body=b"image")
    defaults = AppConfig.load().queue
    assert defaults is not None
    messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    jobs = [job for each in messages for job in parse_message(each["Body"], defaults)]
    places = [job.output for job in jobs if isinstance(job, Job)]
    assert places == [Output(bucket=UPLOADS, prefix="cutouts/")]


def test_only_named_buckets_of_the_account_may_send_events(account: Account) -> None:
    sqs = account.client("sqs")
    url = account.outputs["environment"]["FOREEDGE_QUEUE__URL"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["Policy"])["Attributes"]
    [statement] = json.loads(found["Policy"])["Statement"]
    assert statement == {
        "Sid": "EventsOfS3",
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": account.outputs["queue_arn"],
        "Condition": {
            "ArnEquals": {"aws:SourceArn": [f"arn:aws:s3:::{UPLOADS}"]},
            "StringEquals": {"aws:SourceAccount": ["123456789012"]},
        },
    }


def test_without_events_the_queue_has_no_policy(account: Account) -> None:
    production = account.production.outputs()["environment"]
    assert "FOREEDGE_QUEUE__OUTPUT_BUCKET" not in production
    found = account.client("sqs").get_queue_attributes(
        QueueUrl=production["FOREEDGE_QUEUE__URL"], AttributeNames=["All"]
    )
    assert "Policy" not in found["Attributes"]


def test_events_of_a_bucket_that_cannot_be_read_are_refused(
    account: Account, tmp_path: Path
) -> None:
    wrong = {"event_buckets": '["another"]'}
    with pytest.raises(TerraformFailed, match="bucket of one of source_places"):
        Terraform(tmp_path / "module", account.endpoint_url, variables=wrong).init().planned()


def test_the_state_has_no_value_of_a_secret(account: Account) -> None:
    secrets = account.client("secretsmanager")
    for arn in (
        account.outputs["environment"]["FOREEDGE_HTTP__API_KEYS_SECRET"],
        account.outputs["ray_token_secret"],
    ):
        secrets.put_secret_value(SecretId=arn, SecretString="a-value-to-hide")
    account.staging.apply()
    state = account.staging.run("state", "pull")
    assert "foreedge-staging/api-keys" in state
    assert "a-value-to-hide" not in state


def test_a_tag_of_an_image_is_never_moved(account: Account) -> None:
    ecr = account.client("ecr")
    [found] = ecr.describe_repositories(repositoryNames=["foreedge-staging"])["repositories"]
    assert found["repositoryUri"] == account.outputs["image_repository"]
    assert found["imageTagMutability"] == "IMMUTABLE"
    assert found["imageScanningConfiguration"] == {"scanOnPush": True}
    policy = ecr.get_lifecycle_policy(repositoryName="foreedge-staging")["lifecyclePolicyText"]
    kept = {
        rule["selection"]["tagStatus"]: rule["selection"] for rule in json.loads(policy)["rules"]
    }
    assert kept["tagged"]["countNumber"] >= 10


def test_only_jobs_of_one_environment_may_deploy(account: Account) -> None:
    iam = account.client("iam")
    role = iam.get_role(RoleName="foreedge-staging-deployment")["Role"]
    assert role["Arn"] == account.outputs["deployment_role_arn"]
    [statement] = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert statement["Principal"] == {"Federated": account.outputs["github_provider_arn"]}
    assert statement["Condition"] == {
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": ["sts.amazonaws.com"],
            "token.actions.githubusercontent.com:sub": [
                "repo:example/foreedge:environment:staging"
            ],
        }
    }


def test_alarms_reach_a_person(account: Account) -> None:
    topic = account.outputs["alarm_topic_arn"]
    found = account.client("cloudwatch").describe_alarms(AlarmNamePrefix="foreedge-staging-")
    alarms = {alarm["AlarmName"]: alarm for alarm in found["MetricAlarms"]}
    assert sorted(alarms) == [
        "foreedge-staging-dead-letters",
        "foreedge-staging-oldest-message",
        "foreedge-staging-stalled",
    ]
    assert {tuple(alarm["AlarmActions"]) for alarm in alarms.values()} == {(topic,)}
    subscriptions = account.client("sns").list_subscriptions_by_topic(TopicArn=topic)
    assert [entry["Endpoint"] for entry in subscriptions["Subscriptions"]] == [
        "operations@example.com"
    ]
    dead = alarms["foreedge-staging-dead-letters"]
    assert dead["Dimensions"] == [{"Name": "QueueName", "Value": "foreedge-staging-dead"}]
    assert (dead["ComparisonOperator"], dead["Threshold"]) == ("GreaterThanThreshold", 0)
    oldest = alarms["foreedge-staging-oldest-message"]
    assert oldest["Dimensions"] == [{"Name": "QueueName", "Value": "foreedge-staging"}]
    stalled = alarms["foreedge-staging-stalled"]
    metrics = [query["MetricStat"] for query in stalled["Metrics"] if "MetricStat" in query]
    assert {metric["Metric"]["Dimensions"][0]["Value"] for metric in metrics} == {
        "foreedge-staging"
    }
    period_s = {metric["Period"] for metric in metrics}.pop()
    deadline_s = QueueConfig(url="https://sqs.example/queue").job_deadline_s
    assert (stalled["EvaluationPeriods"] - 1) * period_s >= deadline_s


def test_destroy_leaves_nothing_and_touches_no_other_environment(
    account: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    resources = account.staging.run("state", "list").splitlines()
    account.production.destroy()
    # moto forgets the policy of a queue if another attribute is set, as the last apply has done.
    assert set(account.staging.planned()) <= {"aws_sqs_queue_policy.events[0]"}
    account.staging.destroy()
    assert left(account) == []
    with capsys.disabled():
        made = sum(not name.startswith("data.") for name in resources)
        print(f"\n{made} resources in staging: applied, planned again, destroyed; 0 are left")


def left(account: Account) -> list[str]:
    """Return what the local AWS still has of either environment."""
    iam, sqs, sns = (account.client(name) for name in ("iam", "sqs", "sns"))
    return [
        *sqs.list_queues().get("QueueUrls", []),
        *(topic["TopicArn"] for topic in sns.list_topics()["Topics"]),
        *(role["Arn"] for role in iam.list_roles()["Roles"]),
        *(policy["Arn"] for policy in iam.list_policies(Scope="Local")["Policies"]),
        *(
            found["Arn"]
            for found in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
        ),
        *(found["Arn"] for found in iam.list_instance_profiles()["InstanceProfiles"]),
        *(
            found["repositoryArn"]
            for found in account.client("ecr").describe_repositories()["repositories"]
        ),
        *(found["ARN"] for found in account.client("secretsmanager").list_secrets()["SecretList"]),
        *(
            found["AlarmArn"]
            for found in account.client("cloudwatch").describe_alarms()["MetricAlarms"]
        ),
    ]
