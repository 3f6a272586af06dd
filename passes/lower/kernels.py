"""What a target can run: the question that lowering asks before it emits an operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.lower.shape_class import shape_class

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
class Interval:
    """Time of an operator over that of what it replaces: the median ratio, and the interval that holds it."""

    ratio: float
    low: float
    high: float

    @property
    def faster(self) -> bool:
        return self.high < 1

    @property
    def slower(self) -> bool:
        return self.low > 1

    def __str__(self) -> str:
        return f"{self.ratio:.2f}x ({self.low:.2f}-{self.high:.2f})"


Site = tuple[str, str]  # an operator and the shape class of what it would replace


@dataclass(frozen=True)
class Measured:
    """What `tune` found on this machine. ``decided`` collects the sites where that decided, for the manifest."""

    intervals: Mapping[Site, Interval]
    decided: dict[Site, Interval] = field(default_factory=dict, compare=False)

    def at(self, site: Site) -> Interval | None:
        """The measurement of the site, where it tells faster from slower."""
        found = self.intervals.get(site)
        if found is None or not (found.faster or found.slower):
            return None
        self.decided[site] = found
        return found


@dataclass(frozen=True)
class Kernels:
    """The kernel table of one target.

    ``narrow`` is the type that a later pass gives to float32 values: kernels must exist in that one. ``measured``
    goes before the table's costs.
    """

    target: str
    table: Mapping[tuple[str, str], Kernel]
    narrow: ir.DataType | None = None
    measured: Measured | None = None

    def has(self, domain: str, op_type: str, dtype: ir.DataType | None) -> bool:
        """Whether the operator has a kernel in the type that values of ``dtype`` will have."""
        kernel = self.table.get((domain, op_type))
        wanted = self.narrow if self.narrow is not None and dtype == ir.DataType.FLOAT else dtype
        return kernel is not None and wanted in kernel.dtypes

    def runs(self, domain: str, op_type: str, value: str) -> Runs:
        """Require a kernel for the operator in the named value's element type that is no slower."""
        return Runs(self, domain, op_type, value)

    def at_any_cost(self) -> Kernels:
        """The same kernels, all of them to be chosen: what `tune` compares."""
        free = {key: replace(kernel, cost=None) for key, kernel in self.table.items()}
        return replace(self, table=free, measured=None)

    def without(self, operator: str) -> Kernels:
        """The same kernels but one, which is what that one is compared with."""
        return replace(self, table={key: kernel for key, kernel in self.table.items() if full_name(*key) != operator})


def full_name(domain: str, op_type: str) -> str:
    return f"{domain or 'ai.onnx'}.{op_type}"


@dataclass(frozen=True)
class Runs:
    """The requirement that an operator has a kernel, and that it is no slower than what it replaces."""

    kernels: Kernels
    domain: str
    op_type: str
    value: str

    @property
    def operator(self) -> str:
        return full_name(self.domain, self.op_type)

    def __call__(self, m: Match) -> Mismatch | None:
        v, kernels = m[self.value], self.kernels
        if not kernels.has(self.domain, self.op_type, v.dtype):
            return Mismatch("kernel", f"a {kernels.target} kernel of {self.operator}", v, v)
        expected = f"{self.operator} to be no slower than what it replaces"
        measured = kernels.measured.at((self.operator, shape_class(m).text)) if kernels.measured else None
        if measured is not None:
            return Mismatch("cost", expected, f"{measured}, measured here", v) if measured.slower else None
        cost = kernels.table[self.domain, self.op_type].cost
        return Mismatch("cost", expected, f"{cost}x", v) if cost is not None and cost > 1 else None
