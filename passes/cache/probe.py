"""Evaluating a cone on numbers: what a mask or a position says, whatever its spelling.

This is evidence, not proof; verification of the whole follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from onnxsmith.passes.cache.cones import ALL, Cones, Copies
from onnxsmith.passes.cache.text import Refused
from onnxsmith.passes.engine.build import Builder, detach
from onnxsmith.passes.engine.values import constant, dims, readable

Array = NDArray[Any]
_LOW = -1e4  # a score moved by more is blocked
_SOURCE = 4  # tokens of another text, all of which count


class Probe:
    """A value of the cones as a function of the mask [B, T]. Refuses what onnx.reference cannot evaluate.

    Of another text there are four tokens, and zeros in place of what an encoder made of them.
    """

    def __init__(self, cones: Cones, v: ir.Value) -> None:
        op, own = Builder(), cones.text.mask
        self._dtype = own.dtype.numpy() if own is not None and own.dtype is not None else np.int64
        ids, mask = ir.Value(name="ids"), ir.Value(name="mask")
        made = Copies(cones, op, ids, mask).at(v, ALL)
        label(op, "probe")
        self._source = cones.text.source
        self._evaluator = evaluator(op.nodes, [ids, mask, *self._source], made, opsets_of(v))
        detach(op.nodes)

    def __call__(self, mask: Array) -> Array:
        try:
            with np.errstate(all="ignore"):
                feeds = {"ids": np.zeros(mask.shape, np.int64), "mask": mask.astype(self._dtype)}
                feeds |= {str(v.name): _source(v, len(mask)) for v in self._source}
                found: Any = self._evaluator.run(None, feeds)
        except Exception as e:  # onnx.reference has its own ways to say that it lacks an operator
            raise Refused(f"a mask or a position cannot be evaluated: {str(e).splitlines()[0]}") from e
        return np.asarray(found[0])


def label(op: Builder, name: str) -> None:
    """Name what was built, which is in no graph yet, so that it can be evaluated."""
    for i, output in enumerate(output for node in op.nodes for output in node.outputs):
        output.name = f"{name}_{i}"
    for i, value in enumerate(op.constants):
        value.name = f"{name}_constant_{i}"


def _source(v: ir.Value, batch: int) -> Array:
    assert v.dtype is not None, "an input has a type"
    shape = [batch, *(d if isinstance(d, int) else _SOURCE for d in (dims(v) or [])[1:])]
    return np.full(shape, not v.dtype.is_floating_point(), v.dtype.numpy())


def evaluator(
    nodes: Sequence[ir.Node], inputs: Sequence[ir.Value], output: ir.Value, opsets: Mapping[str, int]
) -> ReferenceEvaluator:
    """The nodes, in order, as a function of the inputs; what else they read is constant, or computed from that."""
    nodes = with_sources(nodes, inputs)
    constants = {v for node in nodes for v in node.inputs if v is not None and constant(v) is not None}
    proto = onnx.helper.make_graph(
        [ir.to_proto(node) for node in nodes],
        "probe",
        [onnx.helper.make_value_info(str(v.name), onnx.TypeProto()) for v in inputs],
        [onnx.helper.make_value_info(str(output.name), onnx.TypeProto())],
        [_tensor(v) for v in constants],
    )
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    return ReferenceEvaluator(onnx.helper.make_model(proto, opset_imports=imports))


def with_sources(nodes: Sequence[ir.Node], inputs: Sequence[ir.Value]) -> list[ir.Node]:
    """The nodes behind all that they read, down to the inputs, in order."""
    found: dict[ir.Node, None] = {}
    stack = [(node, False) for node in reversed(nodes)]
    while stack:
        node, ready = stack.pop()
        if ready:
            found[node] = None
        elif node not in found:
            sources = [v.producer() for v in node.inputs if v is not None and v not in inputs]
            stack += [(node, True), *((source, False) for source in sources if source is not None)]
    return list(found)


def opsets_of(v: ir.Value) -> Mapping[str, int]:
    """The opsets of the graph that computes the value."""
    producer = v.producer()
    assert producer is not None and producer.graph is not None, "only what a graph computes is probed"
    return producer.graph.opset_imports


def _tensor(v: ir.Value) -> onnx.TensorProto:
    tensor = constant(v)
    assert tensor is not None
    if not readable(tensor):
        raise Refused(f"{v.name} is absent from this structure, and a mask or a position is computed from it")
    return onnx.numpy_helper.from_array(tensor.numpy(), str(v.name))


def allowed(mask: Array) -> NDArray[np.bool_]:
    """Where an attention mask, boolean or additive, lets a query see a key."""
    return np.asarray(mask if mask.dtype == bool else mask > _LOW)


def padded(length: int) -> dict[str, Array]:
    """Masks [3, T] of rows of several lengths, by where their padding stands."""
    steps, kept = np.arange(length), np.array([[length], [length - 2], [1]])
    return {"right": (steps < kept).astype(np.int64), "left": (steps >= length - kept).astype(np.int64)}
