"""`python -m cluster.deploy`, with a kubectl whose cluster fails at each step in turn."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cluster.deploy.__main__ import (
    DEPLOYED,
    FAILED,
    INTERRUPTED,
    NOT_ROLLED_BACK,
    WRONG_USAGE,
    main,
)
from cluster.deploy.release import REVISION_LABEL, Release, release_of
from cluster.deploy.waiting import Clock
from tests.deployment.kubectl_on_path import REPOSITORY, StandIn, image, install
from tests.deployment.kubernetes.objects import OVERLAYS, kubectl_problem, of_kind, render
from tests.deployment.stand_in_kubectl import ray_service

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "cluster" / "kubernetes" / "overlays"
OLD, NEW = image("a"), image("b")
OLD_REVISION, NEW_REVISION = "a" * 40, "b" * 40

STEPS = {
    "apply": "denied the request",
    "never ready": "the new cluster is not ready (foreedge: DEPLOY_FAILED: invalid_config",
    "application": "an application is not running (foreedge: DEPLOY_FAILED: invalid_config",
    "worker": "none of the 1 workers of foreedge-2 is ready",
    "no smoke": "foreedge smoke ended without a report",
    "smoke": "foreedge smoke: model_unavailable: u2netp",
    "smoke of another revision": "the image has revision unknown",
    "no forwarding": "unable to forward port",
    "traffic": "/healthz names revision old",
    "http": "/v1/cutout?format=png answers 500",
    "no PNG": "bytes that are no PNG",
    "busy": "/v1/cutout?format=png answers 503",
    "job refused": "/v1/jobs answers 400",
    "job failed": "failed: source_forbidden",
    "queue": "the queue is not served: None; 0 jobs done",
}
"""What is said of each fault of an image, by its name in the stand-in."""


class SleeplessClock(Clock):
    """A clock whose time passes only while somebody sleeps, at once."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def now_s(self) -> float:
        return self._now_s

    def sleep(self, duration_s: float) -> None:
        self._now_s += duration_s


def deploy(arguments: list[str]) -> int:
    """Return the exit code of a deployment that waits for nothing."""
    return main(arguments, SleeplessClock())


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return install(tmp_path, monkeypatch)


def arguments(folder: Path, release: str, revision: str, *more: str) -> list[str]:
    """Return the arguments of a deployment."""
    overlay = folder / "overlay"
    overlay.mkdir(exist_ok=True)
    (overlay / "kustomization.yaml").touch()
    places = ["--source", "s3://images/coffee.jpg", "--output", "s3://cutouts/deployments"]
    patience = ["--ready-s=20", "--check-s=10", "--queue-s=10", "--poll-s=5"]
    named = ["--image", release, "--revision", revision, "--overlay", str(overlay)]
    return [*named, *places, *patience, "--folder", str(folder / "out"), *more]


@pytest.fixture
def deployed(kubectl: StandIn) -> StandIn:
    """Return a cluster in which the old release serves."""
    kubectl.serve(OLD, OLD_REVISION)
    return kubectl


def test_a_release_is_deployed_and_labelled(
    deployed: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert deploy(arguments(tmp_path, NEW, NEW_REVISION)) == DEPLOYED
    assert deployed.deployed() == (NEW, NEW_REVISION)
    assert deployed.active() == NEW
    printed = capsys.readouterr().out
    # Right after the change, KubeRay still says that the old cluster is ready.
    assert "waiting: KubeRay has not looked at the change yet" in printed
    assert printed.endswith(f"deployed {NEW} of revision {NEW_REVISION}\n")


@pytest.mark.parametrize(("fault", "reason"), STEPS.items())
def test_the_release_before_returns_if_a_step_fails(
    deployed: StandIn,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fault: str,
    reason: str,
) -> None:
    deployed.change(faults={NEW: fault})
    code = deploy(arguments(tmp_path, NEW, NEW_REVISION))
    captured = capsys.readouterr()
    assert reason in captured.err
    assert code == FAILED, captured.err
    assert deployed.deployed() == (OLD, OLD_REVISION)
    assert deployed.active() == OLD
    assert f"revision {OLD_REVISION} serves again" in captured.out


def test_a_failure_before_anything_changes_changes_nothing(
    deployed: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = arguments(tmp_path, NEW, NEW_REVISION)
    (tmp_path / "overlay" / "kustomization.yaml").unlink()
    assert deploy(wrong) == FAILED
    assert "kustomization.yaml does not exist" in capsys.readouterr().err
    assert [call[:2] for call in deployed.read()["calls"]][-1] == ["apply", "view-last-applied"]


def test_the_first_release_has_nothing_to_return_to(
    kubectl: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kubectl.change(faults={NEW: "http"})
    assert deploy(arguments(tmp_path, NEW, NEW_REVISION)) == NOT_ROLLED_BACK
    assert "There is no release before it" in capsys.readouterr().err
    assert kubectl.deployed() == (NEW, NEW_REVISION)


@pytest.mark.parametrize(
    ("release", "labels", "reason"),
    [
        (OLD, {}, "'' cannot be a label"),
        (f"{REPOSITORY}:latest", {REVISION_LABEL: OLD_REVISION}, "foreedge:latest' is no image"),
    ],
    ids=["no label", "a tag"],
)
def test_what_was_applied_without_a_release_is_named(
    kubectl: StandIn,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    release: str,
    labels: dict[str, str],
    reason: str,
) -> None:
    manifest = ray_service(release, labels)
    kubectl.change(manifest=manifest, generation=1, observed=1)
    assert deploy(arguments(tmp_path, NEW, NEW_REVISION)) == FAILED
    error = capsys.readouterr().err
    assert error.startswith("error: the deployed RayService foreedge is no release to return to: ")
    assert reason in error
    assert f"the label {REVISION_LABEL}, as docs/operations/kubernetes.md does" in error
    assert kubectl.read()["manifest"] == manifest


def test_the_kustomization_of_the_page_is_a_release_to_return_to(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "operations" / "kubernetes.md").read_text("utf-8")
    text = page.partition("cat > kustomization.yaml <<'END'\n")[2].partition("END\n")[0]
    content = yaml.safe_load(text)
    [image_fields], [labels] = content["images"], content["labels"]
    release = f"{image_fields['newName']}@{image_fields['digest']}"
    service = ray_service(release, labels["pairs"])
    assert release_of(service) == Release(release, "0" * 40)


def test_without_kubectl_the_command_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert deploy(arguments(tmp_path, NEW, NEW_REVISION)) == FAILED
    assert capsys.readouterr().err.startswith("error: kubectl cannot be run: No such file")


def test_a_release_before_that_does_not_serve_either_is_reported(
    deployed: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed.change(faults={NEW: "smoke", OLD: "http"})
    assert deploy(arguments(tmp_path, NEW, NEW_REVISION)) == NOT_ROLLED_BACK
    assert (
        f"{OLD} does not serve either: /v1/cutout?format=png answers 500" in capsys.readouterr().err
    )
    assert deployed.deployed() == (OLD, OLD_REVISION)


def test_a_busy_api_server_fails_no_deployment(deployed: StandIn, tmp_path: Path) -> None:
    deployed.change(busy=3)
    assert deploy(arguments(tmp_path, NEW, NEW_REVISION, "--ready-s=60")) == DEPLOYED
    assert deployed.active() == NEW


def test_a_queue_with_a_long_backlog_fails_no_deployment(deployed: StandIn, tmp_path: Path) -> None:
    deployed.change(faults={NEW: "a long queue"})
    assert deploy(arguments(tmp_path, NEW, NEW_REVISION)) == DEPLOYED
    assert deployed.active() == NEW


@pytest.mark.skipif(kubectl_problem() is not None, reason=str(kubectl_problem()))
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_gets_the_image_the_label_and_the_environment(
    tmp_path: Path, overlay: str
) -> None:
    environment = tmp_path / "environment.env"
    environment.write_text("FOREEDGE_AWS__REGION=us-east-1\nFOREEDGE_HTTP__MAX_CONCURRENT=7\n")
    Release(NEW, NEW_REVISION).write_overlay(FOLDER / overlay, tmp_path / "out", environment)
    objects = render(tmp_path / "out")
    [service], [variables] = of_kind(objects, "RayService"), of_kind(objects, "ConfigMap")
    assert release_of(service) == Release(NEW, NEW_REVISION)
    assert (
        variables["data"].items()
        >= {
            "FOREEDGE_AWS__REGION": "us-east-1",
            "FOREEDGE_HTTP__MAX_CONCURRENT": "7",
        }.items()
    )
    cluster = service["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group["template"]["metadata"]["labels"][REVISION_LABEL] == NEW_REVISION
        pod = group["template"]["spec"]
        for container in (*pod.get("initContainers", []), *pod["containers"]):
            assert container["image"] == NEW
            [source] = container["envFrom"]
            assert source["configMapRef"]["name"] == variables["metadata"]["name"]
    selectors = [one["spec"]["selector"] for one in of_kind(objects, "PodDisruptionBudget")]
    assert REVISION_LABEL not in str(selectors)
    smoke = cluster["workerGroupSpecs"][0]["template"]["spec"]["initContainers"][0]
    assert (smoke["name"], smoke["command"][:2]) == ("smoke", ["foreedge", "smoke"])


def test_an_interruption_applies_the_release_before(deployed: StandIn, tmp_path: Path) -> None:
    deployed.change(faults={NEW: "never ready"})
    command = [sys.executable, "-m", "cluster.deploy"]
    with subprocess.Popen(
        [*command, *arguments(tmp_path, NEW, NEW_REVISION, "--ready-s=600", "--poll-s=0.1")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as deployment:
        assert deployment.stdout is not None
        for line in deployment.stdout:
            if "waiting: the new cluster" in line:
                break
        deployment.send_signal(signal.SIGINT)
        rest = deployment.stdout.read()
    assert deployment.returncode == INTERRUPTED
    assert f"applied {OLD} of revision {OLD_REVISION} again" in rest
    assert deployed.deployed() == (OLD, OLD_REVISION)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"--image": f"{REPOSITORY}:latest"}, "is no image with a digest"),
        ({"--revision": "feature/x"}, "cannot be a label"),
        ({"--source": "/tmp/coffee.jpg"}, "is no URL of S3"),
    ],
)
def test_wrong_arguments_reach_no_cluster(
    kubectl: StandIn,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    wrong: dict[str, str],
    reason: str,
) -> None:
    more = [text for pair in wrong.items() for text in pair]
    assert deploy(arguments(tmp_path, NEW, NEW_REVISION, *more)) == WRONG_USAGE
    assert reason in capsys.readouterr().err
    assert kubectl.read()["calls"] == []


def test_the_key_is_sent_and_never_printed(
    deployed: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DEPLOYMENT_API_KEY", "s3cret-key")
    deployed.change(api_key="s3cret-key")
    assert deploy(arguments(tmp_path, NEW, NEW_REVISION)) == DEPLOYED
    assert "s3cret-key" not in "".join(capsys.readouterr())
    monkeypatch.setenv("DEPLOYMENT_API_KEY", "another")
    assert deploy(arguments(tmp_path, OLD, OLD_REVISION)) == NOT_ROLLED_BACK
    assert "/v1/cutout?format=png answers 401" in capsys.readouterr().err
