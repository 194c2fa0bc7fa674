"""What the documents say, held against the code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from serve_app.config import AppConfig
from serve_app.contracts.recipe import PRESETS, Recipe
from serve_app.errors import BY_CODE
from serve_app.models.facts import MODEL_FACTS
from serve_app.serving.ray_environment import ENVIRONMENT

ROOT = Path(__file__).parents[2]


def tracked(*patterns: str) -> list[str]:
    """Return the files of the repository that match."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in found.split("\0") if name and (ROOT / name).exists())


PAGES = tracked("*.md")
CODE = tracked("serve_app/*.py", "ingest/*.py", "loadtests/*.py", "cluster/*.yaml", "cluster/*.tf")


def text(page: str) -> str:
    """Return a page."""
    return (ROOT / page).read_text("utf-8")


def test_every_error_code_is_explained_with_its_status() -> None:
    rows = dict(
        re.findall(r"^\| `(\w+)` \| (\d{3}) \| .+ \|$", text("docs/errors.md"), re.MULTILINE)
    )
    assert {code: int(status) for code, status in rows.items()} == {
        code: error.http_status for code, error in BY_CODE.items()
    }


def test_every_recipe_field_preset_and_model_is_named() -> None:
    names = set(re.findall(r"`(\w[\w-]*)`", text("docs/recipes.md")))
    assert set(Recipe.model_fields) - names == set()
    assert set(PRESETS) - names == set()
    assert set(MODEL_FACTS) - names == set()


def test_nothing_promises_what_was_never_run_on() -> None:
    # The changelog says what was removed.
    for name in [*PAGES, *CODE]:
        if name != "CHANGELOG.md":
            assert not re.search(r"\b(GPUs?|CUDA\w*)\b", text(name)), name


def test_the_serve_file_is_a_valid_configuration() -> None:
    [block] = re.findall(r"```yaml\n(.*?)```", text("README.md"), re.DOTALL)
    [application] = yaml.safe_load(block)["applications"]
    assert application["import_path"] == "serve_app.app:build"
    config = AppConfig.load(application["args"])
    assert config.models == ("u2net", "isnet-general-use")


def test_the_ratios_of_the_readme_are_those_of_the_last_comparison() -> None:
    pattern = r"<!-- peers-[a-z0-9-]+?(-avx512_bf16|): begin -->.*?^- foreedge-http is ([\d.]+) x"
    tables = re.findall(pattern, text("docs/performance.md"), re.M | re.S)
    rows = [ratio for suffix, ratio in tables if not suffix]
    assert (
        re.findall(r"([\d.]+) times(?: the images/s of `rembg s`| with)", text("README.md")) == rows
    )
    # Of the processor of AMD it has what bfloat16 gains.
    [_, bfloat16] = [ratio for suffix, ratio in tables if suffix]
    assert f"Zen 4: {bfloat16} times" in text("README.md")


def test_what_a_cluster_must_set_is_in_the_manual() -> None:
    manual = text("docs/operations/deploy.md")
    # The binary of HAProxy is for Linux only. The last variable is for the operator to choose.
    values = {**ENVIRONMENT, "RAY_SERVE_ENABLE_HA_PROXY": "1"}
    assert [name for name, value in values.items() if f"{name}={value}`" not in manual] == []


@pytest.mark.parametrize("page", ["kubernetes", "ray-up"])
def test_an_environment_of_the_manual_closes_the_endpoint(page: str) -> None:
    written = re.findall(
        r"^cat > (?:out/)?environment.env <<'END'\n(.*?)^END$",
        text(f"docs/operations/{page}.md"),
        re.DOTALL | re.MULTILINE,
    )
    assert ["FOREEDGE_HTTP__API_KEYS_SECRET=" in file for file in written] == [True]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    wrong = []
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", text(page)):
        path, _, anchor = target.partition("#")
        document = (ROOT / page).parent / path if path else ROOT / page
        if not document.exists() or (anchor and anchor not in anchors(document)):
            wrong.append(target)
    assert wrong == []


def anchors(document: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    folders = (ROOT, (ROOT / page).parent)
    named = re.findall(r"`([\w.-]+/[\w./-]+\.(?:py|md|yaml|json))`", text(page))
    ours = [name for name in named if not name.startswith("out/")]
    assert [name for name in ours if not any((at / name).exists() for at in folders)] == []


@pytest.mark.parametrize("path", CODE)
def test_documents_that_the_code_cites_exist(path: str) -> None:
    cited = set(re.findall(r"docs/[\w./-]+\.md", text(path)))
    decisions = set(re.findall(r"docs/decisions/(\d{4})\b", text(path)))
    assert [name for name in cited if not (ROOT / name).exists()] == []
    assert [
        number for number in decisions if not list(ROOT.glob(f"docs/decisions/{number}-*.md"))
    ] == []


def test_every_decision_is_in_the_index_in_the_form_of_the_template() -> None:
    folder = ROOT / "docs/decisions"
    rows = re.findall(
        r"^\| \[(\d{4})\]\(([\w.-]+)\) \| (.+) \| (.+) \|$", text("docs/decisions/README.md"), re.M
    )
    records = sorted(path.name for path in folder.glob("0*.md"))
    assert [name for _, name, _, _ in rows] == records
    for number, name, title, status in rows:
        record = (folder / name).read_text("utf-8")
        assert record.startswith(f"# {number}: {title}\n\nStatus: {status.split(' by ')[0]}"), name
        sections = re.findall(r"^## (.+)$", record, re.MULTILINE)
        assert sections == ["Context", "Decision", "Numbers", "Consequences"], name
