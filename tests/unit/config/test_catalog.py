"""The settings of the catalog: what is refused, and that no password is shown."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.config import AppConfig
from serve_app.errors import InvalidConfig

URL = "postgresql://u:hunter2@h/db"
SETTINGS: dict[str, Any] = {
    "queue.url": "https://sqs/q",
    "ledger.bucket": "ledger",
    "catalog.database_url": URL,
    "catalog.images_bucket": "images",
}


def test_a_password_is_in_no_text_of_the_settings() -> None:
    config = AppConfig.load(SETTINGS)
    assert config.catalog is not None
    assert "hunter2" not in repr(config)
    assert "hunter2" not in config.model_dump_json()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"catalog.database_secret": "s"}, "exactly one of"),
        ({"catalog.database_url": None}, "exactly one of"),
        ({"catalog.database_url": "mysql://u:hunter2@h/db"}, "must begin with postgresql"),
        ({"catalog.images_bucket": "s3://images"}, "images_bucket"),
        ({"catalog.cdn_domain": "https://cdn.example/"}, "cdn_domain"),
        ({"storage.local_root": "/tmp"}, "catalog needs S3"),
        ({"storage.allowed_buckets": ["others"]}, "is not one of storage"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidConfig, match=expected) as raised:
        AppConfig.load(SETTINGS | changes)
    assert "hunter2" not in raised.value.message


def test_a_catalog_needs_a_queue() -> None:
    with pytest.raises(InvalidConfig, match="catalog needs queue"):
        AppConfig.load({name: SETTINGS[name] for name in SETTINGS if name.startswith("catalog")})
