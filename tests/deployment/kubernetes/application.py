"""The application of a Serve file: whether it starts, and what its replicas need."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError
from ray import serve
from ray.serve._private.build_app import build_app
from ray.serve._private.constants import DEFAULT_GRACEFUL_SHUTDOWN_TIMEOUT_S
from ray.serve.deployment import deployment_to_schema
from ray.serve.schema import ServeDeploySchema

from serve_app.app import build
from serve_app.config import AppConfig
from serve_app.config.names import PREFIX
from serve_app.errors import InvalidConfig
from tests.deployment.kubernetes.objects import (
    Object,
    cluster_of,
    groups_of,
    of_kind,
    ray_service,
)

_IMPORT_PATH = "serve_app.app:build"
_PORT = 8000
_MB = 1_000_000
_PROCESS_BYTES = 350 * _MB
"""Memory of a replica before its first image, of either kind (docs/performance.md, "Does memory
grow?": Segmenter 259 MB with its model)."""
_MATTING_BYTES = 2_000 * _MB
"""Memory of an image that is matted (``pipeline.matting_threads``)."""


@dataclass(frozen=True)
class Deployment:
    """The replicas of one deployment.

    Attributes:
        name: Name of the deployment.
        num_cpus: CPUs that Ray reserves for a replica.
        least: Number of replicas with which it starts.
        most: Largest number of replicas.
        stop_s: Time, in seconds, that Serve gives a replica to stop.
        memory_bytes: Memory, in bytes, that a replica takes at most.
    """

    name: str
    num_cpus: float
    least: int
    most: int
    stop_s: float
    memory_bytes: int


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set the settings in the environment to those of a pod, and nothing else."""
    before = {name: text for name, text in os.environ.items() if name.startswith(PREFIX)}
    for name in before:
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)
        os.environ.update(before)


def variables_of(objects: Sequence[Object]) -> dict[str, str]:
    """Return the variables that the pods of the workers get from ConfigMaps."""
    maps = {one["metadata"]["name"]: one.get("data", {}) for one in of_kind(objects, "ConfigMap")}
    found: dict[str, str] = {}
    for group in groups_of(cluster_of(ray_service(objects))):
        for source in group.container.get("envFrom", []):
            found.update(maps.get(source.get("configMapRef", {}).get("name"), {}))
    return found


def application_faults(text: str, variables: Mapping[str, str]) -> Iterator[str]:
    """Yield why Serve or the application would refuse a Serve file.

    Args:
        text: Content of the file.
        variables: Settings in the environment of the nodes.
    """
    content = yaml.safe_load(text)
    try:
        schema = ServeDeploySchema(**content)
    except (ValidationError, ValueError, TypeError) as error:
        yield f"Serve refuses it: {error}"
        return
    for application in schema.applications:
        if application.import_path != _IMPORT_PATH:
            yield f"its import path is {application.import_path}, not {_IMPORT_PATH}"
            continue
        try:
            with environment(variables):
                build(dict(application.args))
        except InvalidConfig as error:
            yield f"the application refuses it: {error.message}"


def serving_faults(objects: Sequence[Object]) -> Iterator[str]:
    """Yield what in the Serve file of a RayService does not go with its pods."""
    service = ray_service(objects)
    content: dict[str, Any] = yaml.safe_load(service["spec"].get("serveConfigV2") or "{}")
    if content.get("proxy_location", "EveryNode") != "EveryNode":
        yield "proxy_location is not EveryNode: no worker would become ready"
    options = content.get("http_options", {})
    if options.get("host") != "0.0.0.0":
        yield "http_options.host is not 0.0.0.0: nobody outside of the pod reaches it"
    for group in groups_of(cluster_of(service)):
        ports = {one.get("name"): one["containerPort"] for one in group.container.get("ports", [])}
        if ports.get("serve") != options.get("port", _PORT):
            yield f"{group.name}: the port serve is {ports.get('serve')}, not {options.get('port')}"


def deployments(text: str, variables: Mapping[str, str]) -> tuple[AppConfig, list[Deployment]]:
    """Return the settings of a Serve file, and what its replicas need.

    Args:
        text: Content of the file, with one application.
        variables: Settings in the environment of the nodes.

    Raises:
        InvalidConfig: A setting is invalid.
    """
    [application] = yaml.safe_load(text)["applications"]
    with environment(variables):
        config = AppConfig.load(application["args"])
        built = build_app(build(application["args"]), name=application["name"])
    return config, [_described(one, config) for one in built.deployments]


def _described(deployment: serve.Deployment, config: AppConfig) -> Deployment:
    options = deployment_to_schema(deployment).model_dump(exclude_unset=True)
    scaling, fixed = options.get("autoscaling_config"), options.get("num_replicas", 1)
    return Deployment(
        name=deployment.name,
        num_cpus=options["ray_actor_options"]["num_cpus"],
        least=scaling["min_replicas"] if scaling else fixed,
        most=scaling["max_replicas"] if scaling else fixed,
        stop_s=options.get("graceful_shutdown_timeout_s", DEFAULT_GRACEFUL_SHUTDOWN_TIMEOUT_S),
        memory_bytes=_memory_bytes(deployment.name, config),
    )


def _memory_bytes(name: str, config: AppConfig) -> int:
    if name == "CutoutPipeline":
        matting = config.pipeline.matting_threads * _MATTING_BYTES
        return _PROCESS_BYTES + config.pipeline.max_decoded_bytes + matting
    if name == "HttpApi":
        return _PROCESS_BYTES + config.http.max_buffered_bytes
    return _PROCESS_BYTES
