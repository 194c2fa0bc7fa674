"""The type of all pixel arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""Values of 0 to 255. Docstrings give the shape: height first, then width, then channels."""
