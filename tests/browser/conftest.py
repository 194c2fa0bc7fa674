"""A real Chromium, and the endpoint behind a real server with the real model."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import pytest
import uvicorn

from ingest.local.ports import free_port
from serve_app.config import AppConfig
from serve_app.http.deployment import make_api
from serve_app.http.endpoint import Endpoint, current_endpoint
from tests.support.http_client import LocalHandle, NoQueue, local_pipeline

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class _Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        """Leave the signals to pytest."""


@contextmanager
def serving_page(args: dict[str, Any]) -> Iterator[str]:
    """Serve the endpoint in a thread of this process, and yield its URL."""
    config = AppConfig.load(args)
    api = make_api()

    @cache
    def endpoint() -> Endpoint:
        handle: Any = LocalHandle(local_pipeline(config))
        return Endpoint(config, handle, None, NoQueue())

    async def endpoint_of_server() -> Endpoint:
        # The endpoint belongs to the event loop of the server, so it is created there.
        return endpoint()

    api.dependency_overrides[current_endpoint] = endpoint_of_server
    port = free_port()
    server = _Server(uvicorn.Config(api, port=port, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., str]]:
    """Return a function that serves the endpoint with settings."""
    with ExitStack() as stack:
        yield lambda **args: stack.enter_context(serving_page(args))


@pytest.fixture(scope="module")
def page_url(serve: Callable[..., str]) -> str:
    return serve()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("chromium is not installed (Debian's package chromium)")
    # Playwright is imported only if there is a browser for it.
    from playwright.sync_api import sync_playwright

    # One for each module, not for the session: Playwright's event loop runs as long as it lives,
    # and no other test of this process can run one at the same time.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    script_errors: list[str] = []
    opened = context.new_page()
    opened.on("pageerror", lambda error: script_errors.append(str(error)))
    opened.set_default_timeout(30_000)
    yield opened
    context.close()
    assert script_errors == []
