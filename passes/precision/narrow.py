"""Weights and activations in 16 bits, with casts where the two widths meet: one mechanism for fp16 and bf16.

    float32 input ─ Cast ─ 16-bit operators ─ Cast ─ float32 island ─ Cast ─ 16-bit operators ─ Cast ─ float32 output

Every value is cast at most once in each direction. A mask that leaves the 16-bit range is clipped to half of it before
its cast: blocked stays blocked, but a row without any key, whose scores the range of float32 drowned, now shows them.

What one run hands on to another, the keys and values of a cache or of a source, is of 16 bits on both sides: a cast
would copy it at each step, and attention could not append to it in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.cache.record import changed, handed_on, recorded
from onnxsmith.passes.engine.absent import derived
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.provenance import module_of
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.engine.values import constant
from onnxsmith.passes.lower.kernels import Kernels
from onnxsmith.passes.precision.formats import Format
from onnxsmith.passes.precision.islands import Islands, is_float, touches_floats


def narrow(
    model: ir.Model, form: Format, kernels: Kernels, largest: Mapping[str, float], keep_io: bool = True
) -> list[Remark]:
    """Convert the model's main graph in place; one remark for each node that stays in float32.

    Args:
        model: Float32, canonical, lowered.
        form: What to convert to.
        kernels: Of the target; ``narrow`` is the format's type.
        largest: Largest magnitude seen, by value name; values that are absent count as small.
        keep_io: Leave the graph's inputs and outputs float32, save what one run hands on to another.
    """
    graph = model.graph
    islands = Islands(graph, form, kernels, largest)
    given = {v for v in (*graph.inputs, *graph.outputs) if is_float(v) and not v.is_initializer()}
    narrow_io = given & _handed(model, islands) if keep_io else given
    conversion = _Conversion(graph, form, islands, Names(model), narrow_io)
    conversion.run()
    _record(model)
    name = f"{form.name}-island"
    refused = {n: f"{why}, but {n.op_type} has no float32 kernel" for n, why in islands.refused.items()}
    told = {**islands.reasons, **refused}
    wide = [Remark("analysis", name, str(n.name), module_of(n), reason=why) for n, why in told.items()]
    return wide + conversion.clipped


def _handed(model: ir.Model, islands: Islands) -> set[ir.Value]:
    """What one run hands on to another. A cache stays float32, all of it, where one layer's attention does."""
    graph, names, cache = model.graph, handed_on(model), recorded(model)
    if cache is not None:
        wide = any(v.producer() in islands.reasons for v in graph.outputs if v.name in cache.present)
        names -= {*cache.past, *cache.present} if wide else set()
    return {v for v in (*graph.inputs, *graph.outputs) if v.name in names}


def _record(model: ir.Model) -> None:
    """Let the cache's record tell the type that past now has."""
    cache = recorded(model)
    kinds = [v.dtype for v in model.graph.inputs if cache is not None and v.name in cache.past]
    if kinds and kinds[0] is not None:
        changed(model, dtype=str(kinds[0].numpy()))


@dataclass
class _Conversion:
    """One conversion: the casts and constants made so far, each once for all that read it.

    ``narrow_io`` are inputs and outputs that change their type; the others keep theirs.
    """

    graph: ir.Graph
    form: Format
    islands: Islands
    names: Names
    narrow_io: set[ir.Value]
    down: dict[ir.Value, ir.Value] = field(default_factory=dict)
    up: dict[ir.Value, ir.Value] = field(default_factory=dict)
    clipped: list[Remark] = field(default_factory=list)

    def run(self) -> None:
        """Types first, since a cast is needed where the types of the two ends differ."""
        narrow = [n for n in self.graph if self._is_narrow(n)]
        wide = [n for n in self.graph if n in self.islands.reasons]
        results = {v for n in narrow for v in n.outputs if is_float(v)}
        results |= self.narrow_io.intersection(self.graph.inputs)
        for v in results:
            v.type = ir.TensorType(self.form.dtype)
        for node in narrow:
            self._feed(node, {v for v in node.inputs if v is not None and is_float(v)}, self._narrowed)
        for node in wide:
            self._feed(node, results.intersection(v for v in node.inputs if v is not None), self._widened)
        self._settle_outputs(results)
        for name in [name for name, v in self.graph.initializers.items() if not v.uses() and not v.is_graph_output()]:
            del self.graph.initializers[name]

    def _is_narrow(self, node: ir.Node) -> bool:
        return touches_floats(node) and node not in self.islands.reasons

    def _feed(self, node: ir.Node, values: set[ir.Value], converted: Callable[[ir.Value], ir.Value]) -> None:
        for i, v in enumerate(node.inputs):
            if v is not None and v in values:
                node.replace_input_with(i, converted(v))

    def _narrowed(self, v: ir.Value) -> ir.Value:
        if v not in self.down:
            tensor = constant(v)
            self.down[v] = self._cast(v, self.form.dtype) if tensor is None else self._constant(v, tensor)
        return self.down[v]

    def _widened(self, v: ir.Value) -> ir.Value:
        if v not in self.up:
            self.up[v] = self._cast(v, ir.DataType.FLOAT)
        return self.up[v]

    def _constant(self, v: ir.Value, tensor: ir.TensorProtocol) -> ir.Value:
        op, shape = Builder(), ir.Shape(tensor.shape.numpy())
        rounded = derived(tensor, self.form.rounded, shape, self.form.dtype)
        made = op.lazy_constant(rounded, f"{v.name}_{self.form.name}")
        self.names.adopt(self.graph, op)
        return made

    def _cast(self, v: ir.Value, to: ir.DataType) -> ir.Value:
        op = Builder()
        clips = v in self.islands.beyond and to == self.form.dtype
        cast = op.Cast(self._clip(op, v) if clips else v, to=to)
        cast.name, cast.type, cast.shape = f"{v.name}_{to.name.lower()}", ir.TensorType(to), v.shape
        self.names.adopt(self.graph, op)
        self._insert(v, op.nodes)
        return cast

    def _clip(self, op: Builder, v: ir.Value) -> ir.Value:
        bound = self.form.largest / 2
        low, high = (op.constant(x, "clip", np.float32) for x in (-bound, bound))
        inside = op.Clip(v, low, high)
        inside.type, inside.shape = v.type, v.shape
        reason = f"its values beyond {bound:.4g} are clipped to that"
        self.clipped.append(Remark("analysis", f"{self.form.name}-mask", str(v.name), reason=reason))
        return inside

    def _insert(self, v: ir.Value, nodes: list[ir.Node]) -> None:
        """Right behind what gives the value, or first of all behind a graph input."""
        producer = v.producer()
        if producer is not None:
            self.graph.insert_after(producer, nodes)
        else:
            self.graph.insert_before(self.graph[0], nodes)

    def _settle_outputs(self, results: set[ir.Value]) -> None:
        """Outputs keep their names, and their type where the interface is kept."""
        for i, v in enumerate(self.graph.outputs):
            if v in results and v not in self.narrow_io:
                name, v.name = v.name, f"{v.name}_{self.form.name}"
                self.graph.outputs[i] = self._widened(v)
                self.graph.outputs[i].name = name
            elif v in self.narrow_io and is_float(v):
                name, v.name = v.name, f"{v.name}_fp32"
                self.graph.outputs[i] = self._narrowed(v)
                self.graph.outputs[i].name = name
