"""The seconds of one kind of processor price no other, unless both run the same kernels."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ingest.scaling.capacity_plan import compare_engines, compare_families, make_plan
from ingest.scaling.plan_inputs import find_instance
from ingest.scaling.sizing import PlanRequest
from serve_app.errors import InvalidConfig
from serve_app.models.engines.network import EXACT, Pair
from tests.unit.scaling.test_capacity_plan import BFLOAT16, C7I, PRICES, PROFILE


def test_seconds_of_other_kernels_price_no_family() -> None:
    c7a = find_instance("c7a.4xlarge", PRICES)
    request = PlanRequest(1_000_000, 86_400, c7a, "u2net", BFLOAT16, time_factor=1.0)
    # Both kinds of processor run bfloat16, but by kernels of their own.
    asked = r"c7a\.4xlarge.*amx_bf16.*avx512_bf16.*foreedge bench-node"
    with pytest.raises(InvalidConfig, match=asked):
        make_plan(request, PROFILE, PRICES)
    families = compare_families(replace(request, instance=C7I), PROFILE, PRICES)
    assert [each.request.instance.name for each in families] == ["c7i.4xlarge"]
    engines = compare_engines(replace(request, pair=EXACT), PROFILE, PRICES)
    assert [each.request.pair for each in engines] == [EXACT]
    # A profile that was measured there counts there, and no longer on Intel's.
    kernels = {str(BFLOAT16): ("avx512_bf16",)}
    measured = PROFILE.model_copy(update={"other_engines_kernels": kernels})
    assert make_plan(request, measured, PRICES).request.pair == BFLOAT16
    with pytest.raises(InvalidConfig, match=r"c7i\.4xlarge.*avx512_bf16"):
        make_plan(replace(request, instance=C7I), measured, PRICES)


def test_a_profile_that_does_not_name_its_kernels_prices_float32_alone() -> None:
    # A report of bench-node from before they were written down.
    old = PROFILE.model_copy(update={"other_engines_kernels": {}})
    request = PlanRequest(1_000_000, 86_400, C7I, "u2net", time_factor=1.0)
    assert make_plan(request, old, PRICES).request.pair == EXACT
    with pytest.raises(InvalidConfig, match=r"does not say .*foreedge bench-node"):
        make_plan(replace(request, pair=BFLOAT16), old, PRICES)


def test_float32_of_another_engine_is_planned_on_every_family() -> None:
    openvino = Pair("openvino", "float32")
    profile = PROFILE.model_copy(update={"other_engines_s": {str(openvino): {"fast": 0.01}}})
    for name in ("c8g.4xlarge", "c7i.4xlarge", "c7a.4xlarge"):
        instance = find_instance(name, PRICES)
        request = PlanRequest(1_000_000, 86_400, instance, "fast", openvino, time_factor=1.0)
        assert make_plan(request, profile, PRICES).request.pair == openvino
