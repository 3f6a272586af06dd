"""Whether products of 8-bit integers saturate on this machine, asked by computing one that would.

x86 without VNNI adds neighbouring products of unsigned and signed bytes in 16 bits: 2 x 255 x 127 does not fit there,
and ONNX Runtime then gives a wrong sum. Weights of 7 bits fit everywhere.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnx_ir as ir

from onnxsmith.compiler.session import run_model

_K = 64
_PRODUCT = f"""
<ir_version: 10, opset_import: ["" : 21]>
product (uint8[1, {_K}] a, int8[{_K}, 32] b) => (int32[1, 32] y) {{ y = MatMulInteger(a, b) }}
"""


@cache
def saturates() -> bool:
    """Whether ONNX Runtime's product of the largest codes of uint8 and int8 is wrong here."""
    run = run_model(ir.from_proto(onnx.parser.parse_model(_PRODUCT)))
    largest = {"a": np.full((1, _K), 255, np.uint8), "b": np.full((_K, 32), 127, np.int8)}
    return bool(np.any(run(largest)["y"] != _K * 255 * 127))
