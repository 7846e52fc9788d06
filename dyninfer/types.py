"""Element types of arrays that travel through the whole package."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ImageArray = npt.NDArray[np.uint8]
AnyArray = npt.NDArray[Any]
