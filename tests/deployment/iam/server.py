"""A local AWS that enforces policies: moto, corrected where it answers otherwise than AWS does.

``python -m tests.deployment.iam.server PORT`` runs it. Policies count from the moment on at which
``Server.enforce`` is called.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any, Self

from moto.core import DEFAULT_ACCOUNT_ID
from moto.iam.access_control import (
    CreateAccessKeyFailure,
    IAMPolicy,
    PermissionResult,
    create_access_key,
)
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import run_simple
from werkzeug.test import run_wsgi_app

from ingest.local.ports import answers, free_port
from ingest.local.processes import die_with_parent

_START_TIMEOUT_S = 60.0
_S3_DENIAL = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
_ACCESS_KEY = re.compile(r"Credential=(\w+)/")
_MESSAGE = re.compile(r"<Message>(.*?)</Message>", re.DOTALL)

_Environ = dict[str, Any]
_Start = Callable[..., Any]


class Corrected:
    """moto's application with two of AWS's answers.

    S3 denies what does not exist to those who may not list the bucket
    (https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html), which moto does not. SQS
    denies in JSON, which moto does in XML.
    """

    def __init__(self, application: Any) -> None:
        self._application = application

    def __call__(self, environ: _Environ, start: _Start) -> Iterable[bytes]:
        """Answer a request, as WSGI asks for."""
        chunks, status, headers = run_wsgi_app(self._application, environ, buffered=True)
        body = b"".join(chunks)
        authorization = environ.get("HTTP_AUTHORIZATION", "")
        if "/s3/" in authorization and status.startswith("404") and _hides(environ):
            status, body = "403 Forbidden", _S3_DENIAL
            headers["Content-Type"] = "application/xml"
        elif "/sqs/" in authorization and status.startswith("403") and body.startswith(b"<?xml"):
            found = _MESSAGE.search(body.decode())
            reason = found[1] if found else "denied"
            content = {"__type": "com.amazon.coral.service#AccessDeniedException"}
            status, body = "400 Bad Request", json.dumps(content | {"message": reason}).encode()
            headers["Content-Type"] = "application/x-amz-json-1.0"
        if environ["REQUEST_METHOD"] != "HEAD":
            headers["Content-Length"] = str(len(body))
        start(status, list(headers))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _hides(environ: _Environ) -> bool:
    """Return whether a caller may not know that an object does not exist."""
    bucket, _, key = environ["PATH_INFO"].removeprefix("/").partition("/")
    found = _ACCESS_KEY.search(environ["HTTP_AUTHORIZATION"])
    if not key or found is None or environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return False
    token = environ.get("HTTP_X_AMZ_SECURITY_TOKEN")
    headers = {} if token is None else {"X-Amz-Security-Token": token}
    try:
        caller = create_access_key(DEFAULT_ACCOUNT_ID, "aws", found[1], headers)
    except CreateAccessKeyFailure:
        return False
    permissions = [
        IAMPolicy(policy).is_action_permitted("s3:ListBucket", f"arn:aws:s3:::{bucket}")
        for policy in caller.collect_policies()
    ]
    return PermissionResult.PERMITTED not in permissions


class Server:
    """A context manager that runs the server in a process of its own."""

    def __init__(self) -> None:
        port = free_port()
        self.endpoint_url = f"http://127.0.0.1:{port}"
        """URL of every service."""
        self._command = [sys.executable, "-m", __name__, str(port)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the server, and return when it answers."""
        self._process = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
        )
        give_up_at = time.monotonic() + _START_TIMEOUT_S
        while not answers(f"{self.endpoint_url}/moto-api/"):
            assert self._process.poll() is None, "the local AWS did not start"
            assert time.monotonic() < give_up_at, "the local AWS does not answer"
            time.sleep(0.1)
        return self

    def __exit__(self, *_: object) -> None:
        """End the server."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait()

    def enforce(self) -> None:
        """Deny from now on what no policy allows."""
        request = urllib.request.Request(
            f"{self.endpoint_url}/moto-api/reset-auth",
            data=b"0",
            headers={"Content-Type": "text/plain"},
            method="POST",
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request):
            pass


def main(port: int) -> None:
    """Serve until the process is ended."""
    application = DomainDispatcherApplication(create_backend_app)
    run_simple(
        "127.0.0.1",
        port,
        Corrected(application),
        threaded=True,
        request_handler=MotoRequestHandler,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
