"""Which nodes stay in float32 when a model is narrowed to 16 bits, and why each of them does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.engine.values import constant, rank, readable
from onnxsmith.passes.lower.kernels import Kernels
from onnxsmith.passes.precision.formats import Array, Format

_MARGIN = 2.0  # other inputs may make an activation this much larger than those that were captured
_LOSS = 0.01  # of a constant's RMS; what rounding to full precision costs is a tenth (fp16) or a fifth (bf16) of it
_SUMS = frozenset({"CumSum", "ReduceL1", "ReduceL2", "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Sum"})
_STRETCHES = frozenset({"Exp", "Log", "LogSoftmax", "Pow", "Reciprocal", "Softmax", "Softplus", "Sqrt"})
_MOVES = frozenset({"Expand", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_KEEPS_SMALL = _MOVES | {"Add", "Clip", "Gather", "Identity", "Max", "Slice", "Sqrt", "Where"}
_ANY_TYPE = frozenset({"Shape", "Size"})  # what they give does not depend on their input's type
_FLOAT = ir.DataType.FLOAT


class Islands:
    """``reasons`` by node that stays in float32; ``refused`` are nodes that should, and have no float32 kernel.

    ``indexed`` are the values that integers and constants alone decide: positions, angles and masks, small tensors made
    once, in which 16 bits would lose whole numbers beyond 2048 (fp16) or 256 (bf16). ``beyond`` are those of them that
    may leave the format's range, ``tiny`` any values that the format may round to zero.
    """

    def __init__(self, graph: ir.Graph, form: Format, kernels: Kernels, largest: Mapping[str, float]) -> None:
        self.form, self.kernels, self.largest = form, kernels, largest
        self.reasons: dict[ir.Node, str] = {}
        self.refused: dict[ir.Node, str] = {}
        self.indexed: set[ir.Value] = set()
        self.beyond: set[ir.Value] = set()
        self.tiny: set[ir.Value] = set()
        self._read_inside = {v for body in graph.subgraphs() for n in body for v in n.inputs if v is not None}
        for node in graph:
            if touches_floats(node):
                self._settle(node)
        self._sink(graph)

    def _settle(self, node: ir.Node) -> None:
        reason = self._form(node) or self._index(node) or self._kernel(node) or self._small(node) or self._range(node)
        if reason is None:
            return
        kernel = self.kernels.table.get((node.domain, node.op_type))
        needs = kernel is not None and _FLOAT not in kernel.dtypes
        (self.refused if needs else self.reasons)[node] = reason

    def _form(self, node: ir.Node) -> str | None:
        """What the node is forbids it, whatever its numbers are."""
        if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
            return "the graphs inside stay as they are"
        if not self._read_inside.isdisjoint(node.outputs):
            return "a graph inside another node reads its result"
        if (
            other := next((v for v in (*node.inputs, *node.outputs) if v is not None and _other_width(v)), None)
        ) is not None:
            return f"{other.name} is a float of another width"
        return None

    def _index(self, node: ir.Node) -> str | None:
        floats = [v for v in node.inputs if v is not None and is_float(v)]
        if any(v not in self.indexed and not _is_small(v) for v in floats):
            return None
        self.indexed.update(node.outputs)
        if any(v in self.beyond or self._exceeds(v) for v in (*floats, *node.outputs)):
            self.beyond.update(node.outputs)
        self._small(node)
        return "integers and constants alone decide it: a position, an angle or a mask"

    def _kernel(self, node: ir.Node) -> str | None:
        if not any(map(is_float, node.outputs)):
            return "its result is no float, and rounding might change it"
        if not self.kernels.has(node.domain, node.op_type, _FLOAT):
            return f"{node.op_type} has no {self.form.name} kernel that is known for {self.kernels.target}"
        if node.op_type in _SUMS | _STRETCHES and not node.domain:
            return f"{node.op_type} sums or stretches its input, which {self.form.name} rounds away or overflows"
        return None

    def _small(self, node: ir.Node) -> str | None:
        """Numbers that would round to zero, such as what keeps a divisor from being one."""
        small = [v for v in node.inputs if v is not None and (v in self.tiny or self._lost(v))]
        if not small:
            return None
        if node.op_type in _KEEPS_SMALL:
            self.tiny.update(node.outputs)
        return f"{small[0].name} may be so small that {self.form.name} loses it"

    def _range(self, node: ir.Node) -> str | None:
        for v in (*node.inputs, *node.outputs):
            if v is not None and v not in self.indexed and self._exceeds(v):
                return f"{v.name} reaches {self._largest(v):.3g}"
        return None

    def _exceeds(self, v: ir.Value) -> bool:
        captured = constant(v) is None
        return self._largest(v) * (_MARGIN if captured else 1.0) > self.form.largest

    def _largest(self, v: ir.Value) -> float:
        """The largest magnitude: of a constant its own, else what was captured; 0 where nothing is known."""
        numbers = _numbers(v)
        return self.largest.get(str(v.name), 0.0) if numbers is None else float(np.abs(numbers).max(initial=0.0))

    def _lost(self, v: ir.Value) -> bool:
        """Whether rounding loses a number or a matrix. A vector is a bias or a gain: it meets something larger."""
        numbers = _numbers(v)
        if numbers is None or (numbers.size > 1 and numbers.ndim < 2):
            return False
        with np.errstate(invalid="ignore", over="ignore"):
            loss = _rms(numbers - self.form.rounded(numbers).astype(np.float32))
        return _LOSS * _rms(numbers) < loss < np.inf  # what is infinite is beyond the range instead

    def _sink(self, graph: ir.Graph) -> None:
        """A mask is narrowed before it is expanded, where all that reads it is narrow."""
        for node in reversed(graph):
            users = [user for v in node.outputs for user, _ in v.uses()]
            moves = node.op_type in _MOVES and not node.domain and self.indexed.issuperset(node.outputs)
            if moves and users and not any(u in self.reasons or u.op_type in _ANY_TYPE for u in users):
                self.reasons.pop(node, None)


def touches_floats(node: ir.Node) -> bool:
    """Whether float32 goes in or out, and its width matters to the node."""
    return node.op_type not in _ANY_TYPE and any(map(is_float, (*node.inputs, *node.outputs)))


def is_float(v: ir.Value | None) -> bool:
    """Whether the value is of the type that is narrowed."""
    return v is not None and v.dtype == _FLOAT


def _other_width(v: ir.Value) -> bool:
    return v.dtype is not None and v.dtype.is_floating_point() and v.dtype != _FLOAT


def _is_small(v: ir.Value) -> bool:
    """A constant that is no weight: a number or a vector, such as the frequencies of rotary positions."""
    return constant(v) is not None and (rank(v) or 0) <= 1


def _numbers(v: ir.Value) -> Array | None:
    tensor = constant(v)
    return tensor.numpy() if tensor is not None and tensor.dtype == _FLOAT and readable(tensor) else None


def _rms(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if x.size else 0.0
