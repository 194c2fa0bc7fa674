"""The overlays of cluster/kubernetes can be applied (`make check-kubernetes`)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deployment.kubernetes.application import application_faults, deployments
from tests.deployment.kubernetes.faults import SERVE_FILE, rule_faults, schema_faults
from tests.deployment.kubernetes.objects import (
    FOLDER,
    OVERLAYS,
    ROOT,
    kubectl_problem,
    of_kind,
    quantity,
    ray_service,
    render,
    selects,
)
from tests.deployment.kubernetes.schemas import (
    closed,
    crds_problem,
    custom_faults,
    validate_problem,
)

PAGE = ROOT / "docs" / "operations" / "kubernetes.md"
CUT_OVER = ROOT / "docs" / "cut-over.md"
QUEUE = {
    "FOREEDGE_AWS__REGION": "eu-central-1",
    "FOREEDGE_QUEUE__URL": "https://sqs.eu-central-1.amazonaws.com/123456789012/foreedge",
    "FOREEDGE_LEDGER__BUCKET": "shelf",
}
needs_kubectl = pytest.mark.skipif(kubectl_problem() is not None, reason=str(kubectl_problem()))


def test_every_overlay_is_checked() -> None:
    assert {path.name for path in (FOLDER / "overlays").iterdir()} == set(OVERLAYS)


@needs_kubectl
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_has_no_fault(overlay: str, capsys: pytest.CaptureFixture[str]) -> None:
    objects = render(FOLDER / "overlays" / overlay)
    assert list(schema_faults(objects)) == []
    assert list(rule_faults(objects)) == []
    groups = ray_service(objects)["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    workers = ", ".join(
        f"{g['minReplicas']} to {g['maxReplicas']} {g['groupName']}" for g in groups
    )
    unchecked = [problem for problem in (crds_problem(), validate_problem()) if problem]
    with capsys.disabled():
        print(f"\n{overlay}: {len(objects)} objects, workers: {workers}; 0 faults")
        for problem in unchecked:
            print(f"not checked: {problem}")


def test_objects_for_prometheus_have_no_fault() -> None:
    kinds = ("PodMonitor", "PrometheusRule")
    files = sorted((ROOT / "cluster" / "monitoring").rglob("*.yaml"))
    documents = [one for file in files for one in yaml.safe_load_all(file.read_text())]
    objects = [one for one in documents if isinstance(one, dict) and one.get("kind") in kinds]
    if not objects:
        pytest.skip("cluster/monitoring has no object for Prometheus's operator")
    if problem := crds_problem(*kinds):
        pytest.skip(problem)
    assert list(custom_faults(objects)) == []


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """Return a folder that is to the overlays as that of the page."""
    # Kustomize reads no links that leave a folder.
    shutil.copytree(FOLDER, tmp_path / "cluster" / "kubernetes")
    folder = tmp_path / "out" / "kubernetes"
    folder.mkdir(parents=True)
    return folder


def files_of(page: Path) -> dict[str, str]:
    """Return the files that a page lets its reader write."""
    found = re.findall(r"cat > (\S+) <<'END'\n(.*?)END\n", page.read_text(), flags=re.DOTALL)
    return dict(found)


@needs_kubectl
def test_the_folder_of_the_cut_over_consumes_or_waits(own_folder: Path) -> None:
    """The queue and the catalog come with one environment, and nothing of them with the other."""
    files = files_of(PAGE) | files_of(CUT_OVER)
    [edit] = re.findall(r"^sed -i '.*' kustomization.yaml$", CUT_OVER.read_text(), re.MULTILINE)
    for name, text in files.items():
        (own_folder / name).write_text(text)
    subprocess.run(["bash", "-ec", edit], cwd=own_folder, check=True)
    names = {}
    expected = {"waiting": ["its pods get no FOREEDGE_QUEUE__URL"], "consuming": []}
    for state, faults in expected.items():
        shutil.copy(own_folder / f"{state}.env", own_folder / "environment.env")
        objects = render(own_folder)
        assert list(rule_faults(objects)) == faults
        data = of_kind(objects, "ConfigMap")[0]["data"]
        assert data == dict(line.split("=", 1) for line in files[f"{state}.env"].splitlines())
        names[state] = {name.split("__")[0] for name in data}
    assert names["consuming"] - names["waiting"] == {
        "FOREEDGE_QUEUE", "FOREEDGE_CATALOG", "FOREEDGE_PIPELINE"
    }  # fmt: skip


@needs_kubectl
def test_the_folder_of_the_page_sets_image_and_environment(own_folder: Path) -> None:
    files = files_of(PAGE)
    files["environment.env"] = files["environment.env"].replace("BUCKET=shelf", "BUCKET=mine")
    for name, text in files.items():
        (own_folder / name).write_text(text)
    objects = render(own_folder)
    assert list(rule_faults(objects)) == []
    images = set(re.findall(r"image: (\S+)", yaml.safe_dump_all(objects, width=1000)))
    repository = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/foreedge"
    assert images == {f"{repository}@sha256:{64 * '0'}"}
    assert of_kind(objects, "ConfigMap")[0]["data"]["FOREEDGE_LEDGER__BUCKET"] == "mine"


def test_the_command_of_an_upgrade_changes_the_template_of_the_head() -> None:
    [command] = re.findall(
        r"^(kubectl -n foreedge patch .*?\}\")$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE
    )
    # A stand-in that prints the patch: no cluster can be reached.
    script = f'kubectl() {{ printf %s "${{@: -1}}"; }}\n{command}'
    ended = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
    patch = json.loads(ended.stdout)
    whole = yaml.safe_load((FOLDER / "base" / "rayservice.yaml").read_text())
    for name in ("spec", "rayClusterConfig", "headGroupSpec", "template"):
        [(key, patch)], whole = patch.items(), whole[name]
        assert key == name
    [(annotation, time)] = patch["metadata"]["annotations"].items()
    assert annotation not in whole.get("metadata", {}).get("annotations", {})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time)


@needs_kubectl
def test_another_environment_replaces_the_pods(own_folder: Path) -> None:
    found = []
    for bucket in ("a-shelf", "another-shelf"):
        (own_folder / "kustomization.yaml").write_text(
            "resources: [../../cluster/kubernetes/base]\nnamespace: foreedge\n"
            "configMapGenerator:\n- name: foreedge-environment\n  behavior: merge\n"
            f"  literals: [FOREEDGE_LEDGER__BUCKET={bucket}]\n"
        )
        text = yaml.safe_dump(ray_service(render(own_folder)))
        found.append(re.findall(r"name: (foreedge-environment\S*)", text))
    # The head, the workers and their init container.
    assert [len(names) for names in found] == [3, 3]
    assert [len(set(names)) for names in found] == [1, 1]
    assert found[0] != found[1]


@pytest.mark.parametrize("file", ["serve.yaml", "serve.tuned.yaml"])
def test_the_application_of_a_serve_file_starts(file: str) -> None:
    text = (ROOT / "cluster" / file).read_text()
    assert list(application_faults(text, QUEUE)) == []


def test_the_replicas_of_the_serve_file_are_those_that_pods_are_made_for() -> None:
    config, found = deployments(SERVE_FILE.read_text(), QUEUE)
    assert config.queue is not None
    by_name = {one.name: one for one in found}
    assert set(by_name) == {"SqsIngest", "HttpApi", "CutoutPipeline", "Segmenter-u2netp"}
    assert by_name["SqsIngest"].stop_s > config.queue.stop_grace_s
    assert by_name["CutoutPipeline"].num_cpus == config.pipeline.num_cpus
    assert by_name["CutoutPipeline"].memory_bytes > config.pipeline.max_decoded_bytes


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("proxy_location: EveryNode", "Serve refuses it"),
        ("import_path: serve_app.app:build", "its import path is serve_app.app:make"),
        ("threads: 2", "the application refuses it: configuration: pipeline.thread"),
        ("models: [u2netp]", "the application refuses it: models: "),
    ],
)
def test_a_mistake_in_a_serve_file_is_found(change: str, fault: str) -> None:
    wrong = {
        "proxy_location: EveryNode": "proxy_location: EveryPod",
        "import_path: serve_app.app:build": "import_path: serve_app.app:make",
        "threads: 2": "thread: 2",
        "models: [u2netp]": "models: [u3net]",
    }[change]
    text = SERVE_FILE.read_text()
    assert change in text
    assert fault in "\n".join(application_faults(text.replace(change, wrong), QUEUE))


@pytest.mark.parametrize(
    ("text", "number"), [("7", 7), (2, 2), ("500m", 0.5), ("12Gi", 12 * 2**30), ("1.5M", 1.5e6)]
)
def test_quantities_are_read_as_kubernetes_does(text: str | int, number: float) -> None:
    assert float(quantity(text)) == number


@pytest.mark.parametrize("text", ["", "much", "1 Gi", "12GB", "Gi"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity"):
        quantity(text)


def test_selectors_are_read_as_kubernetes_does() -> None:
    labels = {"app": "a"}
    assert selects({}, labels)
    assert not selects(None, labels)
    assert selects({"matchLabels": {"app": "a"}}, labels)
    assert not selects({"matchLabels": {"app": "b"}}, labels)
    for operator, values, expected in (
        ("In", ["a", "b"], True),
        ("NotIn", ["a"], False),
        ("Exists", [], True),
        ("DoesNotExist", [], False),
    ):
        expression = {"key": "app", "operator": operator, "values": values}
        assert selects({"matchExpressions": [expression]}, labels) is expected


def test_a_closed_schema_refuses_unknown_fields_at_every_depth() -> None:
    inner = {"type": "object", "properties": {"a": {"type": "integer", "format": "int32"}}}
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = closed(
        {
            "type": "object",
            "properties": {
                "list": {"type": "array", "items": inner},
                "properties": {"type": "object", "additionalProperties": {"type": "string"}},
                "free": free,
            },
        }
    )
    assert schema["additionalProperties"] is False
    assert schema["properties"]["list"]["items"]["additionalProperties"] is False
    assert schema["properties"]["properties"]["additionalProperties"] == {"type": "string"}
    assert "additionalProperties" not in schema["properties"]["free"]
    limits = schema["properties"]["list"]["items"]["properties"]["a"]["allOf"][0]
    assert limits == {"minimum": -(2**31), "maximum": 2**31 - 1}
