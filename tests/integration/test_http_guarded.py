"""An endpoint with API keys from Secrets Manager and one slot for images.

It is a second application on the same Ray.
"""

from __future__ import annotations

import json
import socket
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from ray import serve

from serve_app.app import build
from tests.support.images import book, jpeg
from tests.support.running_app import App, Aws

KEY, NEXT_KEY = "the-first-key", "the-next-key"
BOOK = jpeg(book().image)
LARGE = jpeg(book(width=2400, height=1800).image)


class GuardedEndpoint:
    """An endpoint with keys in Secrets Manager and one slot."""

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
def guarded(app: App, local_aws: Aws) -> Iterator[GuardedEndpoint]:
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
    yield GuardedEndpoint(f"{app.url}/guarded", secrets, name)
    serve.delete("guarded")


def test_keys_in_secrets_manager_can_be_rotated(guarded: GuardedEndpoint) -> None:
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
    assert guarded.post(NEXT_KEY).status_code == 200, "an empty secret locks no client out"
    guarded.set_keys(json.dumps([KEY, NEXT_KEY]))


def test_probes_need_no_key_and_jobs_need_a_queue(guarded: GuardedEndpoint) -> None:
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


def test_above_the_only_slot_requests_are_rejected(guarded: GuardedEndpoint) -> None:
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: guarded.post(NEXT_KEY), range(60)))
    assert {answer.status_code for answer in answers} == {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            assert answer.json()["code"] == "overloaded"
            assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert guarded.post(NEXT_KEY).status_code == 200


def test_a_client_that_disconnects_frees_the_only_slot(guarded: GuardedEndpoint) -> None:
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
            raise AssertionError("the slot was not freed")
