"""Which positions count once padding was removed: verification's side of ``passes/optimize/unpad``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxsmith.compiler.inputs import Case
from onnxsmith.passes.optimize.unpad import allowed_positions


def counting(compiled: ir.Model, cases: Sequence[Case]) -> list[Case]:
    """The cases with ``rows`` narrowed to the allowed positions [B, S] where the compiled model has no padding."""
    found = [(case, allowed_positions(compiled, case.feeds)) for case in cases]
    return [case if allowed is None else replace(case, rows=allowed) for case, allowed in found]
