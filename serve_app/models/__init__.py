"""Models: what is known about each, where its weights are, and how it is run."""

import os
import sys

# ONNX Runtime sends what it runs to Microsoft, under an id that it keeps in the home folder. It
# reads this when it is imported, which only modules of this folder do.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenVINO's import sends an event to Google, and keeps an id in the home folder. It does neither if
# this package cannot be imported, which is what None means here.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
