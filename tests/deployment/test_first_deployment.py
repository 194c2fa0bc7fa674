"""The commands of "First deployment", run in order (`make check-first-deployment`).

AWS is a local one (moto) that real Terraform fills. The programs in `tests/deployment/programs`
take the place of those that are not here, and the application on this machine that of the cluster.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
import yaml

from ingest.local.aws import LocalAws, use_dummy_credentials
from ingest.local.ports import answers, free_port
from serve_app.version import REVISION_VARIABLE
from tests.deployment.kubectl_on_path import StandIn, install
from tests.deployment.kubernetes.objects import kubectl_problem, of_kind
from tests.deployment.terraform import ROOT, TOOLS, Terraform, missing_tools, provider_mirror
from tests.support.demonstration import START_TIMEOUT_S, STOP_TIMEOUT_S
from tests.support.pages import blocks, section

PAGE = ROOT / "docs" / "operations" / "first-deployment.md"
PROGRAMS = Path(__file__).parent / "programs"
REGION = "eu-central-1"
BUCKETS = ("foreedge-terraform-state", "shelf-images", "shelf-cutouts", "shelf-ledger")
"""Buckets of the environment "production" in `cluster/terraform/envs`."""
FOLDERS = (
    "cluster/__init__.py",
    "cluster/deploy",
    "ingest",
    "serve_app",
    ".git",
)
"""What a stranger uses of the clone, besides what the test makes."""
MODEL = "folio"
"""The bundled model, which needs no network."""


class Stranger:
    """Somebody who types what the page says, section by section, in a clone of the repository."""

    def __init__(self, clone: Path, environment: dict[str, str]) -> None:
        self.clone = clone
        self.environment = environment

    def follow(self, title: str) -> str:
        """Run the commands of a section after those before, and return what they print."""
        printed = ""
        for block in blocks(section(PAGE, title), "sh"):
            printed += self.run(block)
        return printed

    def run(self, script: str) -> str:
        """Run commands, and keep the variables that they export."""
        exported = self.clone / "exported"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{script}\nenv -0 > {exported}"],
            cwd=self.clone,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        entries = exported.read_text().rstrip("\0").split("\0")
        self.environment = dict(entry.split("=", 1) for entry in entries)
        return done.stdout


@pytest.fixture
def aws() -> Iterator[LocalAws]:
    """Yield a local AWS with what the page takes for granted."""
    if reason := missing_tools():
        pytest.skip(reason)
    use_dummy_credentials()
    with LocalAws() as server:
        for bucket in BUCKETS:
            server.create_bucket(bucket)
        boto3.client("eks", REGION, endpoint_url=server.endpoint_url).create_cluster(
            name="production", roleArn="arn:aws:iam::123456789012:role/eks", resourcesVpcConfig={}
        )
        yield server


KUBECTL = None if kubectl_problem() else shutil.which("kubectl")
"""The real kubectl, if there is one with Kustomize 5."""


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return install(tmp_path, monkeypatch)


@pytest.fixture
def stranger(
    tmp_path: Path, aws: LocalAws, kubectl: StandIn, monkeypatch: pytest.MonkeyPatch
) -> Stranger:
    """Return a stranger with a clone, credentials, and the programs that the page asks for."""
    clone = tmp_path / "clone"
    for folder in FOLDERS:
        (clone / folder).parent.mkdir(parents=True, exist_ok=True)
        (clone / folder).symlink_to(ROOT / folder)
    (clone / "cluster" / "Dockerfile").symlink_to(ROOT / "cluster" / "Dockerfile")
    shutil.copytree(ROOT / "cluster" / "kubernetes", clone / "cluster" / "kubernetes")
    module = Terraform(clone / "cluster" / "terraform", aws.endpoint_url).folder
    (module / "backend_override.tf.json").write_text(local_backend(aws.endpoint_url))
    programs = tmp_path / "bin"
    for name in ("aws", "docker"):
        write_program(programs / name, f'exec {sys.executable} {PROGRAMS / name}.py "$@"')
    write_program(
        programs / "terraform",
        # The provider of the check is older than this variable, and would not understand it.
        f'unset AWS_ENDPOINT_URL\nexec {TOOLS}/bin/python {PROGRAMS}/terraform.py "$@"',
    )
    for name in ("foreedge", "python3"):
        (programs / name).symlink_to(Path(sys.prefix) / "bin" / name)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("FOREEDGE_")
    }
    local = {
        "AWS_ENDPOINT_URL": aws.endpoint_url,
        "FOREEDGE_AWS__ENDPOINT_URL": aws.endpoint_url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "CHECKPOINT_DISABLE": "1",
        "TF_CLI_CONFIG_FILE": str(provider_mirror()),
        "PYTHONPATH": str(ROOT),
    }
    return Stranger(clone, environment | local)


def write_program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


def local_backend(endpoint_url: str) -> str:
    """Return a file that Terraform merges over the module: the place of the state."""
    local = dict.fromkeys(
        ("skip_credentials_validation", "skip_requesting_account_id", "use_path_style"), True
    )
    return json.dumps(
        {"terraform": {"backend": {"s3": {"endpoints": {"s3": endpoint_url}, **local}}}}
    )


@contextmanager
def application(stranger: Stranger, revision: str) -> Iterator[str]:
    """Run the application with the environment that the page has written for the pods.

    Yields:
        Its address.
    """
    port = free_port()
    lines = (stranger.clone / "out" / "environment.env").read_text().splitlines()
    pods = dict(line.split("=", 1) for line in lines)
    log = stranger.clone.parent / "serve.log"
    with log.open("wb") as output:
        serve = subprocess.Popen(
            ["foreedge", "serve", "--model", MODEL, "--port", str(port)],
            env={**stranger.environment, **pods, REVISION_VARIABLE: revision},
            cwd=stranger.clone.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers(f"http://127.0.0.1:{port}/readyz"):
            assert serve.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield f"127.0.0.1:{port}"
    finally:
        serve.send_signal(signal.SIGINT)
        serve.wait(STOP_TIMEOUT_S)


def roles_of_pods(folder: Path) -> list[str]:
    """Return the roles of the service accounts of what a folder renders."""
    rendered = subprocess.run(
        [str(KUBECTL), "kustomize", folder], capture_output=True, text=True, check=True
    )
    accounts = of_kind(list(yaml.safe_load_all(rendered.stdout)), "ServiceAccount")
    return [each["metadata"]["annotations"]["eks.amazonaws.com/role-arn"] for each in accounts]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_stranger_reaches_a_drained_queue(
    stranger: Stranger, kubectl: StandIn, aws: LocalAws, capsys: pytest.CaptureFixture[str]
) -> None:
    for title in ("1. Names", "2. Queue, registry, roles and secrets", "3. Image", "4. Secrets"):
        stranger.follow(title)
    revision = stranger.environment["REVISION"]
    image = f"{stranger.environment['IMAGE_REPOSITORY']}@{stranger.environment['DIGEST']}"
    in_image = {**stranger.environment, REVISION_VARIABLE: revision}
    smoke = subprocess.run(
        ["foreedge", "smoke", "--model", MODEL], env=in_image, capture_output=True, text=True
    )
    with application(stranger, revision) as address:
        kubectl.change(application=address, smoke_log=smoke.stdout)
        deployed = stranger.follow("5. Cluster")
        assert deployed.endswith(f"deployed {image} of revision {revision}\n")
        stranger.follow("6. First run")
        stranger.follow("7. Drained")
        status = json.loads(stranger.run("foreedge status first --json"))
    assert kubectl.deployed() == (image, revision)
    if KUBECTL is not None:
        assert set(roles_of_pods(stranger.clone / "out" / "deploy")) == {
            "arn:aws:iam::123456789012:role/foreedge-production-head",
            "arn:aws:iam::123456789012:role/foreedge-production-worker",
        }
    assert (status["state"], status["counts"]["done"]) == ("ended", status["jobs"])
    assert status["queue"] == {"waiting": 0, "in_flight": 0}
    made = sorted(path.name for path in (stranger.clone / "out" / "first").iterdir())
    assert made == ["report.html", "report.json"]
    with capsys.disabled():
        print(f"\nfirst deployment: {status['jobs']} images, queue drained")
