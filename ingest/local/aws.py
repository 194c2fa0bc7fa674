"""A local SQS and S3 with the real protocols, in a process of their own."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Self

from ingest.local.ports import answers, free_port
from ingest.local.processes import die_with_parent, without_preemption
from serve_app.aws import aws_client
from serve_app.config import AwsConfig
from serve_app.errors import DeadlineExceeded, InvalidConfig

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 5.0
_MAX_RECEIVES = 5
_VISIBILITY_TIMEOUT_S = 120


class LocalAws:
    """A context manager that runs moto's server: SQS and S3 in memory."""

    def __init__(self) -> None:
        self.endpoint_url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the server and wait until it answers.

        Raises:
            InvalidConfig: moto is not installed, or its server did not start.
            DeadlineExceeded: The server did not answer within a minute.
        """
        port = free_port()
        self.endpoint_url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with without_preemption():
            self._process = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # In its own group, so that Ctrl-C reaches only this process, which ends the server.
                start_new_session=True,
                preexec_fn=_prepare_server,
            )
        try:
            self._wait(self._process)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the server."""
        self.close()

    def close(self) -> None:
        """End the server, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def create_bucket(self, name: str) -> None:
        """Create a bucket."""
        aws_client("s3", self.aws).create_bucket(Bucket=name)

    def create_queue(self, name: str) -> str:
        """Create a queue with a dead-letter queue, and return its URL."""
        client = aws_client("sqs", self.aws)
        dead = client.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
        names = ["QueueArn"]
        found = client.get_queue_attributes(QueueUrl=dead, AttributeNames=names)["Attributes"]
        policy = (
            f'{{"deadLetterTargetArn": "{found["QueueArn"]}", "maxReceiveCount": {_MAX_RECEIVES}}}'
        )
        attributes = {"RedrivePolicy": policy, "VisibilityTimeout": str(_VISIBILITY_TIMEOUT_S)}
        answer = client.create_queue(QueueName=name, Attributes=attributes)
        url: str = answer["QueueUrl"]
        return url

    @property
    def aws(self) -> AwsConfig:
        """The settings with which clients reach the server."""
        return AwsConfig(endpoint_url=self.endpoint_url)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not answers(f"{self.endpoint_url}/moto-api/"):
            if process.poll() is not None:
                raise InvalidConfig(
                    "the local SQS and S3 (moto) did not start. Install it in the clone of "
                    "Foreedge with: pip install -e '.[demo]'"
                )
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    f"the local SQS and S3 did not answer on {self.endpoint_url} within "
                    f"{_START_TIMEOUT_S:.0f} s"
                )
            time.sleep(0.1)


def _prepare_server() -> None:
    """Prepare the new process. It holds a file open for each object of more than 5 MB."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS says that there is no limit, and takes no more than its own constant.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if sys.platform == "linux":
        die_with_parent()


def use_dummy_credentials() -> None:
    """Give this process and its children credentials for a local server.

    boto3 signs every request and needs some credentials. Existing ones are not replaced.
    """
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "local")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "local")
    for name in ("NO_PROXY", "no_proxy"):
        hosts = os.environ.get(name)
        os.environ[name] = f"{hosts},127.0.0.1" if hosts else "127.0.0.1"
