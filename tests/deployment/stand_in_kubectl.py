"""A stand-in for kubectl, for the API server and for KubeRay: `python -I -S` runs this file.

It keeps its state in the JSON file that the environment variable STAND_IN_KUBECTL names. A test
writes the faults of images into it. Each look at the RayService is one step of KubeRay, so that the
first look after a change shows the status before.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, BinaryIO

_LABEL = "app.kubernetes.io/version"
_RESULT = b"\x89PNG\r\n\x1a\n"


class Refused(Exception):
    """The call fails, as kubectl says it."""


class Cluster:
    """The state: what was applied, and what KubeRay made of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.state: dict[str, Any] = json.loads(path.read_text())

    def save(self) -> None:
        """Write the state."""
        self._path.write_text(json.dumps(self.state))

    def fault(self, image: str) -> str:
        """Return the fault of an image, or an empty text."""
        return str(self.state["faults"].get(image, ""))

    def apply(self, manifest: dict[str, Any]) -> None:
        """Apply a RayService."""
        if self.fault(image_of(manifest)) == "apply":
            raise Refused('admission webhook "vrayservice.kb.io" denied the request')
        if manifest != self.state["manifest"]:
            self.state["manifest"] = manifest
            self.state["generation"] += 1

    def reconcile(self) -> None:
        """Do one step of KubeRay."""
        state = self.state
        if state["observed"] != state["generation"]:
            state["observed"] = state["generation"]
            state["pending"] = {
                "name": f"foreedge-{state['generation']}",
                "image": image_of(state["manifest"]),
                "revision": state["manifest"]["metadata"]["labels"][_LABEL],
            }
        elif state["pending"] and self.fault(state["pending"]["image"]) != "never ready":
            state["active"], state["pending"] = state["pending"], None

    def service(self) -> dict[str, Any]:
        """Return the RayService with the status that KubeRay has written."""
        state = self.state
        if state["manifest"] is None:
            raise Refused('rayservices.ray.io "foreedge" not found')
        active, pending = state["active"], state["pending"]
        ready = {"type": "Ready", "status": str(active is not None), "message": "no endpoints"}
        upgrade = {"type": "UpgradeInProgress", "status": str(bool(active and pending))}
        status = {
            "observedGeneration": state["observed"],
            "conditions": [ready, upgrade],
            "activeServiceStatus": self._service_status(active),
            "pendingServiceStatus": self._service_status(pending),
        }
        manifest: dict[str, Any] = json.loads(json.dumps(state["manifest"]))
        manifest["metadata"]["generation"] = state["generation"]
        return manifest | {"status": status}

    def _service_status(self, cluster: dict[str, Any] | None) -> dict[str, Any]:
        if cluster is None:
            return {}
        application = {"status": "RUNNING", "message": ""}
        if self.fault(cluster["image"]) in ("never ready", "application"):
            application = {"status": "DEPLOY_FAILED", "message": "invalid_config: queue.url"}
        return {
            "rayClusterName": cluster["name"],
            "applicationStatuses": {"foreedge": application},
        }


def image_of(manifest: dict[str, Any]) -> str:
    """Return the image of a RayService."""
    head = manifest["spec"]["rayClusterConfig"]["headGroupSpec"]
    return str(head["template"]["spec"]["containers"][0]["image"])


def render(folder: Path) -> dict[str, Any]:
    """Return the RayService of a kustomization, as far as a deployment depends on it."""
    kustomization = json.loads((folder / "kustomization.yaml").read_text())
    [base] = kustomization["resources"]
    if not (folder / base / "kustomization.yaml").is_file():
        raise Refused(f"{base} is no folder with a kustomization")
    [image], [labels] = kustomization["images"], kustomization["labels"]
    return ray_service(f"{image['newName']}@{image['digest']}", labels["pairs"])


def ray_service(image: str, labels: dict[str, str]) -> dict[str, Any]:
    """Return a RayService, as far as a deployment depends on it."""
    head = {"template": {"spec": {"containers": [{"image": image}]}}}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "foreedge", "labels": labels},
        "spec": {"rayClusterConfig": {"headGroupSpec": head}},
    }


def get(cluster: Cluster, kind: str, arguments: list[str]) -> str:
    """Return what ``kubectl get`` prints."""
    state = cluster.state
    if "--ignore-not-found" in arguments:
        return "rayservice.ray.io/foreedge" if state["manifest"] else ""
    if state["busy"] > 0:
        state["busy"] -= 1
        raise Refused("the server is currently unable to handle the request")
    if kind == "rayservice":
        found = cluster.service()
        cluster.reconcile()
    elif kind == "raycluster":
        head = {"template": {"spec": {"containers": [{"image": state["active"]["image"]}]}}}
        found = {"spec": {"headGroupSpec": head}}
    elif kind == "pods":
        ready = cluster.fault(state["active"]["image"]) != "worker"
        [selector] = [each for each in arguments if each.startswith("ray.io/cluster=")]
        name = selector.partition("=")[2].partition(",")[0]
        condition = {"type": "Ready", "status": str(ready)}
        pod = {"metadata": {"name": f"{name}-worker"}, "status": {"conditions": [condition]}}
        found = {"items": [pod]}
    else:
        raise Refused(f"the server has no resource {kind}")
    return json.dumps(found)


def smoke_log(cluster: Cluster) -> str:
    """Return what the init container of a worker has printed."""
    if "smoke_log" in cluster.state:
        return str(cluster.state["smoke_log"])
    active = cluster.state["active"]
    fault = cluster.fault(active["image"])
    if fault == "no smoke":
        return "exec /opt/foreedge/bin/foreedge: exec format error"
    reason = "model_unavailable: u2netp" if fault == "smoke" else None
    revision = "unknown" if fault == "smoke of another revision" else active["revision"]
    report = {"ok": reason is None, "reason": reason, "revision": revision}
    return f"a line of a library\n{json.dumps(report)}\n"


def serve(active: dict[str, Any], fault: str, api_key: str | None) -> None:
    """Forward a port to an endpoint that does what the image does, until it is terminated."""
    done = 0 if fault in ("queue", "a long queue") else 1
    answers: dict[str, tuple[int, Any]] = {
        "/healthz": (200, {"revision": "old" if fault == "traffic" else active["revision"]}),
        "/v1/cutout": (200, _RESULT + active["image"].encode()),
        "/v1/jobs": (202, {"queued": 1, "run_id": "named"}),
        "/v1/jobs/named": (200, {"codes": {}, "counts": {"done": done}}),
        "/readyz": (
            200,
            {"ingest": {"healthy": True, "reason": None, "done": 0, "deleted": 0}},
        ),
    }
    faulty: dict[str, dict[str, tuple[int, Any]]] = {
        "http": {"/v1/cutout": (500, {"code": "internal_error"})},
        "no PNG": {"/v1/cutout": (200, b"<html>")},
        "busy": {"/v1/cutout": (503, {"code": "overloaded"})},
        "job refused": {"/v1/jobs": (400, {"code": "source_not_allowed"})},
        "job failed": {"/v1/jobs/named": (200, {"codes": {"source_forbidden": 1}, "counts": {}})},
        "a long queue": {
            "/readyz": (200, {"ingest": {"healthy": True, "done": 70, "deleted": 70}})
        },
    }
    answers |= faulty.get(fault, {})

    # http.server takes longer to import than everything else here.
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(f"Forwarding from 127.0.0.1:{server.getsockname()[1]} -> 8000", flush=True)
        while True:
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as request:
                path = request.readline().split()[1].decode().partition("?")[0]
                headers = read_headers(request)
                request.read(int(headers.get("content-length", 0)))
                # A run that the application has not named is unknown until it has a result.
                status, content = answers.get(path, (404, {"code": "source_not_found"}))
                if api_key and path != "/healthz" and headers.get("x-api-key") != api_key:
                    status, content = 401, {"code": "unauthenticated"}
                body = content if isinstance(content, bytes) else json.dumps(content).encode()
                head = f"HTTP/1.1 {status} -\r\ncontent-length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)


def read_headers(request: BinaryIO) -> dict[str, str]:
    """Return the headers of a request, by their names in small letters."""
    headers = {}
    while line := request.readline().decode().strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return headers


def relay(address: str) -> None:
    """Forward a port to a running application, until terminated."""
    import asyncio

    host, _, port = address.rpartition(":")

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(host, int(port))
        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer))

    async def forward() -> None:
        server = await asyncio.start_server(connect, "127.0.0.1", 0)
        here = server.sockets[0].getsockname()[1]
        print(f"Forwarding from 127.0.0.1:{here} -> 8000", flush=True)
        await server.serve_forever()

    asyncio.run(forward())


def run(cluster: Cluster, verb: str, arguments: list[str]) -> str:
    """Return what a call prints."""
    if verb == "apply" and arguments[0] == "--kustomize":
        cluster.apply(render(Path(arguments[1])))
    elif verb == "apply" and arguments[0] == "--filename":
        cluster.apply(json.load(sys.stdin))
    elif verb == "apply":
        return json.dumps(cluster.state["manifest"])
    elif verb == "get":
        return get(cluster, arguments[0], arguments[1:])
    elif verb == "logs":
        return smoke_log(cluster)
    else:
        raise Refused(f'unknown command "{verb}"')
    return ""


def main() -> int:
    """Return the exit code."""
    assert sys.argv[1] == "--namespace", sys.argv
    verb, *arguments = sys.argv[3:]
    cluster = Cluster(Path(os.environ["STAND_IN_KUBECTL"]))
    cluster.state["calls"].append([verb, *arguments])
    if verb == "port-forward":
        cluster.save()
        active = cluster.state["active"]
        if "application" in cluster.state:
            relay(cluster.state["application"])
        fault = cluster.fault(active["image"])
        if fault == "no forwarding":
            print("error: unable to forward port because pod is not running", file=sys.stderr)
            return 1
        serve(active, fault, cluster.state.get("api_key"))
    try:
        printed = run(cluster, verb, arguments)
    except Refused as error:
        print(f"Error from server: {error}", file=sys.stderr)
        return 1
    finally:
        cluster.save()
    print(printed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
