"""The endpoint as it is served: through HAProxy and Serve, with a queue and with keys."""

from __future__ import annotations

import json
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from serve_app.app import build
from serve_app.contracts.recipe import MEDIA_TYPES
from tests.support.images import book, jpeg
from tests.support.running_app import ANY_SIZE, App, Aws

KEY, NEXT_KEY = "the-first-key", "the-next-key"
BOOK = jpeg(book().image)
LARGE = jpeg(book(width=2400, height=1800).image)


def job(app: App, key: str, **fields: Any) -> dict[str, Any]:
    output = {"bucket": app.bucket, "prefix": "posted/"}
    source = {"bucket": app.bucket, "key": key}
    return {"source": source, "output": output, "recipe": ANY_SIZE, **fields}


def finished(app: App, run_id: str, jobs: int) -> dict[str, Any]:
    """Return the counts of a run once it has that many results."""
    for _ in range(300):
        answer = app.http.get(f"/v1/jobs/{run_id}")
        if answer.status_code == 200 and sum(answer.json()["counts"].values()) >= jobs:
            return dict(answer.json())
        time.sleep(0.3)
    raise AssertionError(answer.text)


# --- jobs ---


def test_jobs_that_are_posted(app: App) -> None:
    entries = app.put({f"{number}.jpg": BOOK for number in range(12)})
    answer = app.http.post("/v1/jobs", json=[job(app, entry.key) for entry in entries])
    assert answer.status_code == 202, answer.text
    posted = answer.json()
    assert (posted["queued"], posted["refused"]) == (12, 0)
    assert len({item["job_id"] for item in posted["jobs"]}) == 12
    assert {item["run_id"] for item in posted["jobs"]} == {posted["run_id"]}
    counts = finished(app, posted["run_id"], 12)
    assert counts == {
        "run_id": posted["run_id"],
        "jobs": 12,
        "counts": {"done": 12, "skipped_existing": 0, "failed": 0},
        "remaining": 0,
        "codes": {},
        "complete": True,
    }
    assert len(list(app.store.list(app.bucket, f"posted/{entries[0].key.split('.')[0]}/"))) == 1


def test_a_job_with_ids_of_its_own(app: App) -> None:
    [entry] = app.put({"one.jpg": BOOK})
    run_id, job_id = f"mine-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    body = job(app, entry.key, run_id=run_id, job_id=job_id, schema=1)
    posted = app.http.post("/v1/jobs", json=body).json()
    assert posted["jobs"] == [
        {
            "job_id": job_id,
            "run_id": run_id,
            "status": "queued",
            "code": None,
            "detail": None,
            "retry": None,
        }
    ]
    counts = finished(app, run_id, 1)
    # Nobody knows how many jobs such a run will have.
    assert (counts["jobs"], counts["remaining"]) == (None, None)
    # The same job once more makes nothing anew, and still is one job.
    assert app.http.post("/v1/jobs", json=body).status_code == 202
    time.sleep(3)
    assert finished(app, run_id, 1)["counts"]["done"] == 1


def test_of_some_jobs_that_are_wrong_each_is_reported(app: App) -> None:
    [entry] = app.put({"one.jpg": BOOK})
    good = job(app, entry.key)
    bad: list[Any] = [
        job(app, entry.key, recipe="nonsense"),
        job(app, entry.key, recipe={"models": ["u2net"]}),
        job(app, entry.key, source={"bucket": "somebody-elses", "key": "k"}),
        job(app, entry.key, schema=2),
        job(app, entry.key, colour="red"),
        job(app, entry.key, run_id="not/a/name"),
        {"Records": []},
        {"source": "aws.s3", "detail-type": "Object Created"},
        "text",
        job(app, "k" * 30_000),
    ]
    answer = app.http.post("/v1/jobs", json=[bad[0], good, *bad[1:]])
    assert answer.status_code == 202
    first, queued, *others = answer.json()["jobs"]
    assert queued["status"] == "queued"
    assert [item["code"] for item in [first, *others]] == [
        "invalid_recipe",
        "unknown_model",
        "source_not_allowed",
        *["invalid_message"] * 7,
    ]
    assert all(item["detail"] and item["retry"] == "permanent" for item in [first, *others])
    assert finished(app, answer.json()["run_id"], 1)["jobs"] == 1
    alone = app.http.post("/v1/jobs", json=bad[0])
    assert (alone.status_code, alone.json()["code"]) == (400, "invalid_recipe")
    foreign = app.http.post("/v1/jobs", json=bad[2])
    assert (foreign.status_code, foreign.json()["code"]) == (403, "source_not_allowed")
    assert app.dead_letters() == []


def test_a_failed_job_is_counted_with_its_code(app: App) -> None:
    posted = app.http.post("/v1/jobs", json=job(app, "nowhere.jpg")).json()
    counts = finished(app, posted["run_id"], 1)
    assert counts["counts"]["failed"] == 1
    assert counts["codes"] == {"source_not_found": 1}
    assert len(app.dead_letters()) == 1


def test_a_run_that_there_is_not(app: App) -> None:
    answer = app.http.get("/v1/jobs/none")
    assert (answer.status_code, answer.json()["code"]) == (404, "source_not_found")


# --- time and connections ---


def test_a_deadline_through_the_proxy(app: App) -> None:
    for seconds in ("0.02", "0.1"):
        answer = app.http.post(
            "/v1/cutout", content=LARGE, headers={"x-request-timeout-seconds": seconds}
        )
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    enough = {"x-request-timeout-seconds": "60"}
    assert app.http.post("/v1/cutout", content=BOOK, headers=enough).status_code == 200
    for unread in ("0", "-1", "soon", "nan"):
        answer = app.http.post(
            "/v1/cutout", content=BOOK, headers={"x-request-timeout-seconds": unread}
        )
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), unread


def test_head_and_conditional_requests_through_the_proxy(app: App) -> None:
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
    # The connection is still in step.
    assert app.post(BOOK).content == first.content


def test_every_output_format_by_accept(app: App) -> None:
    for media_type in MEDIA_TYPES.values():
        answer = app.http.post("/v1/cutout", content=BOOK, headers={"accept": media_type})
        assert answer.headers["content-type"] == media_type
    answer = app.http.post("/v1/cutout", content=BOOK, headers={"accept": "text/html"})
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")


# --- keys and places: a second application on the same Ray ---


class Guarded:
    """An endpoint that has keys in Secrets Manager, and one place."""

    def __init__(self, url: str, secrets: Any, name: str) -> None:
        self.url = url
        self._secrets = secrets
        self._name = name

    def post(self, key: str | None, data: bytes = BOOK, **options: Any) -> httpx.Response:
        headers = {"x-api-key": key} if key else {}
        return httpx.post(
            f"{self.url}/v1/cutout",
            content=data,
            headers=headers,
            params={"min_subject_px": "1"},
            timeout=90,
            trust_env=False,
            **options,
        )

    def set_keys(self, text: str) -> None:
        self._secrets.put_secret_value(SecretId=self._name, SecretString=text)


@pytest.fixture(scope="module")
def guarded(app: App, local_aws: Aws) -> Iterator[Guarded]:
    from ray import serve

    secrets = local_aws.client("secretsmanager")
    name = f"keys-{uuid.uuid4().hex[:8]}"
    secrets.create_secret(Name=name, SecretString=json.dumps({"current": KEY}))
    none = {"num_cpus": 0}
    args: dict[str, Any] = {
        "aws": {"endpoint_url": local_aws.endpoint_url},
        "http": {
            **none,
            "api_keys_secret": name,
            "api_keys_refresh_s": 0.5,
            "max_concurrent": 1,
        },
        "pipeline": none,
        "segmenter": none,
    }
    serve.run(build(args), name="guarded", route_prefix="/guarded")
    yield Guarded(f"{app.url}/guarded", secrets, name)
    serve.delete("guarded")


def test_keys_of_secrets_manager_and_their_rotation(guarded: Guarded) -> None:
    assert guarded.post(KEY).status_code == 200
    for wrong in (None, NEXT_KEY, KEY + "x"):
        answer = guarded.post(wrong)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"] == 'Bearer realm="foreedge"'
    guarded.set_keys(json.dumps({"current": NEXT_KEY, "previous": KEY}))
    time.sleep(0.6)
    assert guarded.post(NEXT_KEY).status_code == 200
    assert guarded.post(KEY).status_code == 200
    guarded.set_keys(f"{NEXT_KEY}\n")
    time.sleep(0.6)
    assert guarded.post(KEY).status_code == 401
    guarded.set_keys("[]")
    time.sleep(0.6)
    assert guarded.post(NEXT_KEY).status_code == 200, "a mistake there locks nobody out"
    guarded.set_keys(json.dumps([KEY, NEXT_KEY]))


@contextmanager
def models_in_the_pipeline(local_aws: Aws, name: str) -> Iterator[None]:
    """Run another application, under a prefix of its name."""
    from ray import serve

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


def test_models_inside_of_the_pipeline(app: App, local_aws: Aws) -> None:
    from ray import serve

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
def test_a_replica_dies_while_it_holds_requests(app: App, local_aws: Aws) -> None:
    url = f"{app.url}/mortal/v1/cutout"
    died = threading.Event()

    def until_it_is_back() -> list[httpx.Response | httpx.TransportError]:
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
            clients = [pool.submit(until_it_is_back) for _ in range(8)]
            time.sleep(2)
            _replica("ray::ServeReplica:mortal:HttpApi").kill()
            died.set()
            answers = [answer for client in clients for answer in client.result()]
        responses = [answer for answer in answers if isinstance(answer, httpx.Response)]
        lost = [answer for answer in answers if isinstance(answer, httpx.TransportError)]
        assert all(isinstance(error, httpx.NetworkError | httpx.ProtocolError) for error in lost)
        refused = [answer for answer in responses if answer.status_code != 200]
        assert refused or lost, "the replica held requests"
        for answer in refused:
            if answer.headers["content-type"] == "text/plain":
                # HAProxy's own, whose text Ray does not let us choose.
                assert (answer.status_code, answer.text) == (500, "Internal Server Error")
            else:
                assert answer.json()["code"] in {"replica_lost", "model_unavailable", "overloaded"}
        last = [client.result()[-1] for client in clients]
        assert [getattr(answer, "status_code", answer) for answer in last] == [200] * 8


def _replica(name: str) -> psutil.Process:
    """Return the only replica's process, of this session's Ray."""
    [found] = [
        process
        for process in psutil.Process().children(recursive=True)
        if process.cmdline()[:1] == [name]
    ]
    return found


def test_probes_need_no_key_and_jobs_need_a_queue(guarded: Guarded) -> None:
    with httpx.Client(base_url=guarded.url, trust_env=False) as client:
        for path in ("healthz", "readyz", "docs", "openapi.json"):
            assert client.get(f"{guarded.url}/{path}").status_code == 200, path
        assert client.get(f"{guarded.url}/v1/models").status_code == 401
        keyed = {"authorization": f"Bearer {NEXT_KEY}"}
        body = {"source": {"bucket": "b", "key": "k"}}
        answer = client.post(f"{guarded.url}/v1/jobs", json=body, headers=keyed)
        assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
        assert answer.headers["retry-after"]
        answer = client.get(f"{guarded.url}/v1/jobs/some", headers=keyed)
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")


def test_past_the_only_place_it_refuses(guarded: Guarded) -> None:
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: guarded.post(NEXT_KEY), range(60)))
    assert {answer.status_code for answer in answers} == {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert answer.json()["code"] == "overloaded"
            assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert guarded.post(NEXT_KEY).status_code == 200


def test_a_client_that_hangs_up_frees_the_only_place(guarded: Guarded) -> None:
    where = urlsplit(guarded.url)
    for _ in range(5):
        with socket.create_connection((where.hostname, where.port)) as connection:
            head = (
                f"POST {where.path}/v1/cutout?png_compression=9 HTTP/1.1\r\nHost: x\r\n"
                f"X-API-Key: {NEXT_KEY}\r\nX-Request-Disconnect-Disabled: ?1\r\n"
                f"Content-Length: {len(LARGE)}\r\n\r\n"
            )
            connection.sendall(head.encode() + LARGE)
            time.sleep(0.2)
        for _ in range(200):
            answer = guarded.post(NEXT_KEY)
            if answer.status_code == 200:
                break
            assert answer.status_code == 503
            time.sleep(0.05)
        else:
            raise AssertionError("the place was not freed")
