"""The workflows do what they should, and the checkers find nothing (`make check-workflows`)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment.kubectl_on_path import REPOSITORY, image, install
from tests.deployment.workflows import FOLDER, ROOT, TOOLS, findings, step, workflow

needs_checkers = pytest.mark.skipif(
    not (TOOLS / "zizmor").exists(), reason="make check-workflows installs actionlint and zizmor"
)

MISTAKES = {
    "an action by its tag": (
        "test.yml", "checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "checkout@v7",
        "zizmor: unpinned-uses",
    ),
    "credentials that stay": (
        "deploy.yml", "          persist-credentials: false\n", "", "zizmor: artipacked",
    ),
    "an input in a script": (
        "deploy.yml", '"$REVISION" \\\n', '"${{ inputs.revision }}" \\\n',
        "zizmor: template-injection",
    ),
    "permissions for every job": (
        "deploy.yml", "permissions: {}\n", "permissions: write-all\n",
        "zizmor: excessive-permissions",
    ),
    "the rights of another's pull request": (
        "test.yml", "  pull_request:\n", "  pull_request_target:\n", "zizmor: dangerous-triggers",
    ),
    "a key that GitHub does not know": (
        "deploy.yml", "    timeout-minutes: 75", "    timeout: 75", "actionlint: syntax-check",
    ),
    "a job that does not exist": (
        "deploy.yml", "    needs: image", "    needs: images", "actionlint: job-needs",
    ),
    "a step that does not exist": (
        "image.yml", "steps.build.outputs", "steps.built.outputs",
        "actionlint: expression",
    ),
    "a runner that does not exist": (
        "test.yml", "ubuntu-24.04-arm", "ubuntu-24.04-arm64", "actionlint: runner-label",
    ),
    "an input that no caller gives": (
        "deploy.yml", "    with:\n      environment: production\n", "", "actionlint: workflow-call",
    ),
}  # fmt: skip
"""File, text, the mistake in its place, and who finds it."""


@needs_checkers
def test_the_checkers_find_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert findings(ROOT) == []
    files = sorted((FOLDER / "workflows").glob("*.yml"))
    used = re.findall(r"uses: \S+@[0-9a-f]{40} # v", "".join(map(Path.read_text, files)))
    with capsys.disabled():
        print(f"\n{len(files)} workflows, {len(used)} actions pinned by hash, 0 findings")


@needs_checkers
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_checkers_find_a_planted_mistake(mistake: str, tmp_path: Path) -> None:
    name, right, wrong, found = MISTAKES[mistake]
    shutil.copytree(FOLDER, tmp_path / ".github")
    (tmp_path / ".git").mkdir()
    path = tmp_path / ".github" / "workflows" / name
    content = path.read_text("utf-8")
    assert right in content
    path.write_text(content.replace(right, wrong), "utf-8")
    assert any(line.startswith(found) for line in findings(tmp_path))


def test_every_action_has_a_hash_and_its_version() -> None:
    for path in (FOLDER / "workflows").glob("*.yml"):
        for used in re.findall(r"uses: (.+)", path.read_text("utf-8")):
            assert re.fullmatch(r"\S+@[0-9a-f]{40} # v[\d.]+|\$/\S+\.yml", used), (path, used)


def test_images_are_built_on_machines_of_their_architecture() -> None:
    job = workflow("image")["jobs"]["build"]
    runners = {each["arch"]: each["runner"] for each in job["strategy"]["matrix"]["include"]}
    assert runners == {"amd64": "ubuntu-24.04", "arm64": "ubuntu-24.04-arm"}
    assert not any("qemu" in str(each) for each in job["steps"])


def test_the_build_gives_every_image_provenance_contents_and_a_digest() -> None:
    [build] = [
        each["with"]
        for each in workflow("image")["jobs"]["build"]["steps"]
        if "build-push-action" in each.get("uses", "")
    ]
    assert (build["provenance"], build["sbom"]) == ("mode=max", True)
    assert "push-by-digest=true" in build["outputs"]
    known = re.findall(r"^ARG (\w+)", (ROOT / build["file"]).read_text("utf-8"), re.MULTILINE)
    given = [line.partition("=")[0] for line in build["build-args"].splitlines()]
    assert {"VERSION", "REVISION"} <= set(given) <= set(known)


def test_only_jobs_of_an_environment_get_a_role_of_aws() -> None:
    for name in ("test", "image", "deploy", "tag"):
        content = workflow(name)
        assert content["permissions"] == {}
        for job in content["jobs"].values():
            asks = any("configure-aws-credentials" in str(each) for each in job.get("steps", []))
            assert asks == ("environment" in job), job
            if asks:
                assert job["permissions"]["id-token"] == "write"


def test_one_deployment_runs_at_a_time() -> None:
    concurrency = workflow("deploy")["concurrency"]
    assert concurrency == {"group": "deploy", "cancel-in-progress": False}


def test_the_step_that_deploys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl = install(tmp_path, monkeypatch)
    revision = "6" * 40
    aws = tmp_path / "bin" / "aws"
    aws.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/aws\n'
        f'[ "$1" = eks ] || echo "{image("c").partition("@")[2]}"\n'
    )
    aws.chmod(0o755)
    python = tmp_path / "bin" / "python3"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@" --poll-s 0.01\n')
    python.chmod(0o755)
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    (overlay / "kustomization.yaml").touch()
    for folder in ("cluster", "ingest"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    values = {
        "CHECK_OUTPUT": "s3://cutouts/deployments",
        "CHECK_SOURCE": "s3://images/coffee.jpg",
        "EKS_CLUSTER": "shop",
        "ENVIRONMENT": "FOREEDGE_AWS__REGION=eu-central-1\nFOREEDGE_LEDGER__BUCKET=cutouts",
        "DEPLOYMENT_API_KEY": "",
        "IMAGE_REPOSITORY": REPOSITORY,
        "OVERLAY": str(overlay),
        "REVISION": revision,
    }
    deploy = step("deploy", "deploy", "Deploy")
    assert set(values) == {*deploy["env"], "REVISION"}
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", deploy["run"]],
        cwd=tmp_path,
        env={**os.environ, **values},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert kubectl.deployed() == (image("c"), revision)
    asked = (tmp_path / "aws").read_text()
    assert f"--repository-name foreedge --image-ids imageTag={revision} " in asked
    assert "eks update-kubeconfig --name shop" in asked
    assert (tmp_path / "out" / "environment.env").read_text() == values["ENVIRONMENT"] + "\n"


def test_the_step_that_checks_the_revision() -> None:
    script = step("deploy", "deploy", "Check the revision")["run"]
    for revision, code in {"6" * 40: 0, "main": 1, "6" * 39 + "$": 1, "": 1}.items():
        done = subprocess.run(["bash", "-e", "-c", script], env={"REVISION": revision})
        assert done.returncode == code, revision


def test_the_step_that_describes_the_commit(tmp_path: Path) -> None:
    output = tmp_path / "output"
    script = step("image", "build", "Describe the commit")["run"]
    environment = {**os.environ, "GITHUB_OUTPUT": str(output)}
    subprocess.run(["bash", "-e", "-c", script], cwd=ROOT, env=environment, check=True)
    assert re.fullmatch(r"version=\d+\.\d+\.\d+\ndate_s=\d{10}\n", output.read_text())


def test_the_step_that_makes_one_index(tmp_path: Path) -> None:
    script = step("image", "index", "Make one index for both architectures")["run"]
    (tmp_path / "digests").mkdir()
    for digit in "ab":
        (tmp_path / "digests" / (digit * 64)).touch()
    tag = f"{REPOSITORY}:{'6' * 40}"
    docker = tmp_path / "docker"
    # The tag exists once it was created.
    docker.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n'
        f'case "$3" in create) touch {tmp_path}/tag;; *) test -e {tmp_path}/tag;; esac\n'
    )
    docker.chmod(0o755)
    environment = {
        "GITHUB_SHA": "6" * 40,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "REPOSITORY": REPOSITORY,
        "RUNNER_TEMP": str(tmp_path),
    }
    for _ in range(2):
        subprocess.run(["bash", "-eo", "pipefail", "-c", script], env=environment, check=True)
    images = " ".join(f"{REPOSITORY}@sha256:{digit * 64}" for digit in "ab")
    inspect = f"buildx imagetools inspect {tag}"
    calls = (tmp_path / "calls").read_text().splitlines()
    # The second run finds the tag and creates nothing.
    assert calls == [inspect, f"buildx imagetools create --tag {tag} {images}", inspect, inspect]
