"""A head and a worker of an overlay on this machine, and what their probes and ports answer.

``python -m tests.deployment.kubernetes.local_cluster FOLDER`` in the namespaces of
``ground.COMMAND`` writes one line of JSON.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import yaml

from ingest.local.aws import use_dummy_credentials
from serve_app.aws import aws_client
from serve_app.config import AwsConfig
from serve_app.serving.ray_environment import ENVIRONMENT
from tests.deployment.kubernetes.application import variables_of
from tests.deployment.kubernetes.kuberay import ray_start
from tests.deployment.kubernetes.local_pods import LocalPod, LocalPods
from tests.deployment.kubernetes.objects import (
    FOLDER,
    ROOT,
    Group,
    Object,
    cluster_of,
    groups_of,
    quantity,
    ray_service,
    render,
)
from tests.deployment.kubernetes.pods import shared_memory

AWS, HEAD, WORKER = "10.77.0.9", "10.77.0.2", "10.77.0.3"
JOBS = 60
_TOKEN = "a" * 64
_QUEUE = f"http://{AWS}:5000/123456789012/foreedge"
_WAIT_S = 120.0
_IMAGE = ROOT / "ingest" / "local" / "real_photographs" / "cat.jpg"
_BIN = Path(sys.executable).parent


class LocalCluster:
    """A cluster that runs, and what was seen of it."""

    def __init__(self, folder: Path) -> None:
        self.seen: dict[str, Any] = {}
        self._pods = LocalPods(folder)
        service = ray_service(objects := render(FOLDER / "overlays" / "on-demand"))
        # The weights of other models may not be on this machine.
        config = service["spec"]["serveConfigV2"].replace("[u2netp]", "[folio]")
        self._config = yaml.safe_load(config)
        self._head, self._worker = groups_of(cluster_of(service))
        self._environment = {
            **ENVIRONMENT,
            **variables_of(objects),
            "PATH": f"{_BIN}:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(ROOT),
            "USER": "foreedge",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": _TOKEN,
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "FOREEDGE_AWS__REGION": "us-east-1",
            "FOREEDGE_AWS__ENDPOINT_URL": f"http://{AWS}:5000",
            "FOREEDGE_QUEUE__URL": _QUEUE,
        }
        aws = AwsConfig(endpoint_url=f"http://{AWS}:5000")
        self._sqs, self._s3 = aws_client("sqs", aws), aws_client("s3", aws)

    def run(self) -> None:
        """Start everything, look at it, and stop the worker while jobs run."""
        command = [str(_BIN / "python"), "-m", "moto.server", "-H", "0.0.0.0", "-p", "5000"]
        aws = self._pods.start("aws", AWS, command, self._environment, 2**26)
        self._until(aws, lambda: _status(f"http://{AWS}:5000/moto-api/") == 200)
        self._s3.create_bucket(Bucket="shelf")
        self._sqs.create_queue(QueueName="foreedge")
        head = self._start(self._head, HEAD, {"dashboard-host": "0.0.0.0", "no-monitor": "true"})
        self._until(head, lambda: _status(f"http://{HEAD}:52365/api/healthz") == 200)
        worker = self._start(self._worker, WORKER, {"address": f"{HEAD}:6379"})
        self._until(worker, lambda: _status(f"http://{WORKER}:52365/api/healthz") == 200)
        self.seen["worker without a replica"] = _status(f"http://{WORKER}:8000/readyz")
        self._deploy()
        self._until(worker, lambda: _status(f"http://{WORKER}:8000/readyz") == 200)
        self._look()
        self._send()
        self._until(worker, lambda: self._in_flight() > 0 and self._results() > 0)
        self.seen["worker ended"] = worker.stop(_grace_s(self._worker))
        self.seen["in flight"] = self._in_flight()
        self.seen["left"] = self._visible()
        self.seen["results"] = self._results()
        self.seen["healthz without a worker"] = _status(f"http://{HEAD}:8000/-/healthz")
        self.seen["readyz without a worker"] = _status(f"http://{HEAD}:8000/readyz")

    def _start(self, group: Group, address: str, added: Object) -> LocalPod:
        """Start a pod with the command that KubeRay makes."""
        memory = quantity(group.container["resources"]["limits"]["memory"])
        start = {**group.start, **added, "memory": str(int(memory)), "block": "true"}
        made = Group(group.name, {**group.spec, "rayStartParams": start}, group.is_head)
        ray = f"ulimit -n 65536; ray start {shlex.join(ray_start(made))}"
        own = {name: str(one["value"]) for name, one in group.environment.items()}
        size = shared_memory(group.pod)
        assert size is not None
        return self._pods.start(
            group.name,
            address,
            ["/bin/bash", "-c", "--", ray],
            {**self._environment, **own, "RAY_ADDRESS": f"{HEAD}:6379"},
            int(size),
        )

    def _deploy(self) -> None:
        """Send the Serve file to the dashboard, as KubeRay does."""
        url = f"http://{HEAD}:8265/api/serve/applications/"
        self.seen["dashboard without the token"] = _status(url)
        headers = {"Authorization": f"Bearer {_TOKEN}"}
        httpx.put(url, json=self._config, headers=headers, timeout=60).raise_for_status()

    def _look(self) -> None:
        self.seen["metrics of Ray"] = _status(f"http://{WORKER}:8080/metrics")
        self.seen["metrics of HAProxy"] = _status(f"http://{WORKER}:9101/metrics")
        url = f"http://{WORKER}:8000/v1/cutout"
        headers = {"content-type": "image/jpeg"}
        answer = httpx.post(url, content=_IMAGE.read_bytes(), headers=headers, timeout=60)
        self.seen["cut-out"] = answer.status_code

    def _send(self) -> None:
        self._s3.upload_file(str(_IMAGE), "shelf", "cat.jpg")
        for number in range(JOBS):
            body = {
                "source": {"bucket": "shelf", "key": "cat.jpg"},
                "output": {"bucket": "shelf", "prefix": f"results/{number}/"},
            }
            self._sqs.send_message(QueueUrl=_QUEUE, MessageBody=json.dumps(body))

    def _in_flight(self) -> int:
        return self._count("ApproximateNumberOfMessagesNotVisible")

    def _visible(self) -> int:
        return self._count("ApproximateNumberOfMessages")

    def _count(self, name: str) -> int:
        answer = self._sqs.get_queue_attributes(QueueUrl=_QUEUE, AttributeNames=[name])
        return int(answer["Attributes"][name])

    def _results(self) -> int:
        answer = self._s3.list_objects_v2(Bucket="shelf", Prefix="results/")
        return sum(one["Key"].endswith(".png") for one in answer.get("Contents", []))

    def _until(self, pod: LocalPod, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _WAIT_S
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the pod printed: {pod.log[-2000:]}")
            time.sleep(0.5)


def _status(url: str) -> int | None:
    """Return the status of an answer, or None if there is none."""
    try:
        return httpx.get(url, timeout=20).status_code
    except httpx.TransportError:
        return None


def _grace_s(group: Group) -> float:
    return float(group.pod["terminationGracePeriodSeconds"])


if __name__ == "__main__":
    use_dummy_credentials()
    cluster = LocalCluster(Path(sys.argv[1]))
    cluster.run()
    print(json.dumps(cluster.seen))
