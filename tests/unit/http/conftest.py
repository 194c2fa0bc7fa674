"""The real pipeline with the real model, loaded once for all tests of the endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from serve_app.config import AppConfig
from serve_app.pipeline.deployment import CutoutPipeline
from tests.support.http_client import EndpointClient, endpoint_client, local_pipeline


@pytest.fixture(scope="package")
def pipeline() -> CutoutPipeline:
    return local_pipeline(AppConfig.load())


@pytest.fixture
async def client(pipeline: CutoutPipeline) -> AsyncIterator[EndpointClient]:
    """Yield a client that accepts subjects of every size, with the default settings."""
    anything = {"min_subject_px": "1"}
    async with endpoint_client(AppConfig.load(), pipeline, params=anything) as client:
        yield client
