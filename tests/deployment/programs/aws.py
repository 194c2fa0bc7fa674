"""A stand-in for the AWS CLI: `aws SERVICE OPERATION --option value`, by boto3.

boto3 knows the operations and the types of their parameters, so that a name that AWS does not know
fails. `s3 cp`, `ecr get-login-password` and `eks update-kubeconfig` are commands of the CLI
alone, as is the name `s3api` for the operations of S3.
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
from botocore import xform_name

_NUMBERS = {"integer": int, "long": int, "float": float, "double": float}


def client(service: str) -> Any:
    """Return a client. boto3 itself does not read the CLI's variable of the region."""
    return boto3.session.Session(region_name=os.environ["AWS_REGION"]).client(service)


def options(arguments: list[str]) -> dict[str, list[str]]:
    """Return the values of each option, by its name on the command line."""
    found: dict[str, list[str]] = {}
    name = None
    for argument in arguments:
        if argument.startswith("--"):
            name = argument.removeprefix("--")
            assert name not in found, arguments
            found[name] = []
        else:
            assert name is not None, arguments
            found[name].append(content(argument))
    return found


def content(value: str) -> str:
    """Return the value of an option, which may be in a file."""
    return Path(value.removeprefix("file://")).read_text() if value.startswith("file://") else value


def parameters(service: Any, operation: str, given: dict[str, list[str]]) -> dict[str, Any]:
    """Return the parameters of an operation, in the types and the spelling of its model."""
    shape = service.meta.service_model.operation_model(
        service.meta.method_to_api_mapping[operation]
    ).input_shape
    found: dict[str, Any] = {}
    for name, member in shape.members.items():
        key = xform_name(name, "-")
        if member.type_name == "boolean":
            for switch, value in ((key, True), (f"no-{key}", False)):
                if switch in given:
                    assert given.pop(switch) == [], f"{switch} has no value"
                    found[name] = value
        elif key in given:
            found[name] = typed(member, given.pop(key))
    assert not given, f"{operation} does not know {', '.join(given)}"
    return found


def typed(shape: Any, values: list[str]) -> Any:
    """Return the value of an option in the type of its parameter."""
    if shape.type_name == "list":
        return [typed(shape.member, [value]) for value in values]
    [value] = values
    if shape.type_name in ("map", "structure"):
        # JSON, or the CLI's short form: name=value,name=value.
        pairs = (pair.split("=", 1) for pair in value.split(","))
        return json.loads(value) if value.startswith("{") else dict(pairs)
    return _NUMBERS.get(shape.type_name, str)(value)


def call(name: str, operation: str, given: dict[str, list[str]]) -> str:
    """Return what an operation prints."""
    service = client("s3" if name == "s3api" else name)
    [query], [output] = given.pop("query", [""]), given.pop("output", ["json"])
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
        [name] = options(rest)["name"]
        cluster = client("eks").describe_cluster(name=name)["cluster"]
        return f"Added new context {cluster['arn']}"
    return call(service, operation, options(rest))


if __name__ == "__main__":
    print(main(sys.argv[1:]))
