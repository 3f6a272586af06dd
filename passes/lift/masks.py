"""Masks by meaning: what an attention mask says, found by evaluating it instead of by its spelling.

The mask's cone is cut out down to its sources (graph inputs, constants, lengths), evaluated on probes and compared
with the few meanings there are: none, causal, key padding, both, with or without an additive bias. Two
probes with other lengths and other padding must agree. This is evidence, not proof, so it is an annotation;
verification follows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from onnxsmith.passes.engine.provenance import module_of
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.engine.values import attribute, constant, dims, readable

MASK = "onnxsmith.mask"
_LARGEST_CONE = 200
_LARGEST_TABLE = 1 << 16  # elements of a learned bias
_OPEN, _BLOCKED = -1.0, -1e4  # a score moved by less than 1 is allowed, by more than 1e4 it is not
_PROBES = ((2, 5, 5), (3, 7, 7), (1, 1, 1))
Array = NDArray[Any]


@dataclass(frozen=True)
class MaskMeaning:
    """``padding`` names the graph input [B, T] that marks keys; ``keep`` tells whether 1 there means allowed.

    Under a ``bias`` the others tell which keys are allowed, as far as that was found.
    """

    causal: bool = False
    padding: str | None = None
    keep: bool = True
    bias: bool = False

    def __str__(self) -> str:
        parts = ["additive bias"] * self.bias + ["causal"] * self.causal
        parts += [f"padding of {self.padding}"] * bool(self.padding)
        return " and ".join(parts) or "none"


_ANYTHING = MaskMeaning(bias=True)


def annotate(model: ir.Model) -> list[Remark]:
    """Write the meaning of every Attention's mask into the node's metadata; one analysis remark each."""
    remarks = []
    for node, meaning in _recognised(model).items():
        if meaning is not None:
            node.metadata_props[MASK] = json.dumps(asdict(meaning))
        text = "mask: " + (str(meaning) if meaning is not None else "not recognised")
        remarks.append(Remark("analysis", "attention-mask-meaning", str(node.name), module_of(node), reason=text))
    return remarks


def meanings(model: ir.Model) -> dict[ir.Node, MaskMeaning | None]:
    """Of every attention the meaning of its mask: the recorded one of a kernel, that of the mask of an Attention."""
    return {n: meaning_of(n) for n in model.graph.all_nodes() if MASK in n.metadata_props} | _recognised(model)


def _recognised(model: ir.Model) -> dict[ir.Node, MaskMeaning | None]:
    known: dict[ir.Value, MaskMeaning | None] = {}
    found: dict[ir.Node, MaskMeaning | None] = {}
    for node in [n for n in model.graph.all_nodes() if n.op_type == "Attention" and not n.domain]:
        mask = node.inputs[3] if len(node.inputs) > 3 else None
        if mask is not None and mask not in known:
            known[mask] = recognise(mask, model.graph)
        meaning = MaskMeaning() if mask is None else known[mask]
        if meaning in (None, _ANYTHING):
            meaning = meaning_of(node) or meaning  # told before a pass hid it
        causal = meaning is not None and attribute(node, "is_causal")
        found[node] = replace(meaning, causal=True) if meaning is not None and causal else meaning
    return found


def meaning_of(node: ir.Node) -> MaskMeaning | None:
    """The recorded meaning of an Attention's mask, or None when it was not recognised."""
    recorded = node.metadata_props.get(MASK)
    return MaskMeaning(**json.loads(recorded)) if recorded else None


def recognise(mask: ir.Value, graph: ir.Graph) -> MaskMeaning | None:
    """The meaning that fits the mask on every probe, or None."""
    cone = _cone(mask)
    if cone is None:
        return _ANYTHING
    bias = any(_is_table(v) for n in cone for v in n.inputs)
    sources = [v for v in graph.inputs if v is mask or any(v in n.inputs for n in cone)]
    try:
        model = _cone_model(mask, cone, graph)
        seen = [_probe(model, sources, shape, seed) for seed, shape in enumerate(_PROBES)]
        allowed = [(_allowed(result, bias), feeds) for result, feeds in seen]
    except Exception:  # onnx.reference raises anything on what it cannot run: then the mask stays unnamed
        return _ANYTHING if bias else None
    for meaning in _candidates(sources):
        if all(_fits(meaning, result, feeds) for result, feeds in allowed):
            return replace(meaning, bias=bias)
    return _ANYTHING if bias else None


def _cone(mask: ir.Value) -> list[ir.Node] | None:
    """The nodes that make the mask, cut at Shape; None when it depends on more weights than a table of biases has."""
    found: dict[ir.Node, None] = {}
    stack = [mask]
    while stack:
        v = stack.pop()
        tensor = constant(v)
        if tensor is not None and _is_table(v) and tensor.size > _LARGEST_TABLE:
            return None
        node = v.producer()
        if node is None or node in found:
            continue
        found[node] = None
        if len(found) > _LARGEST_CONE:
            return None
        stack += [i for i in node.inputs if i is not None and node.op_type != "Shape"]
    return list(found)


def _is_table(v: ir.Value | None) -> bool:
    """Whether a value is learned: floats of more than the two numbers that allow and block."""
    tensor = constant(v)
    if tensor is None or not tensor.dtype.is_floating_point() or tensor.size <= 2:
        return False
    return tensor.size > _LARGEST_TABLE or not readable(tensor) or np.unique(tensor.numpy()).size > 2


@dataclass(frozen=True)
class _ConeModel:
    """The cone as a model of its own: ``inputs`` are the graph's, and the tensors whose Shape it asks for."""

    evaluator: ReferenceEvaluator
    inputs: Mapping[str, ir.Value]


def _cone_model(mask: ir.Value, cone: list[ir.Node], graph: ir.Graph) -> _ConeModel:
    inputs = {str(v.name): v for v in graph.inputs}
    for node in cone:
        inputs.update({str(v.name): v for v in node.inputs if v is not None and node.op_type == "Shape"})
    order = [n for n in graph.all_nodes() if n in set(cone)]
    constants = [v for n in order for v in n.inputs if constant(v) is not None]
    proto = onnx.helper.make_graph(
        [ir.to_proto(n) for n in order],
        "mask",
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in inputs],
        [onnx.helper.make_value_info(str(mask.name), onnx.TypeProto())],
        [_tensor(v) for v in {str(v.name): v for v in constants if v is not None}.values()],
    )
    opsets = [onnx.helper.make_opsetid(d, v) for d, v in graph.opset_imports.items()]
    return _ConeModel(ReferenceEvaluator(onnx.helper.make_model(proto, opset_imports=opsets)), inputs)


def _tensor(v: ir.Value) -> onnx.TensorProto:
    tensor = constant(v)
    assert tensor is not None
    array = tensor.numpy() if readable(tensor) else np.zeros(tensor.shape.numpy(), tensor.dtype.numpy())  # no bias
    return onnx.numpy_helper.from_array(array, str(v.name))


def _probe(
    model: _ConeModel, sources: list[ir.Value], shape: tuple[int, int, int], seed: int
) -> tuple[Array, dict[str, Array]]:
    """Evaluate with symbolic dimensions bound to the probe's lengths. Returns the mask [B, H, S, T] and the feeds."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for name, v in model.inputs.items():
        size = _sizes(v, shape)
        kind = v.dtype.numpy() if v.dtype is not None else np.float32
        ones = np.ones(size, dtype=kind)
        feeds[name] = rng.integers(0, 2, size).astype(kind) if v in sources else ones
    with np.errstate(all="ignore"):  # a bias by the logarithm of distances asks for that of 0
        (mask,) = model.evaluator.run(None, feeds)
    return np.asarray(mask), feeds


def _sizes(v: ir.Value, shape: tuple[int, int, int]) -> tuple[int, ...]:
    batch, _, keys = shape
    return tuple(d if isinstance(d, int) else (batch if i == 0 else keys) for i, d in enumerate(dims(v) or []))


def _allowed(mask: Array, bias: bool) -> Array:
    """1 where a key is allowed, 0 where it is blocked; anything between makes the mask a ``bias``."""
    if mask.dtype == bool:
        return mask.astype(np.int8)
    blocked = mask <= _BLOCKED
    if not bias and (np.any((mask < _OPEN) & ~blocked) or np.any(np.abs(mask[~blocked]) > 0)):
        raise ValueError("the mask has values between allowed and blocked")
    return (~blocked).astype(np.int8)


def _candidates(sources: list[ir.Value]) -> list[MaskMeaning]:
    paddings: list[tuple[str | None, bool]] = [(None, True)]
    paddings += [(str(v.name), keep) for v in sources if len(dims(v) or []) == 2 for keep in (True, False)]
    return [MaskMeaning(causal, name, keep) for name, keep in paddings for causal in (False, True)]


def _fits(meaning: MaskMeaning, allowed: Array, feeds: Mapping[str, Array]) -> bool:
    queries, keys = allowed.shape[-2:]
    expected = np.ones((1, 1, queries, keys), dtype=bool)
    if meaning.causal:
        expected = expected & (np.arange(keys) <= np.arange(queries)[:, None] + keys - queries)
    if meaning.padding is not None:
        marked = feeds[meaning.padding].astype(bool)
        if marked.shape[-1] != keys or allowed.shape[0] not in (1, len(marked)):
            return False
        expected = expected & (marked == meaning.keep)[:, None, None, :]
    shape = np.broadcast_shapes(expected.shape, allowed.shape)
    return np.array_equal(np.broadcast_to(expected, shape), np.broadcast_to(allowed, shape))
