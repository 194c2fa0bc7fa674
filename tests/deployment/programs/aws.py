"""A stand-in for the AWS CLI: `aws SERVICE OPERATION --option value`, by boto3.

boto3 knows the operations and the types of their parameters, so that a name that AWS does not know
fails. `s3 cp`, `ecr get-login-password` and `eks update-kubeconfig` are the CLI's own.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import boto3
import jmespath


def client(service: str) -> Any:
    """Return a client. boto3 itself does not read the CLI's variable of the region."""
    return boto3.session.Session(region_name=os.environ["AWS_REGION"]).client(service)


def options(arguments: list[str]) -> dict[str, str]:
    """Return the options by their names in boto3."""
    names, values = arguments[::2], arguments[1::2]
    assert len(names) == len(values), arguments
    assert all(name.startswith("--") for name in names), arguments
    words = (name[2:].split("-") for name in names)
    keys = (word[0] + "".join(map(str.capitalize, word[1:])) for word in words)
    return dict(zip(keys, map(content, values), strict=True))


def content(value: str) -> str:
    """Return the value of an option, which may be in a file."""
    return Path(value.removeprefix("file://")).read_text() if value.startswith("file://") else value


def parameters(service: Any, operation: str, given: dict[str, str]) -> dict[str, Any]:
    """Return the parameters of an operation, in the types and the spelling of its model."""
    shape = service.meta.service_model.operation_model(
        service.meta.method_to_api_mapping[operation]
    ).input_shape
    found: dict[str, Any] = {}
    for name, member in shape.members.items():
        key = name[0].lower() + name[1:]
        if key not in given:
            continue
        value = given.pop(key)
        if member.type_name == "list":
            found[name] = [dict(pair.split("=") for pair in value.split(","))]
        else:
            found[name] = value
    assert not given, f"{operation} does not know {', '.join(given)}"
    return found


def call(name: str, operation: str, given: dict[str, str]) -> str:
    """Return what an operation prints."""
    service = client(name)
    query, output = given.pop("query", None), given.pop("output", "json")
    operation = operation.replace("-", "_")
    answer = getattr(service, operation)(**parameters(service, operation, given))
    answer.pop("ResponseMetadata")
    found = jmespath.search(query, answer) if query else answer
    return str(found) if output == "text" else json.dumps(found, default=str)


def copy(source: str, target: str) -> str:
    """Copy a file to S3."""
    bucket, _, key = target.removeprefix("s3://").partition("/")
    if key.endswith("/"):
        key += Path(source).name
    client("s3").upload_file(source, bucket, key)
    return f"upload: {source} to {target}"


def main(arguments: list[str]) -> str:
    """Return what the command prints."""
    service, operation, *rest = arguments
    if (service, operation) == ("s3", "cp"):
        source, target = rest
        return copy(source, target)
    if (service, operation) == ("ecr", "get-login-password"):
        [data] = client("ecr").get_authorization_token()["authorizationData"]
        return base64.b64decode(data["authorizationToken"]).decode().partition(":")[2]
    if (service, operation) == ("eks", "update-kubeconfig"):
        cluster = client("eks").describe_cluster(**options(rest))["cluster"]
        return f"Added new context {cluster['arn']}"
    return call(service, operation, options(rest))


if __name__ == "__main__":
    print(main(sys.argv[1:]))
