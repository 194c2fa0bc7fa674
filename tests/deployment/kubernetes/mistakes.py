"""Overlays with a mistake in one place."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

from tests.deployment.kubernetes.objects import FOLDER, Object, of_kind, render

REMOVED = object()
"""Stands for a value that is taken out."""
RAY = ("RayService", "foreedge")
_PLACES = {
    "HEAD": "spec/rayClusterConfig/headGroupSpec",
    "WORKER": "spec/rayClusterConfig/workerGroupSpecs/0",
    "SPOT": "spec/rayClusterConfig/workerGroupSpecs/1",
    "CLUSTER": "spec/rayClusterConfig",
    "CONTAINER": "template/spec/containers/0",
    "POD": "template/spec",
}
"""What stands for the beginning of a path."""


@cache
def rendered(overlay: str) -> list[Object]:
    """Return the objects of an overlay. They must not be changed."""
    return render(FOLDER / "overlays" / overlay)


def with_mistake(
    kind: str, name: str, path: str, value: Any, overlay: str = "spot"
) -> list[Object]:
    """Return the objects of an overlay with another value in one place.

    Args:
        kind: Kind of the object.
        name: Name of the object.
        path: Place in it, such as ``spec/list/0/name``. ``-`` appends to a list, and ``~`` stands
            for a slash.
        value: The value. ``REMOVED`` takes out what is there.
        overlay: Name of the overlay.
    """
    objects = deepcopy(rendered(overlay))
    # The name of a ConfigMap ends with a hash.
    [place] = [one for one in of_kind(objects, kind) if one["metadata"]["name"].startswith(name)]
    parts = [part for word in path.split("/") for part in _PLACES.get(word, word).split("/")]
    _change(place, [part.replace("~", "/") for part in parts], value)
    return objects


def _change(place: Any, path: list[str], value: Any) -> None:
    for part in path[:-1]:
        place = place[int(part)] if isinstance(place, list) else place[part]
    leaf = path[-1]
    if leaf == "-":
        place.append(value)
    elif value is REMOVED:
        del place[int(leaf) if isinstance(place, list) else leaf]
    else:
        place[int(leaf) if isinstance(place, list) else leaf] = value
