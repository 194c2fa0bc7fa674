"""A stand-in for `docker login` and `docker buildx build --push`, which builds nothing.

It puts a manifest with the labels of the build into the registry, by boto3.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path

import boto3


def build(arguments: list[str]) -> None:
    """Put the manifest of an image into the registry.

    Raises:
        SystemExit: An option or a build argument does not exist.
    """
    parser = argparse.ArgumentParser(prog="docker buildx build")
    for name in ("platform", "file", "tag"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--build-arg", action="append", default=[])
    parser.add_argument("--push", action="store_true", required=True)
    parser.add_argument("context")
    options = parser.parse_args(arguments)
    dockerfile = (Path(options.context) / options.file).read_text()
    known = re.findall(r"^ARG (\w+)", dockerfile, re.MULTILINE)
    given = dict(each.split("=", 1) for each in options.build_arg)
    if unknown := set(given) - set(known):
        parser.error(f"{options.file} has no argument {', '.join(unknown)}")
    repository, _, tag = options.tag.rpartition(":")
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "annotations": given | {"platform": options.platform},
    }
    boto3.client("ecr", os.environ["AWS_REGION"]).put_image(
        repositoryName=repository.partition("/")[2],
        imageTag=tag,
        imageManifest=json.dumps(manifest),
    )


def main(arguments: list[str]) -> None:
    """Do what the command says."""
    if arguments[0] == "login":
        assert sys.stdin.read().strip(), "there is no password on the standard input"
    else:
        assert arguments[:2] == ["buildx", "build"], arguments
        build(arguments[2:])


if __name__ == "__main__":
    main(sys.argv[1:])
