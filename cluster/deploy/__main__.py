"""Deploy an image to a Kubernetes cluster, check it, and return to the one before if it fails.

python -m cluster.deploy --image REPOSITORY@sha256:DIGEST --revision COMMIT --overlay spot
    --source s3://BUCKET/KEY --output s3://BUCKET/PREFIX

It needs kubectl with Kustomize 5 and a context. An API key, if the endpoint wants one, is in the
environment variable DEPLOYMENT_API_KEY. docs/operations/delivery.md describes the steps.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from cluster.deploy.checks import split_s3
from cluster.deploy.kubectl import Kubectl
from cluster.deploy.release import NAMESPACE, Release
from cluster.deploy.rollout import NotRolledBack, Rollout
from cluster.deploy.verification import Verification
from cluster.deploy.waiting import Clock, DeploymentFailed, Patience

DEPLOYED, FAILED, WRONG_USAGE, NOT_ROLLED_BACK, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes."""

_ROOT = Path(__file__).parents[2]
_OVERLAYS = _ROOT / "cluster" / "kubernetes" / "overlays"
_API_KEY = "DEPLOYMENT_API_KEY"


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Return the options. Ends the process with 2 if they are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m cluster.deploy",
        description="Deploy an image, check it, and return to the one before if it fails.",
        epilog="Exit codes: 0 deployed. 1 failed, and the release before serves or nothing was "
        "changed. 2 wrong usage. 3 failed, and no release before serves. 130 interrupted.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--image", required=True, help="Image, as REPOSITORY@sha256:DIGEST.")
    parser.add_argument("--revision", required=True, help="Commit that it was built from.")
    parser.add_argument(
        "--overlay", required=True, help="Name of an overlay of cluster/kubernetes, or a folder."
    )
    parser.add_argument(
        "--source", required=True, help="An image in S3 for the check of the queue."
    )
    parser.add_argument("--output", required=True, help="Prefix in S3 for its results.")
    parser.add_argument(
        "--folder",
        type=Path,
        default=_ROOT / "out" / "deploy",
        help="Folder for the kustomization.",
    )
    parser.add_argument(
        "--environment", type=Path, help="File of FOREEDGE_NAME=value lines for every pod."
    )
    patience = Patience()
    for name, what in {
        "ready": "until the RayService is ready",
        "check": "for one image over HTTP",
        "queue": "for one image by the queue",
        "poll": "between two looks",
    }.items():
        parser.add_argument(
            f"--{name}-s", type=float, default=getattr(patience, f"{name}_s"),
            help=f"Seconds {what}.",
        )  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments: list[str], clock: Clock | None = None) -> int:
    """Return the exit code.

    Args:
        arguments: Arguments of the command.
        clock: Time that passes. By default that of this machine.
    """
    options = parse_arguments(arguments)
    named = _OVERLAYS / options.overlay
    try:
        release = Release(options.image, options.revision)
        for url in (options.source, options.output):
            split_s3(url)
    except DeploymentFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_USAGE
    kubectl = Kubectl(NAMESPACE)
    verification = Verification(
        kubectl,
        options.source,
        options.output,
        os.environ.get(_API_KEY) or None,
        Patience(options.ready_s, options.check_s, options.queue_s, options.poll_s),
        _report,
        clock or Clock(),
    )
    rollout = Rollout(
        kubectl,
        verification,
        named if named.is_dir() else Path(options.overlay),
        options.folder,
        options.environment,
        _report,
    )
    try:
        rollout.deploy(release)
    except NotRolledBack as error:
        print(f"error: {error}", file=sys.stderr)
        return NOT_ROLLED_BACK
    except DeploymentFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    print(f"deployed {release.image} of revision {release.revision}")
    return DEPLOYED


def _report(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
