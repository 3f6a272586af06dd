"""What a graph is written with, and not what it computes: names, constants, functions, axes, opsets."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir

from onnxsmith.passes.engine.values import dims
from tests.fuzz.mutation import Mutation, computed, find, producer

_LOCAL = "local"


@dataclass(frozen=True)
class ConstantNode:
    """An initializer becomes a Constant node."""

    name: str = "constant-node"

    def sites(self, model: ir.Model) -> list[str]:
        return [name for name, v in model.graph.initializers.items() if v.uses()]

    def apply(self, model: ir.Model, site: str, rng: Random) -> ir.Model:
        old = model.graph.initializers.pop(site)
        node = ir.Node("", "Constant", [], [ir.AttrTensor("value", old.const_value)], name=f"constant_{site}")
        node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = site, old.shape, old.type
        model.graph.insert_before(model.graph[0], node)
        ir.convenience.replace_all_uses_with(old, node.outputs[0])
        return model


@dataclass(frozen=True)
class HalfConstant:
    """An initializer whose numbers float16 holds exactly is stored so, and widened when it is read."""

    name: str = "half-constant"

    def sites(self, model: ir.Model) -> list[str]:
        return [name for name, v in model.graph.initializers.items() if v.uses() and _fits_half(v)]

    def apply(self, model: ir.Model, site: str, rng: Random) -> ir.Model:
        old = model.graph.initializers.pop(site)
        assert old.const_value is not None
        tensor, kind = ir.tensor(old.const_value.numpy().astype(np.float16)), ir.TensorType(ir.DataType.FLOAT16)
        half = ir.Value(name=_fresh(model, f"{site}_half"), shape=old.shape, type=kind, const_value=tensor)
        model.graph.register_initializer(half)
        node = ir.Node("", "Cast", [half], [ir.AttrInt64("to", ir.DataType.FLOAT)], name=f"widened_{site}")
        node.outputs[0].name, node.outputs[0].shape, node.outputs[0].type = site, old.shape, old.type
        model.graph.insert_before(model.graph[0], node)
        ir.convenience.replace_all_uses_with(old, node.outputs[0])
        return model


def _fits_half(v: ir.Value) -> bool:
    if v.dtype != ir.DataType.FLOAT or v.const_value is None:
        return False
    numbers = v.const_value.numpy()
    with np.errstate(over="ignore"):
        return bool(np.array_equal(numbers.astype(np.float16).astype(np.float32), numbers))


@dataclass(frozen=True)
class OwnInitializer:
    """One of several users of an initializer gets a copy of its own."""

    name: str = "own-initializer"

    def sites(self, model: ir.Model) -> list[str]:
        return [name for name, v in model.graph.initializers.items() if len(v.uses()) > 1]

    def apply(self, model: ir.Model, site: str, rng: Random) -> ir.Model:
        old = model.graph.initializers[site]
        assert old.const_value is not None
        tensor = ir.tensor(old.const_value.numpy().copy())
        copy = ir.Value(name=_fresh(model, f"{site}_copy"), shape=old.shape, type=old.type, const_value=tensor)
        model.graph.register_initializer(copy)
        user, i = rng.choice(list(old.uses()))
        user.replace_input_with(i, copy)
        return model


@dataclass(frozen=True)
class VectorScalar:
    """A scalar of shape [] gets the shape [1], where that widens nothing."""

    name: str = "vector-scalar"

    def sites(self, model: ir.Model) -> list[str]:
        return [name for name, v in model.graph.initializers.items() if dims(v) == [] and _harmless(v)]

    def apply(self, model: ir.Model, site: str, rng: Random) -> ir.Model:
        old = model.graph.initializers[site]
        assert old.const_value is not None
        old.const_value = ir.tensor(old.const_value.numpy().reshape(1), name=site)
        old.shape = ir.Shape([1])
        return model


def _harmless(v: ir.Value) -> bool:
    elementwise = ("Add", "Sub", "Mul", "Div", "Pow", "Where")
    return bool(v.uses()) and all(
        n.op_type in elementwise and any(len(dims(i) or []) >= 1 for i in n.inputs if i is not v) for n, _ in v.uses()
    )


@dataclass(frozen=True)
class DeadNode:
    """A node whose result nobody reads."""

    name: str = "dead-node"

    def sites(self, model: ir.Model) -> list[str]:
        return [str(v.name) for n in model.graph for v in n.outputs if computed(v) and dims(v)]

    def apply(self, model: ir.Model, site: str, rng: Random) -> ir.Model:
        node = ir.Node("", rng.choice(("Sqrt", "Erf", "Softmax")), [find(model, site)])
        node.name = node.outputs[0].name = _fresh(model, f"{site}_dead")
        model.graph.append(node)
        return model


@dataclass(frozen=True)
class Recomputed:
    """One of several users of a result computes it anew."""

    name: str = "recomputed"

    def sites(self, model: ir.Model) -> list[str]:
        return [str(n.outputs[0].name) for n in model.graph if len(n.outputs) == 1 and len(n.outputs[0].uses()) > 1]

    def apply(self, model: ir.Model, site: str, rng: Random) -> ir.Model:
        node = producer(model, site)
        again = ir.Node(node.domain, node.op_type, node.inputs, node.attributes.values())
        again.name = again.outputs[0].name = _fresh(model, f"{site}_again")
        again.outputs[0].shape, again.outputs[0].type = node.outputs[0].shape, node.outputs[0].type
        user, i = rng.choice(list(node.outputs[0].uses()))
        user.replace_input_with(i, again.outputs[0])
        model.graph.insert_after(node, again)
        return model


@dataclass(frozen=True)
class Renamed:
    """A value with another name."""

    name: str = "renamed"

    def sites(self, model: ir.Model) -> list[str]:
        return [str(v.name) for n in model.graph for v in n.outputs if not v.is_graph_output()]

    def apply(self, model: ir.Model, site: str, rng: Random) -> ir.Model:
        find(model, site).name = _fresh(model, f"/model/{site}:0")
        return model


@dataclass(frozen=True)
class ForgottenShapes:
    """No value carries its type or shape."""

    name: str = "forgotten-shapes"

    def sites(self, model: ir.Model) -> list[str]:
        return ["*"]

    def apply(self, model: ir.Model, site: str, rng: Random) -> ir.Model:
        for v in (v for n in model.graph for v in n.outputs if not v.is_graph_output()):
            v.shape = v.type = None
        return model


@dataclass(frozen=True)
class OtherAxis:
    """An axis counted from the other end."""

    name: str = "other-axis"

    def sites(self, model: ir.Model) -> list[str]:
        return [str(n.outputs[0].name) for n in model.graph if "axis" in n.attributes and dims(n.inputs[0]) is not None]

    def apply(self, model: ir.Model, site: str, rng: Random) -> ir.Model:
        node = producer(model, site)
        rank, axis = len(dims(node.inputs[0]) or []), node.attributes["axis"].as_int()
        node.attributes["axis"] = ir.AttrInt64("axis", axis - rank if axis >= 0 else axis + rank)
        return model


@dataclass(frozen=True)
class Outlined:
    """A node becomes a call of a function that holds it."""

    name: str = "function"

    def sites(self, model: ir.Model) -> list[str]:
        return [str(n.outputs[0].name) for n in model.graph if not n.domain and n.inputs and all(n.inputs)]

    def apply(self, model: ir.Model, site: str, rng: Random) -> ir.Model:
        node, name = producer(model, site), f"Function{len(model.functions)}"
        inputs = [ir.Value(name=f"in{i}") for i in range(len(node.inputs))]
        body = ir.Node("", node.op_type, inputs, node.attributes.values(), num_outputs=len(node.outputs))
        for i, v in enumerate(body.outputs):
            v.name = f"out{i}"
        graph = ir.Graph(inputs, body.outputs, nodes=[body], opset_imports=dict(model.opset_imports))
        model.functions[_LOCAL, name, ""] = ir.Function(_LOCAL, name, graph=graph, attributes=[])
        model.opset_imports[_LOCAL] = 1
        call = ir.Node(_LOCAL, name, node.inputs, num_outputs=len(node.outputs), name=f"call_{node.name}")
        for before, after in zip(node.outputs, call.outputs, strict=True):
            after.name, after.shape, after.type = before.name, before.shape, before.type
            before.name = f"{before.name}_inlined"
            ir.convenience.replace_all_uses_with(before, after, replace_graph_outputs=True)
        model.graph.insert_before(node, call)
        model.graph.remove(node, safe=True)
        return model


@dataclass(frozen=True)
class LaterOpset:
    """The same graph at a later opset; reductions then take their axes as an input."""

    name: str = "later-opset"

    def sites(self, model: ir.Model) -> list[str]:
        return [] if model.functions else [str(v) for v in range(model.opset_imports[""] + 1, 24)]

    def apply(self, model: ir.Model, site: str, rng: Random) -> ir.Model:
        return ir.from_proto(onnx.version_converter.convert_version(ir.to_proto(model), int(site)))


def _fresh(model: ir.Model, hint: str) -> str:
    taken = {str(v.name) for n in model.graph for v in n.outputs} | set(model.graph.initializers)
    return next(name for i in range(len(taken) + 1) if (name := f"{hint}.{i}") not in taken)


MUTATIONS: list[Mutation] = [
    ConstantNode(),
    HalfConstant(),
    OwnInitializer(),
    VectorScalar(),
    DeadNode(),
    Recomputed(),
    Renamed(),
    ForgottenShapes(),
    OtherAxis(),
    Outlined(),
    LaterOpset(),
]
