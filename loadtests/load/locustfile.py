"""Load on a running application, or on a ``rembg s``, with locust.

``make loadtest`` opens locust's web page, and runs without it if ``ARGS=--headless`` is given. Both
write CSV files and an HTML report into ``out/bench/locust``. ``locust --help`` lists the options of
this file under "foreedge": the system to load (``--system``), the kind of load (``--load``), the
images.
"""

from __future__ import annotations

import itertools
import json
import time
import uuid
from typing import Any

from locust import FastHttpUser, LoadTestShape, User, constant, events, task

from ingest.local.aws import use_dummy_credentials
from loadtests.harness.corpus import IMAGES_OF_A_SET, corpus
from loadtests.load.shapes import LOAD_KINDS, UserCurve
from serve_app.aws import aws_client
from serve_app.config import AwsConfig

_TIMEOUT_S = 120.0
_POLL_S = 0.1

_numbers = itertools.count()
_images: list[bytes] = []


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: Any) -> None:
    """Add the options of this file to locust's."""
    group = parser.add_argument_group("foreedge")
    add = group.add_argument
    add("--system", choices=list(USERS), default="http", help="System to load")
    add("--load", choices=list(LOAD_KINDS), default="constant", help="Number of users over time")
    add("--peak", type=int, default=8, help="Largest number of users")
    add("--duration", type=float, default=60.0, help="Duration of the whole load, in seconds")
    add("--photographs", default="1600x1200", help="Set of loadtests.harness.corpus, or a folder")
    add("--query", default="", help="http: recipe, e.g. min_subject_px=0&format=webp")
    add("--queue-url", default="", help="queue: URL of the SQS queue")
    add("--bucket", default="", help="queue: bucket of the images and the results")
    add("--endpoint-url", default="", help="queue: URL of a local SQS and S3")
    add("--rembg-model", default="u2netp", help="rembg: name of the model")
    add("--rembg-extras", default="", help="rembg: extras, as JSON")


@events.init.add_listener  # type: ignore[untyped-decorator]
def prepare(environment: Any, **_: Any) -> None:
    """Keep only the users of the chosen system, and read the images."""
    options = environment.parsed_options
    environment.user_classes = [USERS[options.system]]
    _images[:] = [path.read_bytes() for path in corpus(options.photographs, IMAGES_OF_A_SET)]


def _next_image() -> tuple[int, bytes]:
    number = next(_numbers)
    return number, _images[number % len(_images)]


class HttpUser(FastHttpUser):  # type: ignore[misc]
    """A client of ``/v1/cutout`` that posts an image as soon as its last one is answered."""

    wait_time = constant(0)
    connection_timeout = 10.0
    network_timeout = _TIMEOUT_S

    @task  # type: ignore[untyped-decorator]
    def cut_out(self) -> None:
        """Post one image."""
        _, data = _next_image()
        query = self.environment.parsed_options.query
        headers = {"Content-Type": "image/jpeg"}
        self.client.post(f"/v1/cutout?{query}", data=data, headers=headers, name="/v1/cutout")


class RembgUser(FastHttpUser):  # type: ignore[misc]
    """A client of ``rembg s`` that posts an image as soon as its last one is answered."""

    wait_time = constant(0)
    connection_timeout = 10.0
    network_timeout = _TIMEOUT_S

    @task  # type: ignore[untyped-decorator]
    def remove(self) -> None:
        """Post one image."""
        options = self.environment.parsed_options
        _, data = _next_image()
        params = {"extras": options.rembg_extras} if options.rembg_extras else None
        self.client.post(
            "/api/remove",
            params=params,
            data={"model": options.rembg_model},
            files={"file": ("image.jpg", data, "image/jpeg")},
            name="/api/remove",
        )


class QueueUser(User):  # type: ignore[misc]
    """A client of the queue. Its requests last from a message until the result."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Open the queue and the bucket."""
        use_dummy_credentials()
        options = self.environment.parsed_options
        aws = AwsConfig(endpoint_url=options.endpoint_url or None)
        self._sqs, self._s3 = aws_client("sqs", aws), aws_client("s3", aws)
        self._queue_url, self._bucket = options.queue_url, options.bucket
        self._prefix = f"loadtests/{uuid.uuid4().hex}/"
        self._uploaded: set[str] = set()

    @task  # type: ignore[untyped-decorator]
    def job(self) -> None:
        """Send one job, and wait for its result."""
        number, data = _next_image()
        key = f"{self._prefix}in/{number % len(_images)}.jpg"
        if key not in self._uploaded:
            self._s3.put_object(Bucket=self._bucket, Key=key, Body=data)
            self._uploaded.add(key)
        output = f"{self._prefix}out/{number}/"
        body = {
            "job_id": f"{number}-{uuid.uuid4().hex[:8]}",
            "run_id": "loadtest",
            "source": {"bucket": self._bucket, "key": key},
            "output": {"bucket": self._bucket, "prefix": output},
            "recipe": {"checks": {"min_subject_px": 0}},
        }
        started_at = time.perf_counter()
        error: Exception | None = None
        size = 0
        try:
            self._sqs.send_message(QueueUrl=self._queue_url, MessageBody=json.dumps(body))
            size = self._wait_for_result(output)
        except Exception as raised:  # noqa: BLE001 - locust counts it as a failed request
            error = raised
        self.environment.events.request.fire(
            request_type="SQS",
            name="queue to result",
            response_time=(time.perf_counter() - started_at) * 1000,
            response_length=size,
            exception=error,
            context={},
        )

    def _wait_for_result(self, prefix: str) -> int:
        """Return the size in bytes of the object that appears under a prefix."""
        deadline = time.monotonic() + _TIMEOUT_S
        while time.monotonic() < deadline:
            found = self._s3.list_objects_v2(Bucket=self._bucket, Prefix=prefix).get("Contents")
            if found:
                return int(found[0]["Size"])
            time.sleep(_POLL_S)
        raise TimeoutError(f"the job had no result within {_TIMEOUT_S:g} s")


USERS: dict[str, type[User]] = {"http": HttpUser, "queue": QueueUser, "rembg": RembgUser}
"""Users of each system, by its name."""


class OptionsShape(LoadTestShape):  # type: ignore[misc]
    """The number of users over time that the options ask for."""

    _curve: UserCurve | None = None

    def tick(self) -> tuple[int, float] | None:
        """Return the number of users and how many start each second, or None to end the load."""
        options = self.runner.environment.parsed_options
        if self._curve is None:
            self._curve = UserCurve(options.load, options.peak, options.duration)
        users = self._curve.users(self.get_run_time(), self.runner.stats.total.num_requests)
        return None if users is None else (users, float(options.peak))

    def reset_time(self) -> None:
        """Start again, because locust's web page can start a load a second time."""
        super().reset_time()
        self._curve = None
