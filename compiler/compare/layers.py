"""Where errors come from: values that both graphs have, in the variant's order, against float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler.compare.modules import path_of
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.padding import counting
from onnxsmith.compiler.reference import Reference
from onnxsmith.compiler.region import expose
from onnxsmith.compiler.session import run_model
from onnxsmith.passes.engine.provenance import rules_of
from onnxsmith.runtime.parity import ErrorRatio, error_ratio

_MOST = 160  # values that are looked at; of more, evenly chosen ones
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, None)


@dataclass(frozen=True)
class Layer:
    """One value of both graphs: the node that makes it in the variant, and the errors of both.

    ``relative_rms`` is the variant's RMS error over the value's RMS, ``own`` that of the reference in float32; the
    ratios are the variant's errors over the reference's, as verification judges them.
    """

    value: str
    operator: str
    module: str
    rules: tuple[str, ...]
    relative_rms: float
    own: float
    rms_ratio: float
    largest_ratio: float
    fine: bool


def layers(
    original: ir.Model, variant: ir.Model, case: Case, config: Mapping[str, str], twins: Mapping[str, str]
) -> list[Layer]:
    """The errors of every floating-point value that both graphs have, on one input.

    Args:
        original: The reference's graph.
        variant: The variant's.
        case: The input, which both run.
        config: The variant's session config entries.
        twins: Values of the variant that are values of the original under another name.

    Raises what onnx.reference raises on operators it lacks, and ONNX Runtime on a graph it refuses.
    """
    theirs = {v.name for n in original.graph for v in n.outputs if v.name and v.dtype in _FLOATS}
    chosen = [(n, v) for n in variant.graph for v in n.outputs if twins.get(str(v.name), v.name) in theirs]
    chosen = _spread(chosen)
    names = {str(v.name): twins.get(str(v.name), str(v.name)) for _, v in chosen}
    wanted = list(dict.fromkeys(names.values()))
    truth = Reference(expose(original, wanted)).run(case.feeds)
    own = run_model(expose(original, wanted))(case.feeds)
    ours = run_model(expose(variant, list(names)), optimize=True, config=config)(case.feeds)
    (counted,) = counting(variant, [case], [v for _, v in chosen])
    found = []
    for node, v in chosen:
        name, twin = str(v.name), names[str(v.name)]
        if ours[name].shape != truth[twin].shape:
            continue  # rows without padding are other rows
        rows = counted.counted(name)
        ratio = error_ratio(ours[name], own[twin], truth[twin], rows)
        found.append(_layer(node, name, ratio, error_ratio(own[twin], own[twin], truth[twin], rows).relative_rms))
    return found


def _layer(node: ir.Node, name: str, ratio: ErrorRatio, own: float) -> Layer:
    rules = tuple(rules_of(node))
    return Layer(
        name, node.op_type, path_of(node), rules, ratio.relative_rms, own, ratio.rms, ratio.largest, ratio.fine
    )


def _spread(found: list[tuple[ir.Node, ir.Value]]) -> list[tuple[ir.Node, ir.Value]]:
    if len(found) <= _MOST:
        return found
    return [found[i * (len(found) - 1) // (_MOST - 1)] for i in range(_MOST)]


def first_diverging(found: Sequence[Layer], limit: float | None = None) -> Layer | None:
    """The first value that verification would reject; or, with a ``limit``, whose relative RMS error exceeds it."""
    if limit is not None:
        return next((layer for layer in found if not layer.relative_rms <= limit), None)
    return next((layer for layer in found if not layer.fine), None)


def captured(model: ir.Model, case: Case) -> dict[str, NDArray[Any]]:
    """Every value of the graph on one input, as the runtime computes it without optimizations."""
    names = [str(v.name) for node in model.graph for v in node.outputs if v.name]
    return run_model(expose(model, names))(case.feeds)
