"""The endpoint as it is served, through HAProxy and Serve."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from ray import serve

from serve_app.app import build
from serve_app.contracts.recipe import MEDIA_TYPES
from tests.support.images import book, jpeg
from tests.support.replica_processes import replica_processes
from tests.support.running_app import App, Aws

BOOK = jpeg(book().image)
LARGE = jpeg(book(width=2400, height=1800).image)


def test_a_deadline_applies_through_the_proxy(app: App) -> None:
    for seconds in ("0.02", "0.1"):
        answer = app.http.post(
            "/v1/cutout", content=LARGE, headers={"x-request-timeout-seconds": seconds}
        )
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    enough = {"x-request-timeout-seconds": "60"}
    assert app.http.post("/v1/cutout", content=BOOK, headers=enough).status_code == 200
    for invalid in ("0", "-1", "soon", "nan"):
        answer = app.http.post(
            "/v1/cutout", content=BOOK, headers={"x-request-timeout-seconds": invalid}
        )
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), invalid


def test_head_and_conditional_requests_work_through_the_proxy(app: App) -> None:
    for path in ("/healthz", "/readyz", "/v1/models", "/docs", "/openapi.json"):
        head = app.http.head(path)
        assert (head.status_code, head.content) == (200, b""), path
    first = app.post(BOOK)
    again = app.http.post(
        "/v1/cutout",
        content=BOOK,
        params={"min_subject_px": "1"},
        headers={"if-none-match": first.headers["etag"]},
    )
    assert (again.status_code, again.content) == (304, b"")
    # The connection is still usable.
    assert app.post(BOOK).content == first.content


def test_the_accept_header_selects_every_format(app: App) -> None:
    for media_type in MEDIA_TYPES.values():
        answer = app.http.post("/v1/cutout", content=BOOK, headers={"accept": media_type})
        assert answer.headers["content-type"] == media_type
    answer = app.http.post("/v1/cutout", content=BOOK, headers={"accept": "text/html"})
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")


@contextmanager
def models_in_the_pipeline(local_aws: Aws, name: str) -> Iterator[None]:
    """Run another application with its models in the pipeline, under its name as prefix."""
    none = {"num_cpus": 0}
    args: dict[str, Any] = {
        "aws": {"endpoint_url": local_aws.endpoint_url},
        "http": none,
        "pipeline": none,
        "segmenter": {"placement": "pipeline"},
    }
    serve.run(build(args), name=name, route_prefix=f"/{name}")
    try:
        yield
    finally:
        serve.delete(name)


def test_models_in_the_pipeline_give_the_same_result(app: App, local_aws: Aws) -> None:
    with models_in_the_pipeline(local_aws, "together"):
        assert set(serve.status().applications["together"].deployments) == {
            "HttpApi",
            "CutoutPipeline",
        }
        apart, together = [
            httpx.post(f"{app.url}{prefix}/v1/cutout", content=BOOK, trust_env=False)
            for prefix in ("", "/together")
        ]
        assert together.status_code == 200
        assert together.content == apart.content


@pytest.mark.slow
def test_requests_of_a_replica_that_dies_fail_with_a_code(app: App, local_aws: Aws) -> None:
    url = f"{app.url}/mortal/v1/cutout"
    died = threading.Event()

    def post_until_it_is_back() -> list[httpx.Response | httpx.TransportError]:
        found: list[httpx.Response | httpx.TransportError] = []
        ends_at = time.monotonic() + 90
        with httpx.Client(trust_env=False, timeout=60) as client:
            while time.monotonic() < ends_at:
                try:
                    found.append(answer := client.post(url, content=BOOK))
                except httpx.TransportError as error:
                    found.append(error)
                    continue
                if answer.status_code == 200 and died.is_set():
                    break
        return found

    with models_in_the_pipeline(local_aws, "mortal"):
        with ThreadPoolExecutor(8) as pool:
            clients = [pool.submit(post_until_it_is_back) for _ in range(8)]
            time.sleep(2)
            [replica] = replica_processes("HttpApi", "mortal")
            replica.kill()
            died.set()
            answers = [answer for client in clients for answer in client.result()]
        responses = [answer for answer in answers if isinstance(answer, httpx.Response)]
        lost = [answer for answer in answers if isinstance(answer, httpx.TransportError)]
        assert all(isinstance(error, httpx.NetworkError | httpx.ProtocolError) for error in lost)
        refused = [answer for answer in responses if answer.status_code != 200]
        assert refused or lost, "the replica was processing requests"
        for answer in refused:
            if answer.headers["content-type"] == "text/plain":
                # HAProxy answered. Ray does not let us choose its text.
                assert (answer.status_code, answer.text) == (500, "Internal Server Error")
            else:
                assert answer.json()["code"] in {"replica_lost", "model_unavailable", "overloaded"}
        last = [client.result()[-1] for client in clients]
        assert [getattr(answer, "status_code", answer) for answer in last] == [200] * 8
