"""Weight-only quantization: weights and tables in blocks of 4 or 8 bits, activations stay float.

    W [K, N] float, blocks along K ─── codes uint8 [N, n, bytes], scales [N, n] (zero points) ─ MatMulNBits
    table [V, D] float, blocks along D ─ codes uint8 [V, D], scales [V, n] (zero points) ────── GatherBlockQuantized

A model that makes one token at a time waits for its weights to come from memory: fewer bytes are less time. With
accuracy_level 4 the kernel quantizes each block of the activation to int8 as it goes; without, the 8-bit kernel falls
back to float weights, 50 times slower. Sources: Dettmers and Zettlemoyer 2022, arXiv:2212.09720; ONNX Runtime's
operators MatMulNBits and GatherBlockQuantized.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.require import dtype, is_constant, not_constant
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant
from onnxsmith.passes.lower.kernels import MICROSOFT, Kernels
from onnxsmith.passes.quantize import products
from onnxsmith.passes.quantize.blocks import packed, quantize_blocks

_INT8_ACTIVATIONS = 4  # of the attribute accuracy_level
_LEAST_TABLE = 1 << 20  # elements; smaller tables (positions, segments) save next to nothing and stay exact


@dataclass(frozen=True)
class Format:
    """Codes of ``bits`` bits in blocks of ``size`` elements; ``name`` begins the names of its rules."""

    name: str
    bits: int
    size: int


INT4 = Format("int4", 4, 32)
INT8 = Format("int8-weights", 8, 32)
FORMATS = {"int4": (INT4, INT8), "int8-weights": (INT8,)}  # by precision, in the order in which they take their share


def rules(kernels: Kernels, form: Format) -> tuple[Rule, ...]:
    """Products with constant weights; in 8 bits also those that give an output, and lookups in large tables.

    A language model's head and table cost the most accuracy in 4 bits, as much as all of its layers.
    """
    runs = kernels.runs(MICROSOFT, "MatMulNBits", "x")
    if form.bits < INT8.bits:
        return products.rules(f"{form.name}-product", _product_of(form), runs, _inner)
    lookup_where = (
        is_constant("table"),
        not_constant("ids"),
        dtype("table", ir.DataType.FLOAT),
        _large_table,
        kernels.runs(MICROSOFT, "GatherBlockQuantized", "table"),
        products.finite("table"),
    )
    return (
        *products.rules(f"{form.name}-product", _product_of(form), runs),
        Rule(f"{form.name}-lookup", _lookup, _lookup_of(form), lookup_where),
    )


def _product_of(form: Format) -> Any:
    def rewrite(op: Builder, m: Match) -> ir.Value:
        columns, weight = products.matrix(m).T, m["weight"]
        codes, scales, zeros = _constants(op, columns, form, str(weight.name))
        size = {"N": columns.shape[0], "K": columns.shape[1], "bits": form.bits, "block_size": form.size}
        inputs = (m["x"], codes, scales, zeros, None, m.get("bias"))
        return op.MatMulNBits(*inputs, domain=MICROSOFT, accuracy_level=_INT8_ACTIVATIONS, **size)

    return rewrite


def _lookup(op: Any, table: Any, ids: Any) -> Any:
    return op.Gather(table, ids, axis=0)


def _lookup_of(form: Format) -> Any:
    def rewrite(op: Builder, m: Match) -> ir.Value:
        table = constant(m["table"])
        assert table is not None, "the rule requires a constant"
        codes, scales, zeros = _constants(op, table.numpy(), form, str(m["table"].name), flat=True)
        axes = {"gather_axis": 0, "quantize_axis": 1, "bits": form.bits, "block_size": form.size}
        return op.GatherBlockQuantized(codes, m["ids"], scales, zeros, domain=MICROSOFT, **axes)

    return rewrite


def _constants(
    op: Builder, rows: products.Array, form: Format, name: str, *, flat: bool = False
) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """Codes, scales and zero points of ``rows`` [R, C]; ``flat`` codes [R, C] have no dimension for the blocks."""
    found = quantize_blocks(rows, form.bits, form.size)
    codes = found.codes.reshape(len(rows), -1)[:, : rows.shape[1]] if flat else found.codes
    return (
        op.constant(packed(codes, form.bits), f"{name}_int{form.bits}"),
        op.constant(found.scales, f"{name}_scale"),
        None if found.zeros is None else op.constant(packed(found.zeros, form.bits), f"{name}_zero"),
    )


def _inner(m: Match) -> Mismatch | None:
    if not m.outputs[0].is_graph_output():
        return None
    return Mismatch(
        "cost", "a product within the model, for a head in 4 bits costs too much accuracy", "a head", m.root
    )


def _large_table(m: Match) -> Mismatch | None:
    tensor = constant(m["table"])
    assert tensor is not None, "the rule requires a constant"
    if len(tensor.shape) != 2:
        return Mismatch("rank", "a table of two dimensions", m["table"], m["table"])
    if tensor.size < _LEAST_TABLE:
        return Mismatch("cost", f"a table of at least {_LEAST_TABLE} elements", m["table"], m["table"])
    return None
