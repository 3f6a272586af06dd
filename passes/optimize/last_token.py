"""Logits of each row's last token alone, for a causal model that is exported without a cache.

    hidden [B, S, D] ─ last token that counts [B, 1, D] ─ norm, head ─ logits [B, 1, V]

The last is that of the mask's ones, so padding may stand on either side; without a mask it is the last column.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.passes.cache.last import find_logits, follow_outputs, narrowed, narrowest
from onnxsmith.passes.cache.text import Refused, Text, find_text
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.engine.values import dims
from onnxsmith.passes.lift.masks import meaning_of

LAST_TOKEN = "onnxsmith.last_token"
Array = NDArray[Any]


def last_token(model: ir.Model) -> list[Remark]:
    """Let the model give the logits of last tokens, in place; one remark, which says why where it cannot be done.

    Attention must carry its mask's meaning, see :func:`onnxsmith.passes.lift.masks.annotate`. A model that gives them
    already is left as it is.
    """
    if LAST_TOKEN in model.metadata_props:
        return []
    graph = model.graph
    try:
        text = find_text(graph)
        follow_outputs(model)
        logits = find_logits(graph, text)
        _check_causal(graph)
        _narrow(model, text, logits)
    except Refused as refused:
        return [Remark("missed", "last-token", "", reason=str(refused))]
    recorded = {"ids": text.ids.name, "mask": text.mask.name if text.mask is not None else None, "logits": logits.name}
    model.metadata_props[LAST_TOKEN] = json.dumps(recorded)
    return [Remark("analysis", "last-token", "", reason="logits of each row's last token that counts: [B, 1, V]")]


def at_last_token(model: ir.Model, feeds: Mapping[str, Array], values: Mapping[str, Array]) -> dict[str, Array]:
    """What the original gave, as far as the model still gives it: logits [B, S, V] at last tokens, [B, 1, V]."""
    if LAST_TOKEN not in model.metadata_props:
        return dict(values)
    recorded = json.loads(model.metadata_props[LAST_TOKEN])
    name, ids = recorded["logits"], feeds[recorded["ids"]]
    mask = feeds[recorded["mask"]].astype(bool) if recorded["mask"] is not None else np.ones(ids.shape, bool)
    last = (mask * np.arange(ids.shape[1])).max(axis=1)
    return {**values, name: np.take_along_axis(values[name], last[:, None, None], axis=1)}


def _check_causal(graph: ir.Graph) -> None:
    """A model whose tokens see those behind them predicts none, so a last token has no meaning of its own."""
    sites = [n for n in graph.all_nodes() if n.op_type == "Attention" and not n.domain]
    if not sites:
        raise Refused("no Attention was recognised, so it is not known whether the model is causal")
    for site in sites:
        meaning = meaning_of(site)
        if meaning is None or not meaning.causal:
            told = "is not recognised" if meaning is None else f"is {meaning}"
            raise Refused(f"expected a causal decoder, but the mask of {site.name} {told}")


def _narrow(model: ir.Model, text: Text, logits: ir.Value) -> None:
    graph, op, names = model.graph, Builder(), Names(model)
    hidden = {v for n in graph for v in n.outputs if len(dims(v) or ()) == 3 and text.axis(v) == 1}
    mask = text.mask if text.mask is not None else op.Expand(op.constant(1, "one", np.int64), op.Shape(text.ids))
    if narrowest(logits, hidden) is logits:
        head = logits.producer()
        told = "an input" if head is None else f"{head.op_type} {head.name}"
        raise Refused(f"expected a head that takes each token by itself, found {told}")
    narrowed(op, logits, hidden, text.ids, mask)
    names.adopt(graph, op)
    graph.extend(op.nodes)
    graph.sort()
