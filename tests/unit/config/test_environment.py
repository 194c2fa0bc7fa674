"""Settings from the environment: lists, unknown names, and what Kubernetes puts there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app.config import AppConfig
from serve_app.config.names import section_of
from serve_app.errors import InvalidConfig

_ITEMS = {
    "models": ["u2netp", "isnet-general-use"],
    "models_on_request": ["u2netp", "isnet-general-use"],
    "storage.allowed_buckets": ["photos", "results"],
    "http.api_keys": ["first-key", "second-key"],
    "http.cors_origins": ["https://shop.example", "http://localhost:3000"],
    "http.fetch_hosts": ["images.example.com", "*.example.org:8443"],
    "http.fetch_networks": ["10.1.0.0/16", "fd00::/8"],
}
"""Two items for each setting that is a list."""


def _variable(name: str) -> str:
    return "FOREEDGE_" + name.replace(".", "__").upper()


def _value(config: AppConfig, name: str) -> list[str]:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return [item if isinstance(item, str) else _text(item) for item in value]


def _text(item: Any) -> str:
    revealed = getattr(item, "get_secret_value", None)
    return str(revealed() if revealed else item)


def test_every_list_is_tested_here() -> None:
    found = set()
    for name, field in AppConfig.model_fields.items():
        section = section_of(field.annotation)
        fields = {name: field} if section is None else section.model_fields
        prefix = "" if section is None else f"{name}."
        found |= {
            prefix + each for each, inner in fields.items() if "tuple" in str(inner.annotation)
        }
    assert found == set(_ITEMS)


@pytest.mark.parametrize("name", _ITEMS)
def test_a_list_may_be_json_or_text_or_one_item(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    items = _ITEMS[name]
    for text, expected in (
        (json.dumps(items), items),
        (",".join(items), items),
        (f" {items[0]} , {items[1]} ", items),
        (items[0], items[:1]),
    ):
        monkeypatch.setenv(_variable(name), text)
        assert _value(AppConfig.load(), name) == expected
        monkeypatch.delenv(_variable(name))
        # `serve run ... name=a,b` and a scalar in YAML.
        assert _value(AppConfig.load({name: text}), name) == expected


@pytest.mark.parametrize("name", _ITEMS)
@pytest.mark.parametrize("text", ["", ",", "a,,b", '["a", ""]', '["secret-text"', "[1, 2"])
def test_a_list_with_an_empty_item_or_broken_json_is_refused(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(_variable(name), text)
    with pytest.raises(InvalidConfig, match=name.replace(".", r"\.")) as caught:
        AppConfig.load()
    assert "secret-text" not in caught.value.message


@pytest.mark.parametrize("name", ["MODEL_FILES", "QUEUE", "HTTP"])
def test_a_section_that_is_not_json_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"FOREEDGE_{name}", "{nonsense")
    with pytest.raises(
        InvalidConfig, match=rf"{name.lower()} in the environment .* not valid JSON"
    ):
        AppConfig.load()


def test_a_section_may_be_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREEDGE_HTTP", '{"max_uploads": 3}')
    monkeypatch.setenv("FOREEDGE_MODEL_FILES", '{"mine": "/m.onnx"}')
    monkeypatch.setenv("FOREEDGE_MODEL_FILES__OTHER", "/o.onnx")
    config = AppConfig.load()
    assert config.http.max_uploads == 3
    assert sorted(config.model_files) == ["mine", "other"]


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("FOREEDGE_MODEL", "FOREEDGE_MODELS"),
        ("FOREEDGE_QUEUE_URL", "FOREEDGE_QUEUE__URL"),
        ("FOREEDGE_QUEUES__URL", "FOREEDGE_QUEUE__URL"),
        ("FOREEDGE_QUEUE__ULR", "FOREEDGE_QUEUE__URL"),
        ("FOREEDGE_QUEUE__OUTPUT__BUCKET", "FOREEDGE_QUEUE__OUTPUT_BUCKET"),
        ("FOREEDGE_API_KEYS", "FOREEDGE_HTTP__API_KEYS"),
        ("foreedge_ledger__buket", "FOREEDGE_LEDGER__BUCKET"),
        ("FOREEDGE_U2NET_HOME", "U2NET_HOME"),
        ("FOREEDGE_HTTP__PORT", None),
        ("FOREEDGE_ZZZ", None),
    ],
)
def test_an_unknown_variable_is_refused(
    variable: str, nearest: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "8000")
    with pytest.raises(InvalidConfig, match=f"{variable} is not a setting") as caught:
        AppConfig.load()
    if nearest is not None:
        assert caught.value.message.endswith(f"did you mean {nearest}?")


def test_variables_that_kubernetes_sets_for_services_are_none_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What a container sees of KubeRay's services of a RayService named foreedge.
    for service in ("FOREEDGE", "FOREEDGE_HEAD_SVC", "FOREEDGE_SERVE_SVC"):
        address = "tcp://10.0.0.7:8000"
        for name, value in {
            "SERVICE_HOST": "10.0.0.7",
            "SERVICE_PORT": "8000",
            "SERVICE_PORT_SERVE": "8000",
            "PORT": address,
            "PORT_8000_TCP": address,
            "PORT_8000_TCP_PROTO": "tcp",
            "PORT_8000_TCP_PORT": "8000",
            "PORT_8000_TCP_ADDR": "10.0.0.7",
        }.items():
            monkeypatch.setenv(f"{service}_{name}", value)
    assert AppConfig.load() == AppConfig()
