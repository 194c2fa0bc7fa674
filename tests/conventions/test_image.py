"""The container image: its environment, its licences and its models."""

from __future__ import annotations

import json
import re
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from cluster.image.install_models import install_models
from cluster.image.notices import UnknownLicence, licence_of, main, notices
from serve_app.errors import InvalidConfig, ModelChecksumMismatch
from serve_app.serving.ray_environment import ENVIRONMENT
from serve_app.version import REVISION_VARIABLE

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "cluster" / "Dockerfile").read_text("utf-8")
LAST_STAGE = DOCKERFILE.rpartition("\nFROM ")[2]


def image_environment() -> dict[str, str]:
    """Return the variables of the last stage."""
    lines = re.sub(r"^\s*#.*\n", "", LAST_STAGE, flags=re.MULTILINE).replace("\\\n", " ")
    words = " ".join(line[4:] for line in lines.splitlines() if line.startswith("ENV ")).split()
    return {name: value.strip('"') for name, _, value in (word.partition("=") for word in words)}


def installed(folder: Path, name: str, *fields: str) -> PathDistribution:
    """Return a package with some metadata."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("\n".join([f"Name: {name}", "Version: 1.0", *fields]))
    return PathDistribution(info)


def test_the_image_carries_the_environment_of_ray() -> None:
    found = image_environment()
    assert {name: found.get(name) for name in ENVIRONMENT} == ENVIRONMENT
    assert {name for name in found if name.startswith("RAY_")} <= set(ENVIRONMENT)


def test_the_manual_says_what_the_image_runs() -> None:
    [command] = re.findall(r"^CMD (\[.+\])$", LAST_STAGE, re.MULTILINE)
    page = (ROOT / "docs" / "operations" / "image.md").read_text("utf-8")
    assert f"What runs by default is `{' '.join(json.loads(command))}`" in page
    # Whoever reaches the port can use an endpoint without keys.
    runs = re.findall(r"^docker run .*$", page, re.MULTILINE)
    assert ["-p 127.0.0.1:" in run and "API_KEYS=" in run for run in runs] == [True]


def test_what_the_image_copies_is_part_of_every_build_context() -> None:
    """Docker's context leaves everything out that is not named, and so does that of buildah."""
    whole = DOCKERFILE.replace("\\\n", " ")
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", whole, re.MULTILINE)
    copied = {word.removesuffix("/") for line in lines for word in line.split()}
    kept = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    assert {"requirements-openvino.lock", "requirements-heif.lock"} <= copied
    assert copied <= set(kept)
    local = (ROOT / "cluster" / "image" / "local.py").read_text("utf-8")
    assert {name for name in copied if f'"{name}"' not in local} == set()


def test_the_image_says_which_revision_it_is() -> None:
    assert image_environment()[REVISION_VARIABLE] == "${REVISION}"


def test_numba_compiles_for_the_cpu_that_it_looks_for_later() -> None:
    environment = image_environment()
    names = [name for name in environment if name.startswith("NUMBA_")]
    assert len(names) == 4
    build = re.search(r"^RUN NUMBA_(?:.*\\\n)*.*", DOCKERFILE, re.MULTILINE)
    assert build
    for name in names:
        assert f'{name}="{environment[name]}"' in build[0] or f"{name}={environment[name]} " in (
            build[0].replace("\\\n", "")
        )


def test_the_image_runs_as_a_user_with_a_number() -> None:
    [user] = re.findall(r"^USER (.+)$", LAST_STAGE, re.MULTILINE)
    assert re.fullmatch(r"[1-9]\d{3,}:\d+", user)


def test_the_base_is_pinned() -> None:
    [base] = re.findall(r"^ARG BASE=(.+)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", base)
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${BASE}"}


def test_every_package_of_the_image_has_a_licence_that_was_reviewed(tmp_path: Path) -> None:
    locks = (ROOT / f"requirements-{name}.lock" for name in ("runtime", "openvino", "heif"))
    text = "".join(lock.read_text("utf-8") for lock in locks)
    names = re.findall(r"^([a-z0-9_.-]+)==", text, re.MULTILINE)
    output = tmp_path / "notices"
    main([str(output), *names])
    text = output.read_text("utf-8")
    assert re.search(r"^onnxruntime \S+\nLicence: MIT", text, re.MULTILINE)
    assert "Weights of folio\nLicence: Apache-2.0" in text


@pytest.mark.parametrize("licence", ["AGPL-3.0-only", "GPL-3.0-or-later OR MIT", "Proprietary", ""])
def test_a_licence_that_was_not_reviewed_stops_the_build(licence: str, tmp_path: Path) -> None:
    package = installed(tmp_path, "other", f"License: {licence}")
    with pytest.raises(UnknownLicence, match=r"^other: its licence is "):
        list(notices([package], []))


def test_a_licence_is_found_wherever_it_is_declared(tmp_path: Path) -> None:
    classifier = "Classifier: License :: OSI Approved :: MIT License"
    assert licence_of(installed(tmp_path, "one", "License-Expression: MIT")) == "MIT"
    assert licence_of(installed(tmp_path, "two", "License: a long text " * 9, classifier)) == (
        "MIT License"
    )


def test_a_model_that_may_not_be_used_commercially_needs_a_word_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("U2NET_HOME", str(tmp_path / "home"))
    (tmp_path / "bria-rmbg.onnx").write_bytes(b"not the release")
    with pytest.raises(InvalidConfig, match="does not allow commercial use"):
        install_models(tmp_path, ["bria-rmbg"], [])
    assert not (tmp_path / "home").exists()
    # Accepted, it is compared with its release as all others are.
    with pytest.raises(ModelChecksumMismatch):
        install_models(tmp_path, ["bria-rmbg"], ["bria-rmbg"])
