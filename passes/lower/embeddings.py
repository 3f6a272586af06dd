"""Embeddings, their sum and the norm behind it become EmbedLayerNormalization, on targets that have it.

    LayerNormalization(words[ids] + positions[position_ids] + segments[segment_ids])

The operator can also count a mask's ones, for attention that expects padding on the right: that is not used here, so
it is right for every mask. Ids are int32. Source: Devlin et al. 2018, arXiv:1810.04805; ONNX Runtime's contrib
operator EmbedLayerNormalization.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.match import Match
from onnxsmith.passes.engine.pattern import attr
from onnxsmith.passes.engine.require import is_constant, same_dtype, shapes
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.lower.kernels import MICROSOFT, Kernels

_TABLES = ("words", "places", "segments")


def _norm(op: Any, total: Any, scale: Any, shift: Any) -> Any:
    return op.LayerNormalization(total, scale, shift, axis=-1, epsilon=attr("epsilon"), stash_type=1)


def _two(op: Any, words: Any, ids: Any, places: Any, place_ids: Any, scale: Any, shift: Any) -> Any:
    total = op.Add(op.Gather(words, ids, axis=0), op.Gather(places, place_ids, axis=0))
    return _norm(op, total, scale, shift)


def _three(
    op: Any,
    words: Any,
    ids: Any,
    places: Any,
    place_ids: Any,
    segments: Any,
    segment_ids: Any,
    scale: Any,
    shift: Any,
) -> Any:
    """The sum is the same in every order, so which table is called what does not matter."""
    both = op.Add(op.Gather(words, ids, axis=0), op.Gather(places, place_ids, axis=0))
    return _norm(op, op.Add(both, op.Gather(segments, segment_ids, axis=0)), scale, shift)


def _embedded(op: Builder, m: Match) -> ir.Value:
    ids, places = _as_int32(op, m["ids"]), _as_int32(op, m["place_ids"])
    segments = _as_int32(op, m["segment_ids"]) if m.get("segment_ids") is not None else None
    inputs = (ids, segments, m["words"], m["places"], m.get("segments"), m["scale"], m["shift"], None, places)
    # The count of the mask's ones must be among the outputs.
    return op.several("EmbedLayerNormalization", 2, *inputs, domain=MICROSOFT, epsilon=m.attribute("epsilon"))[0]


def _as_int32(op: Builder, ids: ir.Value) -> ir.Value:
    return ids if ids.dtype == ir.DataType.INT32 else op.Cast(ids, to=ir.DataType.INT32)


def rules(kernels: Kernels) -> list[Rule]:
    where = (
        is_constant(*_TABLES),
        same_dtype(*_TABLES, "scale", "shift"),
        shapes(words="_ D", places="_ D", segments="_ D", scale="D", shift="D"),
        shapes(ids="B S", place_ids="B S", segment_ids="B S"),
        kernels.runs(MICROSOFT, "EmbedLayerNormalization", "words"),
    )
    return [
        Rule("embed-layer-norm", _three, _embedded, where),
        Rule("embed-layer-norm", _two, _embedded, where),
    ]
