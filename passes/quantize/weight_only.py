"""Weight-only quantization: weights and tables in blocks of 4 or 8 bits, activations stay float.

    W [K, N] float, blocks along K ─── codes uint8 [N, n, bytes], scales [N, n] (zero points) ─ MatMulNBits
    table [V, D] float, blocks along D ─ codes uint8 [V, D], scales [V, n] (zero points) ────── GatherBlockQuantized

A model that makes one token at a time waits for its weights to come from memory: fewer bytes are less time. With
accuracy_level 4 the kernel quantizes each block of the activation to int8 as it goes; without, the 8-bit kernel falls
back to float weights, 50 times slower. Where second moments of activations are known, products in 4 bits are rounded
so that errors make up for each other (see compensated.py). Sources: Dettmers and Zettlemoyer 2022, arXiv:2212.09720;
ONNX Runtime's operators MatMulNBits and GatherBlockQuantized.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match, Requirement
from onnxsmith.passes.engine.mismatch import Mismatch
from onnxsmith.passes.engine.require import dtype, is_constant, not_constant
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.engine.values import constant
from onnxsmith.passes.lower.kernels import MICROSOFT, Kernels
from onnxsmith.passes.quantize import products
from onnxsmith.passes.quantize.blocks import Blocks, packed, quantize_blocks
from onnxsmith.passes.quantize.compensated import compensate
from onnxsmith.passes.quantize.remainder import can_split, with_remainder

Moments: TypeAlias = Callable[[str], products.Array | None]  # of an activation [.., K] by name: E[x^T x] [K, K]

_INT8_ACTIVATIONS = 4  # of the attribute accuracy_level
_COMPENSATED = 128  # elements of a block whose rounding makes up for itself: a step takes 0.87x of that with 32
_LEAST_TABLE = 1 << 20  # elements; smaller tables (positions, segments) save next to nothing and stay exact


@dataclass(frozen=True)
class Format:
    """Codes of ``bits`` bits in blocks of ``size`` elements; ``name`` begins the names of its rules.

    Where ``exact_heads``, a head reads its activation and what the kernel's rounding leaves of that: half of what all
    the rounding in 8 bits costs is a head's activation. In 4 bits, the weights cost a hundred times as much.
    """

    name: str
    bits: int
    size: int
    exact_heads: bool = False


INT4 = Format("int4", 4, 32)
INT8 = Format("int8-weights", 8, 32)
# by precision, in the order in which they take their share
FORMATS = {"int4": (INT4, INT8), "int8-weights": (replace(INT8, exact_heads=True),)}


def rules(kernels: Kernels, form: Format, moments: Moments | None = None) -> tuple[Rule, ...]:
    """Products with constant weights; in 8 bits also lookups in large tables.

    ``moments`` of the activations are for 4 bits. Without them products that give an output are left to 8 bits: a
    language model's head rounded to nearest costs as much accuracy as all of its layers.
    """
    runs = kernels.runs(MICROSOFT, "MatMulNBits", "x")
    if form.bits < INT8.bits:
        return products.rules(f"{form.name}-product", _product_of(form, moments), runs, _inner_or_known(moments))
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


def _product_of(form: Format, moments: Moments | None = None) -> Any:
    def rewrite(op: Builder, m: Match) -> ir.Value:
        columns, weight = products.matrix(m).T, m["weight"]
        moment = moments(str(m["x"].name)) if moments is not None else None
        elements = form.size if moment is None or columns.shape[1] < _COMPENSATED else _COMPENSATED
        if moment is None:
            found = quantize_blocks(columns, form.bits, elements)
        else:
            found = compensate(columns, moment, form.bits, elements)
        codes, scales, zeros = _constants(op, found, found.codes, str(weight.name))
        size = {"N": columns.shape[0], "K": columns.shape[1], "bits": form.bits, "block_size": elements}

        def product(x: ir.Value, bias: ir.Value | None = None) -> ir.Value:
            inputs = (x, codes, scales, zeros, None, bias)
            return op.MatMulNBits(*inputs, domain=MICROSOFT, accuracy_level=_INT8_ACTIVATIONS, **size)

        is_head = m.get("bias") is None and m.outputs[0].is_graph_output()
        if form.exact_heads and is_head and can_split(m["x"], elements):
            return with_remainder(op, m["x"], elements, product)
        return product(m["x"], products.bias(op, m))

    return rewrite


def _lookup(op: Any, table: Any, ids: Any) -> Any:
    return op.Gather(table, ids, axis=0)


def _lookup_of(form: Format) -> Any:
    def rewrite(op: Builder, m: Match) -> ir.Value:
        table = constant(m["table"])
        assert table is not None, "the rule requires a constant"
        found = quantize_blocks(table.numpy(), form.bits, form.size)
        flat = found.codes.reshape(len(found.codes), -1)[:, : table.shape[1]]  # no dimension for the blocks
        codes, scales, zeros = _constants(op, found, flat, str(m["table"].name))
        axes = {"gather_axis": 0, "quantize_axis": 1, "bits": form.bits, "block_size": form.size}
        return op.GatherBlockQuantized(codes, m["ids"], scales, zeros, domain=MICROSOFT, **axes)

    return rewrite


def _constants(
    op: Builder, found: Blocks, codes: products.Array, name: str
) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """Codes, in the shape that the operator wants, scales and zero points."""
    return (
        op.constant(packed(codes, found.bits), f"{name}_int{found.bits}"),
        op.constant(found.scales, f"{name}_scale"),
        None if found.zeros is None else op.constant(packed(found.zeros, found.bits), f"{name}_zero"),
    )


def _inner_or_known(moments: Moments | None) -> Requirement:
    """A product within the model, or a head that is rounded by the moments of what it reads."""

    def check(m: Match) -> Mismatch | None:
        if not m.outputs[0].is_graph_output() or (moments is not None and moments(str(m["x"].name)) is not None):
            return None
        expected = "a product within the model, for a head rounded to 4 bits without samples costs too much accuracy"
        return Mismatch("cost", expected, "a head", m.root)

    return check


def _large_table(m: Match) -> Mismatch | None:
    tensor = constant(m["table"])
    assert tensor is not None, "the rule requires a constant"
    if len(tensor.shape) != 2:
        return Mismatch("rank", "a table of two dimensions", m["table"], m["table"])
    if tensor.size < _LEAST_TABLE:
        return Mismatch("cost", f"a table of at least {_LEAST_TABLE} elements", m["table"], m["table"])
    return None
