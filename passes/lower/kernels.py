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

    ``cost`` is the measured time relative to what the operator replaces; above 1 the operator is left alone. None is
    unmeasured: the operator is taken for the reason that ``source`` gives.
    """

    domain: str
    op_type: str
    dtypes: frozenset[ir.DataType]
    cost: float | None
    source: str


@dataclass(frozen=True)
class Kernels:
    """The kernel table of one target.

    ``narrow`` is the type that a later pass gives to float32 values: kernels must exist in that one.
    """

    target: str
    table: Mapping[tuple[str, str], Kernel]
    narrow: ir.DataType | None = None

    def has(self, domain: str, op_type: str, dtype: ir.DataType | None) -> bool:
        """Whether the operator has a kernel in the type that values of ``dtype`` will have."""
        kernel = self.table.get((domain, op_type))
        wanted = self.narrow if self.narrow is not None and dtype == ir.DataType.FLOAT else dtype
        return kernel is not None and wanted in kernel.dtypes

    def runs(self, domain: str, op_type: str, value: str) -> Requirement:
        """Require a kernel for the operator in the named value's element type that is no slower."""

        def check(m: Match) -> Mismatch | None:
            v = m[value]
            name = f"{domain or 'ai.onnx'}.{op_type}"
            if not self.has(domain, op_type, v.dtype):
                return Mismatch("kernel", f"a {self.target} kernel of {name}", v, v)
            cost = self.table[domain, op_type].cost
            if cost is not None and cost > 1:
                return Mismatch("cost", f"{name} to be no slower than what it replaces", f"{cost}x", v)
            return None

        return check
