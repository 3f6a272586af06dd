"""The original graph in float64: the truth that every rewrite is measured against.

Memory stays near that of the activations: a weight is doubled when a node reads it, and values go after their last use.

Everything that is computed from weights or float inputs is computed in double precision. Cones that turn numbers
derived from lengths and ids into integers or booleans stay in float32: in double, the logarithms of a
relative-position table fall into other buckets, and the comparison would be of two different models.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from onnxsmith.passes.canonicalize import infer
from onnxsmith.passes.engine.values import constant

_SINGLE = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_TO_DISCRETE = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "ArgMax", "ArgMin", "NonZero"})
_erf = np.frompyfunc(math.erf, 1, 1)
_KEPT = 1 << 28  # bytes of doubled weights that are kept for the next run
Array = NDArray[Any]
Feeds = Mapping[str, Array]


class Erf(OpRun):
    """Exact in double precision; onnx's own rounds to float32."""

    def _run(self, x: Array) -> tuple[Array]:
        return (np.asarray(_erf(x), dtype=x.dtype),)


class Gelu(OpRun):
    """Gelu-20 in the input's precision; onnx's own expands to float32 constants."""

    def _run(self, x: Array, approximate: str = "none") -> tuple[Array]:
        if approximate == "tanh":
            curve = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        else:
            curve = np.asarray(_erf(x / math.sqrt(2)), dtype=x.dtype)
        return ((0.5 * x * (1 + curve)).astype(x.dtype),)


class CumSum(OpRun):
    """CumSum-14 with the axis as a scalar or, as exporters write it, a vector of one."""

    def _run(self, x: Array, axis: Array, exclusive: int = 0, reverse: int = 0) -> tuple[Array]:
        at = int(np.asarray(axis).item())
        run = np.flip(x, at) if reverse else x
        total = np.cumsum(run, axis=at, dtype=x.dtype)
        total = total - run if exclusive else total
        return (np.flip(total, at) if reverse else total,)


class GatherElements(OpRun):
    """GatherElements-13 for tables of any length; onnx's own stops at 64 rows."""

    def _run(self, data: Array, indices: Array, axis: int = 0) -> tuple[Array]:
        at = axis % data.ndim
        within = tuple(slice(None) if i == at else slice(n) for i, n in enumerate(indices.shape))
        return (np.take_along_axis(data[within], indices, at),)  # negative indices count from the end, as ONNX's do


_OPERATORS = (Erf, Gelu, CumSum, GatherElements)
for _operator in _OPERATORS:
    _operator.op_domain = ""


class Reference:
    """Evaluates a model in float64. The model is copied, its weights are not; the copy lives on first use."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Outputs by name, float ones as float64; feeds that the model does not take are left out.

        Raises what onnx.reference raises on operators it lacks.
        """
        evaluator, weights = self._double
        taken = {k: v for k, v in feeds.items() if k in evaluator.input_names and k not in weights}
        given = {k: v.astype(np.float64) if _is_single(v) else v for k, v in taken.items()}
        with np.errstate(all="ignore"):  # masks of -inf make NaN on purpose
            return _evaluated(evaluator, given, weights)

    @cached_property
    def _double(self) -> tuple[ReferenceEvaluator, Weights]:
        proto, weights = to_double(self._model)
        return ReferenceEvaluator(proto, new_ops=list(_OPERATORS)), weights


class Weights(Mapping[str, Array]):
    """Weights by name as what they are fed as; those that need it are doubled when they are read."""

    def __init__(self) -> None:
        self._tensors: dict[str, ir.TensorProtocol] = {}
        self._single: set[str] = set()
        self._made: dict[str, Array] = {}

    def add(self, name: str, tensor: ir.TensorProtocol, *, doubled: bool) -> None:
        self._tensors[name] = tensor
        self._single |= {name} if doubled else set()

    def __getitem__(self, name: str) -> Array:
        if name in self._made:
            return self._made[name]
        array = self._tensors[name].numpy()
        array = array.astype(np.float64) if name in self._single else array
        if array.nbytes + sum(kept.nbytes for kept in self._made.values()) <= _KEPT:
            self._made[name] = array
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _evaluated(evaluator: ReferenceEvaluator, feeds: Feeds, weights: Weights) -> dict[str, Array]:
    """What ``evaluator.run`` gives by name; but that holds all weights and values at a time."""
    if any(node.need_context() for node in evaluator.rt_nodes_):  # bodies may read any of them
        return dict(zip(evaluator.output_names, evaluator.run(None, {**weights, **feeds}), strict=True))
    values: dict[str, Any] = {"": None, **evaluator.rt_inits_, **feeds}
    last = {name: i for i, node in enumerate(evaluator.rt_nodes_) for name in node.input}
    wanted = set(evaluator.output_names)
    for i, node in enumerate(evaluator.rt_nodes_):
        made = node.run(*(values[name] if name in values else weights[name] for name in node.input))
        values.update(zip(node.output, made, strict=False))
        for name in {*node.input, *node.output} - wanted:
            if name and last.get(name, i) == i:
                values.pop(name, None)
    return {name: values[name] if name in values else weights[name] for name in evaluator.output_names}


def _is_single(v: Array) -> bool:
    return v.dtype in (np.float32, np.float16) or v.dtype.name == "bfloat16"


def to_double(model: ir.Model) -> tuple[onnx.ModelProto, Weights]:
    """The model with float64 in place of lower precisions, and its initializers to feed by name."""
    model = model.clone()
    if model.functions:  # their bodies hold single precision as well, and no types at all
        model = common.InlinePass()(model).model
    infer(model)  # an exporter need not record the types by which the discrete cones are found
    kept = {n for graph in model.graphs() for n in _discrete_cones(graph)}
    weights = Weights()
    for graph in model.graphs():
        _convert_nodes(graph, kept)
        for name, v in list(graph.initializers.items()):
            assert v.const_value is not None
            _detach_weight(graph, name, v, kept, weights)
    for v in model.graph.inputs:
        if v.dtype in _SINGLE:
            v.type = ir.TensorType(ir.DataType.DOUBLE)  # a new type: clones share the old one
    for v in [v for n in model.graph.all_nodes() for v in n.outputs]:
        v.type, v.shape = None, None
    for v in model.graph.outputs:
        v.type = ir.TensorType(ir.DataType.DOUBLE)  # the evaluator wants one and does not look at it
    return ir.to_proto(model), weights


def _detach_weight(graph: ir.Graph, name: str, v: ir.Value, kept: set[ir.Node], weights: Weights) -> None:
    """Feed a weight as an input, in double, and a second time in its own precision for the cones that keep it."""
    tensor = v.const_value
    assert tensor is not None
    del graph.initializers[name]
    v.const_value = None
    weights.add(name, tensor, doubled=tensor.dtype in _SINGLE)
    if v not in graph.inputs:
        graph.inputs.append(v)
    uses = [(n, i) for n, i in v.uses() if n in kept]
    if tensor.dtype in _SINGLE and uses:
        single = ir.Value(name=f"{name}/single", type=ir.TensorType(tensor.dtype), shape=v.shape)
        weights.add(f"{name}/single", tensor, doubled=False)
        graph.inputs.append(single)
        for node, i in uses:
            node.replace_input_with(i, single)
    v.type = ir.TensorType(ir.DataType.DOUBLE if tensor.dtype in _SINGLE else tensor.dtype)


def _discrete_cones(graph: ir.Graph) -> set[ir.Node]:
    """Nodes whose float results only decide an integer or a boolean and depend on no weights or float inputs."""
    ends = [n for n in graph if _is_discrete(n)]
    kept: set[ir.Node] = set()
    for end in ends:
        cone = _float_cone(end)
        if cone is not None:
            kept |= cone
    return kept


def _is_discrete(node: ir.Node) -> bool:
    to = node.attributes.get("to")
    casts = node.op_type == "Cast" and to is not None and not ir.DataType(to.value).is_floating_point()
    return (casts or node.op_type in _TO_DISCRETE) and any(_floats(v) for v in node.inputs)


def _floats(v: ir.Value | None) -> bool:
    return v is not None and v.dtype is not None and v.dtype.is_floating_point()


def _float_cone(end: ir.Node) -> set[ir.Node] | None:
    cone: set[ir.Node] = set()
    stack = [end]
    while stack:
        node = stack.pop()
        if node in cone:
            continue
        cone.add(node)
        for v in node.inputs:
            if v is None or not _floats(v):
                continue
            tensor = constant(v)
            if v.is_graph_input() or (tensor is not None and tensor.size > 1 and v.is_initializer()):
                return None
            if (producer := v.producer()) is not None:
                stack.append(producer)
    return cone


def _convert_nodes(graph: ir.Graph, kept: set[ir.Node]) -> None:
    for node in list(graph):
        if node in kept:
            _cast_results(node, kept)
            continue
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype in _SINGLE:
                node.attributes[name] = ir.AttrTensor(name, ir.tensor(attribute.value.numpy().astype(np.float64)))
            elif node.op_type == "Constant" and name in ("value_float", "value_floats"):
                del node.attributes[name]
                node.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.asarray(attribute.value, np.float64)))
            elif node.op_type == "Cast" and name == "to" and ir.DataType(attribute.value) in _SINGLE:
                node.attributes["to"] = ir.AttrInt64("to", ir.DataType.DOUBLE)
        if node.op_type == "ConstantOfShape" and "value" not in node.attributes:
            node.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.zeros(1, np.float64)))


def _cast_results(node: ir.Node, kept: set[ir.Node]) -> None:
    """Where a float32 cone is read by the rest of the graph, the rest reads doubles."""
    for v in [v for v in node.outputs if v.dtype in _SINGLE]:
        readers = [(n, i) for n, i in v.uses() if n not in kept]
        if not readers or node.graph is None:
            continue
        cast = ir.node("Cast", [v], {"to": int(ir.DataType.DOUBLE)})
        cast.outputs[0].name = f"{v.name}/double"
        node.graph.insert_after(node, cast)
        for reader, i in readers:
            reader.replace_input_with(i, cast.outputs[0])
