"""What a target can run: the question that lowering asks before it emits an operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxsmith.passes.engine.match import Match, Requirement
from onnxsmith.passes.engine.mismatch import Mismatch

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Kernel:
    """One operator of one provider: its element types, and where the entry comes from.

    ``cost`` is the measured time relative to what the operator replaces; above 1 the operator is left alone.
    """

    domain: str
    op_type: str
    dtypes: frozenset[ir.DataType]
    cost: float
    source: str


@dataclass(frozen=True)
class Kernels:
    """The kernel table of one target."""

    target: str
    table: Mapping[tuple[str, str], Kernel]

    def runs(self, domain: str, op_type: str, value: str) -> Requirement:
        """Require a kernel for the operator in the named value's element type that is no slower."""

        def check(m: Match) -> Mismatch | None:
            v = m[value]
            kernel = self.table.get((domain, op_type))
            name = f"{domain or 'ai.onnx'}.{op_type}"
            if kernel is None or v.dtype not in kernel.dtypes:
                return Mismatch("kernel", f"a {self.target} kernel of {name}", v, v)
            if kernel.cost > 1:
                return Mismatch("cost", f"{name} to be no slower than what it replaces", f"{kernel.cost}x", v)
            return None

        return check
