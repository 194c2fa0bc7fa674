"""``foreedge smoke`` as a process, with libraries that work, fail and crash."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serve_app.version import find_version

CRASHES = {
    "SIGSEGV": "import ctypes\nctypes.string_at(0)\n",
    "SIGABRT": "import os\nos.abort()\n",
}


def run_smoke(*options: str, **variables: str) -> tuple[int, dict[str, Any], str]:
    """Return the exit code, the report and the errors of a run."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "foreedge"), "smoke", *options],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    [line] = done.stdout.splitlines() or ["{}"]
    return done.returncode, json.loads(line), done.stderr


def shadowed_by(folder: Path, module: str, code: str) -> str:
    """Return a PYTHONPATH on which a module has other code."""
    (folder / f"{module}.py").write_text(code)
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


def test_a_working_installation_passes() -> None:
    code, report, errors = run_smoke("--model", "folio", IMAGE_REVISION="0123abc")
    assert (code, errors) == (0, "")
    assert (report["ok"], report["reason"]) == (True, None)
    assert report["version"] == find_version()
    assert report["revision"] == "0123abc"
    assert report["architecture"] == platform.machine()
    folio = report["models"]["folio"]
    assert folio["compared"]
    assert folio["same"] >= 0.999
    assert report["haproxy"].startswith("HAProxy version")
    assert list(report["seconds"]) == ["onnxruntime", "folio", "haproxy", "places"]


@pytest.mark.parametrize("died_of", CRASHES)
def test_a_crash_of_onnxruntime_is_a_sentence(died_of: str, tmp_path: Path) -> None:
    path = shadowed_by(tmp_path, "onnxruntime", CRASHES[died_of])
    code, report, errors = run_smoke("--model", "folio", PYTHONPATH=path)
    assert code == 1
    expected = f"model_unavailable: onnxruntime died with {died_of}; /proc/cpuinfo "
    assert report["reason"].startswith(expected)
    assert errors.startswith(f"error: {expected}")
    assert report["ok"] is False
    assert report["architecture"] == platform.machine()


def test_a_library_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    path = shadowed_by(tmp_path, "onnxruntime", "raise ImportError('libgomp.so.1: no such file')")
    code, report, _ = run_smoke("--model", "folio", PYTHONPATH=path)
    assert code == 1
    assert report["reason"] == "internal_error: ImportError: libgomp.so.1: no such file"


def test_checks_that_take_too_long_are_ended() -> None:
    code, report, errors = run_smoke("--model", "folio", "--timeout", "10ms")
    assert code == 1
    assert report["reason"].startswith("deadline_exceeded: the start did not end within 0.01 s")
    assert "--timeout" in errors


def test_missing_weights_fail(tmp_path: Path) -> None:
    code, report, errors = run_smoke("--model", "u2net", U2NET_HOME=str(tmp_path))
    assert code == 1
    assert "model_unavailable: The weights of u2net are not on this machine" in errors
    assert report["reason"].startswith("model_unavailable: The weights of u2net")


def test_the_models_on_the_machine_are_checked(tmp_path: Path) -> None:
    code, report, _ = run_smoke("--installed", U2NET_HOME=str(tmp_path))
    assert (code, list(report["models"])) == (0, ["folio"])


def test_a_binary_of_another_architecture_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "haproxy"
    binary.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(200))
    binary.chmod(0o755)
    options = {"RAY_SERVE_HAPROXY_BINARY_PATH": str(binary)}
    code, report, _ = run_smoke("--model", "folio", **options)
    assert code == 1
    assert "invalid_config: HAProxy's binary does not answer to -v" in report["reason"]
    assert str(binary) in report["reason"]


def test_wrong_settings_are_wrong_usage() -> None:
    code, report, errors = run_smoke("--set", "segmenter.threads=0")
    assert (code, report) == (2, {})
    assert errors.startswith("error: invalid_config")
