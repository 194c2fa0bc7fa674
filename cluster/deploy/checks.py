"""Checks of a deployed revision: an installation check, an image over HTTP, one by the queue."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.deploy.waiting import DeploymentFailed, NotYet

IMAGE_FILE = Path(__file__).parents[2] / "ingest" / "local" / "real_photographs" / "coffee.jpg"
"""The image of `foreedge smoke`, on which every model is sure."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_REQUEST_TIMEOUT_S = 90
_TRY_AGAIN = (429, 502, 503, 504)
"""HTTP statuses of an application that is busy or has just begun."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The HTTP endpoint of the application."""

    url: str
    api_key: str | None

    def call(self, path: str, body: bytes | None = None, content_type: str = "") -> bytes:
        """Return the body of an answer. With a body of its own, the request is a POST.

        Raises:
            NotYet: The application does not answer, or is too busy.
            DeploymentFailed: It refuses the request.
        """
        headers = {"content-type": content_type} if content_type else {}
        if self.api_key:
            headers["x-api-key"] = self.api_key
        request = urllib.request.Request(f"{self.url}{path}", body, headers)
        try:
            # A proxy that the environment names cannot reach a port of this machine.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=_REQUEST_TIMEOUT_S) as answer:
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            what = f"{path} answers {error.code}: {error.read(2000).decode(errors='replace')}"
            if error.code in _TRY_AGAIN:
                raise NotYet(what) from error
            raise DeploymentFailed(what) from error
        except OSError as error:
            raise NotYet(f"{path} does not answer: {error}") from error

    def call_json(self, path: str, content: Any = None) -> dict[str, Any]:
        """Return the answer to JSON, or to no body at all."""
        body = None if content is None else json.dumps(content).encode()
        found: dict[str, Any] = json.loads(self.call(path, body, "application/json"))
        return found


def require_smoke(log: str, revision: str) -> None:
    """Check what `foreedge smoke` has printed in the cluster.

    Args:
        log: Its output. The report is the last line.
        revision: Commit that the image was built from.

    Raises:
        DeploymentFailed: It found something, or another revision runs there.
    """
    last = (log.strip().splitlines() or [""])[-1]
    try:
        report = json.loads(last)
    except ValueError:
        raise DeploymentFailed(f"foreedge smoke ended without a report: {last!r}") from None
    if not report["ok"]:
        raise DeploymentFailed(f"foreedge smoke: {report['reason']}")
    if report["revision"] != revision:
        raise DeploymentFailed(
            f"foreedge smoke: the image has revision {report['revision']}, not {revision}. Build "
            "it with --build-arg REVISION"
        )


def require_revision(endpoint: Endpoint, revision: str) -> None:
    """Check which revision answers.

    Raises:
        NotYet: Another revision answers, or none. Traffic moves a moment after KubeRay says so.
    """
    found = endpoint.call_json("/healthz").get("revision")
    if found != revision:
        raise NotYet(f"/healthz names revision {found}, not {revision}")


def require_cutout(endpoint: Endpoint) -> None:
    """Have an image cut out over HTTP.

    Raises:
        NotYet: The application is too busy.
        DeploymentFailed: The answer is an error, or no PNG.
    """
    answer = endpoint.call("/v1/cutout?format=png", IMAGE_FILE.read_bytes(), "image/jpeg")
    if not answer.startswith(_PNG_SIGNATURE):
        raise DeploymentFailed(f"/v1/cutout answers {len(answer)} bytes that are no PNG")


def send_job(endpoint: Endpoint, source: str, output: str) -> str:
    """Put a job for one image on the queue.

    Args:
        endpoint: The application.
        source: URL of the image, ``s3://bucket/key``.
        output: URL of a prefix for its result. Each call has a prefix of its own below it, since a
            result that exists is not made again.

    Returns:
        Identifier of the run.

    Raises:
        NotYet: The application or the queue does not answer.
        DeploymentFailed: The job was refused.
    """
    bucket, key = split_s3(source)
    output_bucket, prefix = split_s3(output)
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    # Without a run: the application counts the jobs of a run that it has named itself.
    job = {
        "source": {"bucket": bucket, "key": key},
        "output": {"bucket": output_bucket, "prefix": f"{prefix}{uuid.uuid4().hex}/"},
    }
    return str(endpoint.call_json("/v1/jobs", job)["run_id"])


def require_job(endpoint: Endpoint, run_id: str) -> None:
    """Check that the only job of a run has a result.

    Raises:
        NotYet: It has none so far.
        DeploymentFailed: The job failed.
    """
    progress = endpoint.call_json(f"/v1/jobs/{run_id}")
    if progress["codes"]:
        raise DeploymentFailed(f"the job of run {run_id} failed: {', '.join(progress['codes'])}")
    counts = progress["counts"]
    # A message that SQS delivers twice finds its result.
    if not counts.get("done", 0) + counts.get("skipped_existing", 0):
        raise NotYet(f"the job of run {run_id} has no result")


def require_work(endpoint: Endpoint) -> None:
    """Check that the consumers of this release work, for a queue with a long backlog.

    Raises:
        NotYet: The application does not answer.
        DeploymentFailed: They are not healthy, or have done no job.
    """
    ingest = endpoint.call_json("/readyz").get("ingest") or {}
    done, deleted = ingest.get("done", 0), ingest.get("deleted", 0)
    if not ingest.get("healthy") or not done or not deleted:
        raise DeploymentFailed(
            f"the queue is not served: {ingest.get('reason')}; {done} jobs done, {deleted} "
            "messages deleted"
        )


def split_s3(url: str) -> tuple[str, str]:
    """Return the bucket and the key of ``s3://bucket/key``.

    Raises:
        DeploymentFailed: The URL is none of S3.
    """
    scheme, _, path = url.partition("://")
    bucket, _, key = path.partition("/")
    if scheme != "s3" or not bucket:
        raise DeploymentFailed(f"{url!r} is no URL of S3: write s3://bucket/key")
    return bucket, key
