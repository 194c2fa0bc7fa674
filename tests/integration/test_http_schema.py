"""Requests that the OpenAPI description allows, and ones it does not, against the endpoint.

`make fuzz` runs more than 2,000 cases, the usual run only a few.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from PIL import Image
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from tests.support.images import book, defects, jpeg, saved
from tests.support.running_app import App

FUZZ = settings.get_current_profile_name() == "fuzz"
LIMITED = settings(
    # Used twice for each operation: with valid and with invalid requests.
    max_examples=300 if FUZZ else 15,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TIMEOUT_S = 60

CHECKS: list[CheckFunction] = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]

BOOK = Image.fromarray(book().image)
IMAGES = st.one_of(
    st.sampled_from([saved(BOOK, name) for name in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")]),
    st.sampled_from([defect.data for defect in defects()]),
    st.binary(max_size=2000),
)
for media_type in ("jpeg", "png", "webp", "tiff", "bmp", "gif"):
    schemathesis.openapi.media_type(f"image/{media_type}", IMAGES)
schemathesis.openapi.media_type("application/octet-stream", IMAGES)


@pytest.mark.timeout(1800)
def test_responses_conform_to_the_description(app: App) -> None:
    schema = schemathesis.openapi.from_url(f"{app.url}/openapi.json")
    before = app.post(jpeg(book().image)).content
    counts: Counter[str] = Counter()

    def check(case: Any) -> None:
        response = case.call(base_url=app.url, timeout=TIMEOUT_S)
        counts[f"{case.method} {case.path} {response.status_code}"] += 1
        if response.status_code >= 400:
            assert response.headers["content-type"] == ["application/problem+json"]
            assert response.json()["code"]
        assert response.status_code < 500 or response.status_code in {503, 504}
        case.validate_response(response, checks=CHECKS)

    for found in schema.get_all_operations():
        assert isinstance(found, Ok), found.err()
        operation = found.ok()
        for mode in GenerationMode:
            strategy = operation.as_strategy(generation_mode=mode)
            # An operation without input has no invalid requests.
            with suppress(Unsatisfiable):
                LIMITED(given(case=strategy)(check))()
    print(f"\n{counts.total()} cases:", dict(sorted(counts.items())))
    assert {int(name.split()[-1]) for name in counts} >= {200, 400, 404, 415, 422}
    assert not FUZZ or counts.total() >= 2_000
    assert app.post(jpeg(book().image)).content == before
