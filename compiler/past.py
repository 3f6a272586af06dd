"""A decoder that was exported with past: compiled by way of the plain one, and compared with it as it is, in steps."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import onnx_ir as ir

from onnxsmith.compiler import pipeline
from onnxsmith.errors import BadInput
from onnxsmith.passes.cache import Cache, Refused, kv_cache, recorded
from onnxsmith.passes.cache.past import find_past, keeps, without_past
from onnxsmith.passes.cache.record import record
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.passes.engine.values import dims


def check_original(model: ir.Model, file: Path) -> None:
    """Raises BadInput for a model whose cache was made here, which is run in a way of its own."""
    if recorded(model) is not None:
        raise BadInput(f"{file} has a cache that optimize made; optimize the model that it was made of")


def with_past_recorded(model: ir.Model) -> ir.Model:
    """A freshly loaded model; of a decoder with a past that is recorded, so that it takes a text as a plain one does.

    A past that no pass can do without is left alone.
    """
    if keeps(model):
        with suppress(Refused):
            past = find_past(canonicalize(model.clone()))
            assert past is not None, "it keeps one"
            record(model, past)
    return model


def plain(model: ir.Model) -> ir.Model:
    """The model made canonical, of a decoder whose past is recorded the one without; the given one is used up."""
    model = canonicalize(model)
    if recorded(model) is not None:
        with suppress(Refused):  # then it is no original, but was compiled
            if (past := find_past(model)) is not None:
                without_past(model, past)
                return canonicalize(model)
    return model


def text_model(model: ir.Model) -> ir.Model:
    """What takes a text and no past: the original itself, or of a decoder whose past is recorded the one without."""
    return plain(model.clone()) if keeps(model) and recorded(model) is not None else model


def usable_past(model: ir.Model) -> Cache | None:
    """The past of a freshly loaded decoder, which it can be given a better one for; None of a model without.

    Raises Refused for one that has to keep it as it is.
    """
    if not keeps(model):
        return None
    model = canonicalize(model)
    past = find_past(model)
    assert past is not None, "it keeps one"
    without_past(model, past)
    (told,) = kv_cache(pipeline.run(canonicalize(model), pipeline.lifting()).model)
    if told.kind == "missed":
        raise Refused(told.reason)
    return past


def bounds_of_text(model: ir.Model, bounds: Mapping[str, int]) -> dict[str, int]:
    """Largest sizes by dimension, where a text without a past has no more tokens than one with it."""
    cache, given = recorded(model), {v.name: dims(v) for v in model.graph.inputs}
    if cache is None or cache.mask not in given:
        return dict(bounds)
    (_, new), (_, total) = (given[name] or [None, None] for name in (cache.ids, cache.mask))
    limits = [bounds[name] for name in (new, total) if isinstance(name, str) and name in bounds]
    return {**bounds, **({str(new): min(limits)} if limits else {})}
