"""Parts of a graph that stand alone: some of its nodes, what they read as inputs, what they give as outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler.bodies import reads
from onnxsmith.compiler.reduce.trial import Values, attempt
from onnxsmith.compiler.reference import Reference
from onnxsmith.compiler.region import cut, expose, is_weight
from onnxsmith.passes.canonicalize import infer


def part(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A model of the nodes that give the named values; it shares the weights."""
    wanted = set(names)
    chosen = [node for node in model.graph if any(v.name in wanted for v in node.outputs)]
    made = {v for node in chosen for v in node.outputs}
    taken = dict.fromkeys(v for node in chosen for v in reads(node) if v not in made and not is_weight(v))
    read_inside = {v for node in chosen for v in reads(node)}
    given = [v for node in chosen for v in node.outputs if v.name and (v.is_graph_output() or v not in read_inside)]
    return cut(model, tuple(str(v.name) for v in taken), tuple(str(v.name) for v in given))


def first_outputs(model: ir.Model) -> list[str]:
    """The nodes of the main graph in order, each by the name of the first value that it gives."""
    return [str(next(v.name for v in node.outputs if v.name)) for node in model.graph]


def inputs_of(model: ir.Model) -> list[str]:
    """The inputs that a run must give."""
    return [str(v.name) for v in model.graph.inputs if not v.is_initializer()]


def capture(model: ir.Model, feeds: Values) -> dict[str, NDArray[Any]]:
    """Every value of the main graph on these feeds, as far as it can be computed by the runtime or the evaluator."""
    inner = [str(v.name) for node in model.graph for v in node.outputs if v.name]
    exposed = expose(model, inner)
    ran = attempt(exposed, feeds)
    if ran.kind == "fine":
        return {**feeds, **ran.outputs}
    try:
        found = Reference(exposed).run(feeds)
    except Exception:  # the evaluator stops at the first operator it lacks, and gives nothing
        return dict(feeds)
    types = {v.name: v.dtype for v in exposed.graph.outputs}
    narrow = {name: v.astype(_numpy(types[name], v)) for name, v in found.items()}
    return {**feeds, **narrow}


def _numpy(dtype: ir.DataType | None, like: NDArray[Any]) -> Any:
    return dtype.numpy() if dtype is not None else like.dtype


def typed(model: ir.Model, values: Values) -> ir.Model:
    """A copy whose inner values carry their types, so that any of them can become an input."""
    clone = model.clone()
    infer(clone)
    for node in clone.graph:
        for v in node.outputs:
            known = values.get(str(v.name))
            if v.dtype is None and known is not None:
                v.type = ir.TensorType(ir.DataType.from_numpy(known.dtype))
    return clone
