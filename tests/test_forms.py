"""The same graph in other containers: whatever holds its weights, shapes and nodes, it is fused whole all the same."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from tests.coverage.batches import batches
from tests.coverage.cell import Batch, check
from tests.coverage.exporters import EXPORTERS
from tests.coverage.exporting import build, export, torch_outputs
from tests.coverage.families import FAMILIES

Form = Callable[[onnx.ModelProto], None]
_CHUNK = 7  # nodes of a function: no multiple of what a layer has, so that functions cut through sites


def _with_shapes(model: onnx.ModelProto) -> None:
    """Whatever onnx can tell, under the names that it makes up."""
    assert not model.graph.value_info
    model.CopyFrom(onnx.shape_inference.infer_shapes(model, data_prop=True))


def _without_dims(model: onnx.ModelProto) -> None:
    """Types and ranks of inputs and outputs, and no dimension of them."""
    model.graph.ClearField("value_info")
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()


def _outputs_without_rank(model: onnx.ModelProto) -> None:
    model.graph.ClearField("value_info")
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")


def _weights_as_constants(model: onnx.ModelProto) -> None:
    made = [onnx.helper.make_node("Constant", [], [t.name], value=t) for t in model.graph.initializer]
    model.graph.ClearField("initializer")
    _put_first(model.graph, made)


def _weights_as_inputs(model: onnx.ModelProto) -> None:
    """As before IR version 4, where every initializer had to be an input."""
    model.ir_version = 3
    for t in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims))


def _identities(model: onnx.ModelProto) -> None:
    """Two Identity nodes between every weight or result and who reads it."""
    outputs = {v.name for v in model.graph.output}
    nodes = _twice([t.name for t in model.graph.initializer] + [v.name for v in model.graph.input])
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = f"{name}/again" if name else ""
        nodes += [node, *_twice([name for name in node.output if name and name not in outputs])]
    _replace(model.graph, nodes)


def _twice(names: Iterable[str]) -> list[onnx.NodeProto]:
    steps = [step for n in names for step in ((n, f"{n}/once"), (f"{n}/once", f"{n}/again"))]
    return [onnx.helper.make_node("Identity", [source], [result]) for source, result in steps]


def _transposed_weights(model: onnx.ModelProto) -> None:
    """Every matrix that is multiplied is stored the other way round."""
    tensors = {t.name: t for t in model.graph.initializer if len(t.dims) == 2}
    made = []
    for n, node in enumerate(model.graph.node):
        if node.op_type == "MatMul" and node.input[1] in tensors:
            turned = numpy_helper.to_array(tensors[node.input[1]]).T.copy()
            model.graph.initializer.append(numpy_helper.from_array(turned, f"turned_{n}"))
            made.append(onnx.helper.make_node("Transpose", [f"turned_{n}"], [f"weight_{n}"], perm=[1, 0]))
            node.input[1] = f"weight_{n}"
    assert made
    _put_first(model.graph, made)


def _functions(model: onnx.ModelProto) -> None:
    """Every few nodes are a model-local function."""
    nodes = list(model.graph.node)
    chunks = [nodes[i : i + _CHUNK] for i in range(0, len(nodes), _CHUNK)]
    results = {v.name for v in model.graph.output}
    calls = []
    for n, chunk in enumerate(chunks):
        inside = {name for node in chunk for name in node.output}
        later = results.union(*(node.input for other in chunks[n + 1 :] for node in other))
        taken = list(dict.fromkeys(name for node in chunk for name in node.input if name and name not in inside))
        given = sorted(inside & later)
        body = onnx.helper.make_function("local", f"part_{n}", taken, given, chunk, model.opset_import)
        model.functions.append(body)
        calls.append(onnx.helper.make_node(f"part_{n}", taken, given, domain="local"))
    model.opset_import.append(onnx.helper.make_opsetid("local", 1))
    _replace(model.graph, calls)
    model.ir_version = max(model.ir_version, 8)


def _nested_functions(model: onnx.ModelProto) -> None:
    """The whole graph is one function, which calls another one for each of its parts."""
    _functions(model)
    graph = model.graph
    taken = [v.name for v in graph.input] + [t.name for t in graph.initializer]
    given = [v.name for v in graph.output]
    model.functions.append(onnx.helper.make_function("local", "whole", taken, given, graph.node, model.opset_import))
    _replace(graph, [onnx.helper.make_node("whole", taken, given, domain="local")])


def _unsorted(model: onnx.ModelProto) -> None:
    _replace(model.graph, list(model.graph.node)[::-1])


def _nameless(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.name = ""
        node.ClearField("metadata_props")
        node.doc_string = ""


def _littered(model: onnx.ModelProto) -> None:
    """Nodes, weights and an opset that nothing needs."""
    unused = onnx.helper.make_tensor("left_over", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    model.graph.initializer.append(unused)
    model.graph.node.append(onnx.helper.make_node("Softmax", ["left_over"], ["for_nobody"], axis=0))
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


def _put_first(graph: onnx.GraphProto, made: list[onnx.NodeProto]) -> None:
    _replace(graph, [*made, *graph.node])


def _replace(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    kept = list(nodes)
    graph.ClearField("node")
    graph.node.extend(kept)


FORMS: dict[str, tuple[Form, ...]] = {
    "with-shapes": (_with_shapes,),
    "without-dims": (_without_dims,),
    "outputs-without-rank": (_outputs_without_rank,),
    "weights-as-constants": (_weights_as_constants,),
    "weights-as-inputs": (_weights_as_inputs,),
    "identities": (_identities,),
    "transposed-weights": (_transposed_weights,),
    "functions": (_functions,),
    "nested-functions": (_nested_functions,),
    "unsorted": (_unsorted,),
    "nameless": (_nameless,),
    "littered": (_littered,),
    "all-at-once": (
        _littered,
        _transposed_weights,
        _identities,
        _weights_as_constants,
        _outputs_without_rank,
        _functions,
    ),
}
# Where no dimension has a name, nothing says that the encoder and the decoder of T5 have one batch: see test_dims.
CELLS = [
    (form, source) for form in FORMS for source in ("bert", "llama", "t5") if (form, source) != ("without-dims", "t5")
]


@cache
def exported(name: str) -> tuple[bytes, list[Batch]]:
    family = FAMILIES[name]
    attention = family.attention[0]
    module, double = build(family, attention), build(family, attention).double()
    known = [
        Batch(n, g, torch_outputs(family, double, g), torch_outputs(family, module, g)) for n, g in batches(family)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        export(module, family, EXPORTERS["torchscript-17"], known[0].given, path)
        return path.read_bytes(), known


@pytest.mark.parametrize(("form", "source"), CELLS)
def test_fused_whole_in_every_container(form: str, source: str, tmp_path: Path) -> None:
    contents, known = exported(source)
    original = onnx.load_from_string(contents)
    model = copy.deepcopy(original)
    for change in FORMS[form]:
        change(model)
    assert model.SerializeToString() != original.SerializeToString()
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    cell = check(path, FAMILIES[source], known)
    assert (cell.crash, cell.missed, cell.miscounted, cell.unaccounted, cell.unequal) == ("", [], [], [], [])
    assert {one.batch for one in cell.compared} == {batch.name for batch in known} - set(cell.baked)
