"""The type of all pixel arrays, and the value from which a pixel belongs to the subject."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""Values of 0 to 255. Docstrings give the shape: height first, then width, then channels."""

SUBJECT_ALPHA_FROM = 128
"""Lowest alpha, 0 to 255, of a pixel that belongs to the subject."""
