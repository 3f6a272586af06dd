"""Weights that a file holds twice are shared, and what was folded for a tied head is read through a Transpose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import onnxsmith
from onnxsmith.compiler.load import load_model
from onnxsmith.passes.canonicalize import share

ROWS, WIDTH = 600, 64  # large enough that constant folding leaves the table alone


def model(**weights: np.ndarray) -> ir.Model:
    """ids -> table[ids] -> product with ``head``; further weights are multiplied in as they come."""
    values = {name: ir.val(name, const_value=ir.tensor(array, name=name)) for name, array in weights.items()}
    ids = ir.val("ids", dtype=ir.DataType.INT64, shape=["batch", "sequence"])
    nodes = [ir.node("Gather", [values["table"], ids])]
    for name in weights:
        if name != "table":
            nodes.append(ir.node("MatMul", [nodes[-1].outputs[0], values[name]]))
    result = nodes[-1].outputs[0]
    result.name, result.type = "y", ir.TensorType(ir.DataType.FLOAT)
    result.shape = ir.Shape(["batch", "sequence", ROWS])
    return ir.Model(
        ir.Graph([ids], [result], nodes=nodes, initializers=list(values.values()), opset_imports={"": 23}),
        ir_version=10,
    )


def table(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(ROWS, WIDTH)).astype(np.float32)


def square(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(WIDTH, WIDTH)).astype(np.float32)


def weights(found: ir.Model) -> list[str]:
    return sorted(found.graph.initializers)


def test_a_transposed_copy() -> None:
    found = model(head=np.ascontiguousarray(table().T), table=table())
    assert share(found)
    assert weights(found) == ["table"]
    assert [n.op_type for n in found.graph] == ["Transpose", "Gather", "MatMul"]


def test_an_exact_copy() -> None:
    found = model(
        table=table(), a=np.tile(square(1), (1, 8)), b=np.tile(square(1), (8, 1)), c=np.tile(square(1), (1, 8))
    )
    assert share(found)
    assert weights(found) == ["a", "b", "table"]


@pytest.mark.parametrize("place", [(0, 0), (7, 9), (WIDTH - 1, ROWS - 1)])
def test_one_other_element_keeps_both(place: tuple[int, int]) -> None:
    head = np.ascontiguousarray(table().T)
    head[place] += 1e-6
    found = model(table=table(), head=head)
    assert not share(found)
    assert weights(found) == ["head", "table"]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_optimized(tmp_path: Path, precision: str) -> None:
    """One table in fp32; in int8 the head has codes of its own, for the lookup stays exact."""
    ir.save(model(table=table(), head=np.ascontiguousarray(table().T)), tmp_path / "tied.onnx")
    report = onnxsmith.optimize(tmp_path / "tied.onnx", tmp_path / "out.onnx", precision=precision)
    assert report.parity is not None and report.parity.fine
    found = load_model(tmp_path / "out.onnx").graph.initializers
    floats = [v for v in found.values() if v.dtype == ir.DataType.FLOAT and len(v.shape or ()) == 2]
    assert [list(v.shape or ()) for v in floats] == [[ROWS, WIDTH]]
    codes = [list(v.shape or ()) for v in found.values() if v.dtype == ir.DataType.INT8]
    assert codes == ([[WIDTH, ROWS]] if precision == "int8" else [])
