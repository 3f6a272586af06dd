"""A variant of a model that gives its attention weights too, for looking at them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxsmith.compiler import pipeline, sites
from onnxsmith.errors import BadInput
from onnxsmith.passes.attention_weights import attention_weights
from onnxsmith.passes.canonicalize import canonicalize

if TYPE_CHECKING:
    from onnxsmith.runtime.model import LoadedModel

_HINT = "give the model as it was exported"


def with_attention_weights(model: ir.Model) -> ir.Model:
    """The lifted model with an output for the weights of each attention, see ``passes/attention_weights.py``.

    The given model must not be used any more. Raises BadInput for a model that has no attention, or some whose weights
    cannot be had: it is not recognised, or a fused kernel hides them.
    """
    model = canonicalize(model)
    anchors = [anchor for anchor in sites.find(model) if anchor.kind == "attention"]
    outcome = pipeline.run(model, pipeline.lifting())
    missed = [s for s in sites.settle(anchors, outcome.model, outcome.remarks) if s.status == "missed"]
    if missed:
        raise BadInput(f"the attention at {missed[0].where} is not recognised: {missed[0].reason}")
    found = attention_weights(outcome.model)
    if not found and not anchors:
        raise BadInput("no attention was found in this model, so it has no weights to show")
    if len(found) < len(anchors):
        raise BadInput(f"{len(anchors) - len(found)} of {len(anchors)} attentions are fused kernels; {_HINT}")
    return outcome.model


def showing_attention(loaded: LoadedModel) -> LoadedModel:
    """The model, run so that it gives its attention weights too; itself where it does already.

    Raises BadInput as above, and for a model with a cache, which sees a text in pieces.
    """
    from onnxsmith.compiler.load import load_model
    from onnxsmith.compiler.session import open_in_memory
    from onnxsmith.runtime.feeds import TensorInfo
    from onnxsmith.runtime.generation.interface import find_interface
    from onnxsmith.runtime.tasks.attention import shows_attention

    if shows_attention(loaded):
        return loaded
    path = loaded.artifact.model
    if find_interface(loaded.manifest, loaded.inputs, loaded.outputs) is not None:
        raise BadInput(f"{path}: a model with a cache has no weights of a whole text; {_HINT}")
    try:
        model = with_attention_weights(load_model(path))
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    session = open_in_memory(model, optimize=True, config=loaded.config)
    return replace(loaded, session=session, outputs=tuple(map(TensorInfo.from_ort, session.get_outputs())))
