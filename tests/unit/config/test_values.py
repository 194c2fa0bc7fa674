"""Settings that cannot work are refused, with the name of the setting."""

from __future__ import annotations

import re
from typing import Any

import pytest

from serve_app.config import AppConfig
from serve_app.errors import InvalidConfig

QUEUE = {"queue.url": "http://localhost/q", "ledger.bucket": "l"}


def refusal(args: dict[Any, Any]) -> str:
    with pytest.raises(InvalidConfig) as caught:
        AppConfig.load(args)
    return caught.value.message


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"queue": {"ulr": "x"}}, "queue.ulr is not a setting; did you mean queue.url?"),
        ({"ledgers": {"bucket": "x"}}, "ledgers is not a setting; did you mean ledger?"),
        (
            {"segmenter.thread": 1},
            "segmenter.thread is not a setting; did you mean segmenter.threads?",
        ),
        ({"fetch_hosts": []}, "fetch_hosts is not a setting; did you mean http.fetch_hosts?"),
        ({"zzz": 1}, "zzz is not a setting; docs/configuration.md lists all settings"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(
    args: dict[str, Any], message: str
) -> None:
    assert message in refusal(args)


@pytest.mark.parametrize(
    "args",
    [
        {1: 2},
        {"models": ["folio"], "models.x": 1},
        {"queue": "text", "queue.url": "x"},
        {"queue.url": "http://localhost/q", "queue.url.x": 1},
    ],
)
def test_a_mapping_that_is_none_of_settings(args: dict[Any, Any]) -> None:
    assert "configuration: " in refusal(args)


def test_a_dotted_name_completes_a_section_and_leaves_the_arguments_alone() -> None:
    args: dict[str, Any] = {"queue": None, "http": {"replicas": 2}, "http.max_uploads": 3, **QUEUE}
    config = AppConfig.load(args)
    assert (config.http.replicas, config.http.max_uploads) == (2, 3)
    assert config.queue is not None
    assert args["http"] == {"replicas": 2}


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"aws.read_timeout_s": 20}, "aws.read_timeout_s (20) must exceed queue.long_poll_s (20)"),
        ({"aws.read_timeout_s": 5, "queue.long_poll_s": 10}, "aws.read_timeout_s"),
        (
            {"queue.retry_base_s": 301},
            "retry_max_s (300) must not be below",
        ),
        ({"queue.retry_max_s": 1}, "retry_max_s (1) must not be below queue.retry_base_s (2)"),
        ({"queue.retry_max_s": 43_201}, "queue.retry_max_s"),
        ({"queue.retry_base_s": 0}, "queue.retry_base_s"),
        ({"queue.retry_base_s": float("nan")}, "queue.retry_base_s"),
        ({"queue.recipe": "catalogue"}, "queue.recipe: 'catalogue' is not a preset; choose from"),
        ({"queue.recipe": ""}, "queue.recipe"),
        (
            {"queue.output_bucket": "results", "storage.allowed_buckets": "images,ledger"},
            "queue.output_bucket results is not one of storage.allowed_buckets; add it",
        ),
    ],
)
def test_a_queue_that_cannot_work_is_refused(settings: dict[str, Any], names: str) -> None:
    assert names in refusal({**QUEUE, **settings})


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("sqs.eu-west-1.amazonaws.com", "eu-west-1"),
        ("sqs-fips.eu-west-1.amazonaws.com", "eu-west-1"),
        ("sqs.eu-west-1.api.aws", "eu-west-1"),
        ("eu-west-1.queue.amazonaws.com", "eu-west-1"),
        ("vpce-0f1a-2b3c.sqs.eu-west-1.vpce.amazonaws.com", "eu-west-1"),
        ("SQS.eu-west-1.amazonaws.com:443", "eu-west-1"),
        ("sqs.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("sqs.cn-north-1.amazonaws.com.cn", "cn-north-1"),
    ],
)
def test_a_queue_of_another_region_is_refused(
    host: str, region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Botocore would read it, and the replicas on other machines have another environment.
    monkeypatch.setenv("AWS_REGION", region)
    args = {**QUEUE, "queue.url": f"https://{host}/123456789012/images"}
    refused = refusal(args)
    assert f"{host}/123456789012/images is in {region}, and aws.region is us-east-1" in refused
    assert f"set aws.region to {region}" in refused
    assert AppConfig.load({**args, "aws.region": region}).aws.region == region
    AppConfig.load({**args, "aws.endpoint_url": "http://localhost:4566"})


@pytest.mark.parametrize(
    "host",
    [
        "localhost:5000",
        "sqs.local",
        "queue.amazonaws.com",
        "sqs.eu-west-1.localhost.localstack.cloud:4566",
        "sqs.us-east-1.amazonaws.com",
    ],
)
def test_a_queue_that_names_no_other_region_is_accepted(host: str) -> None:
    AppConfig.load({**QUEUE, "queue.url": f"https://{host}/123456789012/images"})


def test_results_may_be_written_to_an_allowed_bucket() -> None:
    for allowed in ("", "images,results"):
        args = {**QUEUE, "queue.output_bucket": "results"}
        config = AppConfig.load(
            {**args, "storage.allowed_buckets": allowed.split(",") if allowed else []}
        )
        assert config.queue is not None
        assert config.queue.output_bucket == "results"


def test_a_long_poll_does_not_matter_without_a_queue() -> None:
    assert AppConfig.load({"aws.read_timeout_s": 1}).aws.read_timeout_s == 1
    config = AppConfig.load({**QUEUE, "aws.read_timeout_s": 1, "queue.long_poll_s": 0})
    assert config.aws.read_timeout_s == 1


@pytest.mark.parametrize("models", ["folio,folio", ["u2net", "folio", "u2net"]])
def test_a_model_is_listed_once(models: Any) -> None:
    assert re.search(r"models: (folio|u2net) is listed twice", refusal({"models": models}))


def test_no_time_is_infinite() -> None:
    for name in ("queue.retry_max_s", "http.request_timeout_s", "aws.read_timeout_s"):
        assert name in refusal({**QUEUE, name: float("inf")})


@pytest.mark.parametrize(
    ("segmenter", "names"),
    [
        ({"bfloat16": True}, "segmenter: bfloat16 is no longer a setting"),
        ({"bfloat16": "false"}, "set engine to openvino and precision to bfloat16"),
        ({"precision": "bfloat16"}, "precision bfloat16 needs engine openvino"),
        ({"precision": "int4"}, "segmenter.precision"),
        ({"engine": "tensorrt"}, "segmenter.engine"),
        ({"engine": "auto", "precision": "float16"}, "engine auto chooses the precision"),
        ({"engine": "openvino", "precision": "int8"}, "precision int8 needs engine onnxruntime"),
        ({"precision": "int8", "execution": "stack"}, "precision int8 needs execution fan_out"),
        ({"engine": "openvino", "execution": "stack"}, "engine openvino needs execution fan_out"),
        ({"engine": "auto", "execution": "stack"}, "engine auto needs execution fan_out"),
        ({"accuracy": "exactly"}, "segmenter.accuracy"),
    ],
)
def test_an_engine_that_cannot_work_is_refused(segmenter: dict[str, Any], names: str) -> None:
    assert names in refusal({"segmenter": segmenter})


def test_the_former_bfloat16_is_refused_in_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FOREEDGE_SEGMENTER__BFLOAT16", "true")
    assert "bfloat16 is no longer a setting" in refusal({})


@pytest.mark.parametrize(
    ("segmenter", "accuracy"),
    [
        ({}, "exact"),
        ({"engine": "auto"}, "exact"),
        ({"engine": "openvino"}, "exact"),
        ({"engine": "openvino", "precision": "bfloat16"}, "fast"),
        ({"precision": "int8"}, "fast"),
        ({"engine": "openvino", "precision": "bfloat16", "accuracy": "exact"}, "exact"),
        ({"engine": "auto", "accuracy": "close"}, "close"),
    ],
)
def test_the_accuracy_is_exact_unless_a_pair_is_named(
    segmenter: dict[str, Any], accuracy: str
) -> None:
    assert AppConfig.load({"segmenter": segmenter}).segmenter.required_accuracy == accuracy
