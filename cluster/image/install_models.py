"""Put the weights of the image's models into ``U2NET_HOME``, compared with rembg's release.

install_models.py WEIGHTS_FOLDER "NAME NAME" "NAMES WHOSE LICENCE IS ACCEPTED"
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from serve_app.config import AppConfig
from serve_app.errors import ForeedgeError, InvalidConfig
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.fetch import fetch_weights
from serve_app.models.registry import BUNDLED_MODEL


def install_models(folder: Path, names: list[str], accepted: list[str]) -> None:
    """Install the weights of models: files of a folder, and others by a download.

    Args:
        folder: Folder that may have ``NAME.onnx``.
        names: Names of models. The bundled one needs no weights.
        accepted: Models whose licence was accepted though it forbids commercial use.

    Raises:
        InvalidConfig: A licence was not accepted.
        ForeedgeError: Weights are missing or not those of the release.
    """
    for name in names:
        facts = MODEL_FACTS.get(name)
        if facts is not None and not facts.commercial_use and name not in accepted:
            raise InvalidConfig(
                f"The licence of {name} ({facts.licence}) does not allow commercial use. If yours "
                f'is another, build with --build-arg ACCEPT_LICENCE="{name}".'
            )
    config = AppConfig.load()
    for name in names:
        if name != BUNDLED_MODEL:
            source = folder if (folder / f"{name}.onnx").is_file() else None
            print(f"{name}  {fetch_weights(name, config, source)}", flush=True)
    if find_spec("openvino") is not None:
        # These load ONNX Runtime, which does not survive an emulator that shows the processor of
        # the machine below it. An image without OpenVINO can be built there.
        from ingest.cli.gate import write_shipped_gates
        from serve_app.models.engines.processor import this_machine

        for name in dict.fromkeys([BUNDLED_MODEL, *names]):
            # What was measured on one processor need not be measured by the builder, which may
            # lack it.
            for path in write_shipped_gates(name, config, this_machine()):
                print(f"{name}  {path}", flush=True)


if __name__ == "__main__":
    try:
        install_models(Path(sys.argv[1]), sys.argv[2].split(), sys.argv[3].split())
    except ForeedgeError as error:
        sys.exit(f"error: {error.code}: {error.message}")
