"""cluster/ray-up.yaml launches the nodes that it should (`make check-ray-up`)."""

from __future__ import annotations

import itertools
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from jsonschema import ValidationError
from ray.scripts.scripts import start

from ingest.local.aws import LocalAws, use_dummy_credentials
from tests.deployment.ray_up import FILE, Account, account, faults, filled, launched

PAGE = FILE.parents[1] / "docs" / "operations" / "ray-up.md"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    use_dummy_credentials()
    with (
        LocalAws() as server,
        account(server.endpoint_url, tmp_path_factory.mktemp("home")) as made,
    ):
        yield made


def test_ray_launches_the_nodes_that_the_file_describes(
    aws: Account, capsys: pytest.CaptureFixture[str]
) -> None:
    config = filled(aws.variables)
    nodes = launched(config)
    assert faults(config, nodes, aws) == []
    types = sorted({node["InstanceType"] for node in nodes.values()})
    with capsys.disabled():
        print(f"\n{len(nodes)} node types launched: {', '.join(types)}; 0 faults")


def test_mistakes_that_the_nodes_show(aws: Account) -> None:
    images = boto3.client("ec2").describe_images(
        Filters=[{"Name": "architecture", "Values": ["x86_64"]}]
    )
    config = filled(aws.variables)
    spot = config["available_node_types"]["spot"]["node_config"]
    spot["InstanceType"] = "c7i.2xlarge"
    spot["ImageId"] = images["Images"][0]["ImageId"]
    for name in ("IamInstanceProfile", "MetadataOptions", "InstanceMarketOptions"):
        del spot[name]
    config["available_node_types"]["on_demand"]["node_config"] = {
        **config["available_node_types"]["on_demand"]["node_config"],
        "IamInstanceProfile": {"Name": "foreedge-head"},
        "InstanceMarketOptions": {"MarketType": "spot"},
    }
    del config["available_node_types"]["on_demand"]["node_config"]["SecurityGroupIds"]
    found = "\n".join(faults(config, launched(config), aws))
    for fault in (
        "spot: c7i.2xlarge is no Graviton",
        "is not for arm64",
        "spot: its instance profile is none",
        "spot: its metadata answer without a session token",
        "spot: its life cycle is on demand",
        "instance-profile/foreedge-head, not foreedge-worker",
        "on_demand: its life cycle is spot",
        "open to SSH from everywhere",
    ):
        assert fault in found
    assert "head:" not in found


def remove(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda config: config.pop(name)


@pytest.mark.parametrize(
    ("mistake", "fault"),
    [
        (remove("setup_commands"), "setup_commands change the image"),
        (remove("head_setup_commands"), "head_setup_commands change the image: pip install"),
        (remove("worker_start_ray_commands"), "worker_start_ray_commands: the agents' ports"),
        (remove("head_start_ray_commands"), "replicas may run on the head"),
        (remove("file_mounts"), "the nodes do not get the token"),
        (
            lambda config: config["docker"]["run_options"].remove("--env RAY_AUTH_MODE=token"),
            "Ray runs the code of everybody",
        ),
        (
            lambda config: config["provider"].pop("cache_stopped_nodes"),
            "stopped nodes are kept",
        ),
        (lambda config: config["provider"].pop("use_internal_ips"), "nodes have public addresses"),
        (
            lambda config: config["available_node_types"]["head"]["node_config"].pop(
                "IamInstanceProfile"
            ),
            "a role that may do everything in EC2 and S3",
        ),
    ],
)
def test_mistakes_that_the_file_shows(
    aws: Account, mistake: Callable[[dict[str, Any]], object], fault: str
) -> None:
    config = filled(aws.variables)
    mistake(config)
    assert fault in "\n".join(faults(config, {}, aws))


def test_a_misspelt_setting_is_refused(aws: Account) -> None:
    config = filled(aws.variables)
    config["idle_timeout"] = config.pop("idle_timeout_minutes")
    with pytest.raises(ValidationError, match="idle_timeout"):
        launched(config)


def test_ray_knows_the_options_of_its_commands(aws: Account) -> None:
    config = filled(aws.variables)
    commands = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    used = {name for text in commands for name in re.findall(r"--[a-z-]+", text)}
    assert used
    assert used <= {name for parameter in start.params for name in parameter.opts}


def test_each_setting_of_terraform_reaches_the_nodes(aws: Account, tmp_path: Path) -> None:
    outputs = (FILE.parent / "terraform" / "outputs.tf").read_text()
    environment = outputs.partition('output "environment"')[2].partition("\noutput ")[0]
    names = re.findall(r"^ +(FOREEDGE_\w+) +=", environment, flags=re.MULTILINE)
    assert "FOREEDGE_HTTP__API_KEYS_SECRET" in names
    # As aws.md writes Terraform's output.
    (tmp_path / "out").mkdir()
    lines = [f"{name}=arn:aws:x:{number}\n" for number, name in enumerate(names)]
    lines.append('FOREEDGE_HTTP__REQUESTS_PER_MINUTE={"*": 60, "a b": 5}\n')
    text = "".join(["# A comment.\n", "\n", *lines])
    (tmp_path / "out" / "environment.env").write_text(text)
    [line] = re.findall(r"^export SETTINGS=.*$", PAGE.read_text(), flags=re.MULTILINE)
    command = ["bash", "-euc", f'{line}; printf %s "$SETTINGS"']
    settings = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)

    config = filled({**aws.variables, "SETTINGS": settings.stdout})

    # Ray joins the options to one line of a shell.
    words = shlex.split(" ".join(config["docker"]["run_options"]))
    given = [word for option, word in itertools.pairwise(words) if option == "--env"]
    assert [word for word in given if word.startswith("FOREEDGE_")] == [
        line.strip() for line in lines
    ]


@pytest.mark.parametrize("settings", [None, "", "# Nothing yet.\n", "FOREEDGE_AWS__REGION=eu\n"])
def test_nothing_starts_without_settings(tmp_path: Path, settings: str | None) -> None:
    (tmp_path / "out").mkdir()
    if settings is not None:
        (tmp_path / "out" / "environment.env").write_text(settings)
    [line] = re.findall(r"^export SETTINGS=.*$", PAGE.read_text(), flags=re.MULTILINE)
    [start] = re.findall(r"^.*ray up out/ray-up.yaml$", PAGE.read_text(), flags=re.MULTILINE)
    # A stand-in, since the real one would start nodes.
    script = f'ray() {{ echo "started: $*"; }}\n{line}\n{start}\n'
    ended = subprocess.run(["bash", "-uc", script], cwd=tmp_path, capture_output=True, text=True)
    started = settings is not None and settings.startswith("FOREEDGE_")
    assert ended.stdout == ("started: up out/ray-up.yaml\n" if started else "")
    assert (ended.returncode == 0) == started


def test_the_page_names_every_variable() -> None:
    page = PAGE.read_text()
    named = set(re.findall(r"\$\{(\w+)\}", FILE.read_text()))
    assert named == set(re.findall(r"^export (\w+)=", page, flags=re.MULTILINE))
