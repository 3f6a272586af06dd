"""The two 16-bit floats. Sources: IEEE 754-2008, binary16; Kalamkar et al. 2019 (bfloat16), arXiv:1905.12322."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[np.generic]


@dataclass(frozen=True)
class Format:
    """``largest`` is the largest finite number."""

    name: str
    dtype: ir.DataType
    largest: float

    def rounded(self, x: Array) -> Array:
        """x in this format; what lies beyond its range becomes infinite."""
        with np.errstate(over="ignore"):
            return x.astype(self.dtype.numpy())


FP16 = Format("fp16", ir.DataType.FLOAT16, 65504.0)
BF16 = Format("bf16", ir.DataType.BFLOAT16, float.fromhex("0x1.fep127"))
FORMATS = {form.name: form for form in (FP16, BF16)}
