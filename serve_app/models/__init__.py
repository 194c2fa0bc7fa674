"""Models: what is known about each, where its weights are, and how it is run."""

import os

# ONNX Runtime sends what it runs to Microsoft, under an id that it keeps in the home folder. It
# reads this when it is imported, which only modules of this folder do.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
