"""An export in several files, as Hugging Face's optimum writes it, made the one graph that a plain export is.

    encoder(input_ids, attention_mask)                                ->  last_hidden_state [B, S, E]
    decoder(input_ids, encoder_attention_mask, encoder_hidden_states) ->  logits [B, T, V], and presents

become one model of input_ids, attention_mask [B, S] and decoder_input_ids [B, T]. A decoder with its first step and
its later ones in one file is the first one alone; presents go, since a cache is made here. Weights stay on disk.

Shapes: B batch, S source tokens, T tokens of the target, E hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common

from onnxsmith.errors import BadInput
from onnxsmith.passes.cache.past import keeps
from onnxsmith.passes.canonicalize import branches, prune
from onnxsmith.passes.engine.names import Names, name_apart, name_nodes
from onnxsmith.passes.engine.values import dims
from onnxsmith.runtime.artifact import Artifact

_LATER = "use_cache_branch"  # asks a decoder in one file for its later steps
_STATES, _GIVEN, _MASK = "encoder_hidden_states", "last_hidden_state", "encoder_attention_mask"
_PRESENT, _ECHO = "present", "encoder_last_hidden_state"  # outputs that say nothing new of a first step
_RENAMED = {name: f"decoder_{name}" for name in ("input_ids", "attention_mask")}
_BATCH, _SOURCE, _TARGET = "batch", "sequence", "decoder_sequence"  # as in exports of ours


def compose(decoder: ir.Model, encoder: ir.Model | None, artifact: Artifact) -> ir.Model:
    """The decoder's first step behind its encoder, where there is one; both are used up.

    Raises BadInput, which names the artifact's files, where the encoder lacks or does not fit.
    """
    decoder, found = _inlined(decoder), artifact.exported
    assert found is not None, "it has a decoder's file"
    _take_first_step(decoder)
    states = _input(decoder, _STATES)
    if encoder is None or found.encoder is None:
        if states is not None:
            told = f"takes {_STATES}, and there is no encoder_model.onnx beside it"
            raise BadInput(f"{artifact.model} {told}; put it there, or take the decoder alone under another name")
        return decoder
    encoder = _inlined(encoder)
    given = next((v for v in encoder.graph.outputs if v.name == _GIVEN), None)
    if states is None or given is None:
        lacking = f"{artifact.model} takes no {_STATES}" if states is None else f"{found.encoder} gives no {_GIVEN}"
        raise BadInput(f"{lacking}, so they are no two parts of one model; export both together")
    if misfit := _misfit(encoder, decoder, given, states):
        raise BadInput(f"{found.encoder} gives {misfit[0]}, {artifact.model} takes {misfit[1]}; export both together")
    _name_inputs(encoder, decoder)
    return _joined(encoder, decoder, given, states)


def _inlined(model: ir.Model) -> ir.Model:
    return common.InlinePass()(model).model if model.functions else model


def _input(model: ir.Model, name: str) -> ir.Value | None:
    return next((v for v in model.graph.inputs if v.name == name), None)


def _take_first_step(decoder: ir.Model) -> None:
    """Leave the branch without a past, where there are two, and no presents, unless there is a past to them."""
    graph, later = decoder.graph, _input(decoder, _LATER)
    if later is not None:
        first = ir.Value(name=Names(decoder).value("first_step"), const_value=ir.tensor(np.array(False)))
        graph.register_initializer(first)
        later.replace_all_uses_with(first)
        branches.settle(decoder)
        _keep_read(decoder)
    own = [v for v in graph.outputs if v.name != _ECHO and not str(v.name).startswith(_PRESENT)]
    if own and not keeps(decoder):
        graph.outputs.clear()
        graph.outputs.extend(own)
        _keep_read(decoder)


def _keep_read(decoder: ir.Model) -> None:
    """What nothing reads goes, inputs as well: the later steps' are among them."""
    prune(decoder)
    for v in [v for v in decoder.graph.inputs if not v.uses() and not v.is_graph_output()]:
        decoder.graph.inputs.remove(v)


def _misfit(encoder: ir.Model, decoder: ir.Model, given: ir.Value, states: ir.Value) -> tuple[object, object] | None:
    """What one gives and what the other takes, where these cannot be the same."""
    if encoder.opset_imports != decoder.opset_imports:
        return f"opsets {dict(encoder.opset_imports)}", f"opsets {dict(decoder.opset_imports)}"
    sizes = [(dims(v) or [None])[-1] for v in (given, states)]
    if None not in sizes and sizes[0] != sizes[1]:
        return f"{_GIVEN} of size {sizes[0]}", f"{_STATES} of size {sizes[1]}"
    return None if given.dtype == states.dtype else (given.dtype, states.dtype)


def _name_inputs(encoder: ir.Model, decoder: ir.Model) -> None:
    """Inputs and dimensions of either text by names of their own; what was derived from the old ones is forgotten."""
    for model, length in ((encoder, _SOURCE), (decoder, _TARGET)):
        for v in (v for node in model.graph.all_nodes() for v in node.outputs if v not in decoder.graph.outputs):
            v.shape = None
        for v in (v for v in model.graph.inputs if v.dtype == ir.DataType.INT64 and len(dims(v) or ()) == 2):
            _name_dims(v, length)
    for v in decoder.graph.outputs:
        _name_dims(v, _TARGET)
    for v in decoder.graph.inputs:
        v.name = _RENAMED.get(str(v.name), v.name)


def _name_dims(v: ir.Value, length: str) -> None:
    """[B, length, ..]; what is fixed stays."""
    given = dims(v) or []
    named = [new if isinstance(old, str | None) else old for old, new in zip(given, (_BATCH, length), strict=False)]
    v.shape = ir.Shape([*named, *given[2:]]) if given else None


def _joined(encoder: ir.Model, decoder: ir.Model, given: ir.Value, states: ir.Value) -> ir.Model:
    graph, own, read = encoder.graph, decoder.graph, {states: given}
    if (mask := _input(decoder, _MASK)) is not None and (source := _input(encoder, "attention_mask")) is not None:
        read[mask] = source
    for taken, from_encoder in read.items():
        taken.replace_all_uses_with(from_encoder)
    inputs, outputs = [v for v in own.inputs if v not in read], list(own.outputs)
    nodes, weights = list(own), list(own.initializers.values())
    moved = _inner(decoder, but={*inputs, *outputs})
    own.inputs.clear()
    own.outputs.clear()
    own.initializers.clear()
    own.remove(nodes)
    graph.outputs.clear()
    graph.extend(nodes)
    graph.inputs.extend(inputs)
    graph.outputs.extend(outputs)
    called = {v.name for v in (*inputs, *outputs)}
    moved += [v for v in _inner(encoder, but={*graph.inputs, *graph.outputs}) if v.name in called and v not in moved]
    name_apart(encoder, moved)
    name_nodes(encoder)
    for v in weights:
        graph.register_initializer(v)
    encoder.ir_version = max(encoder.ir_version, decoder.ir_version)
    return encoder


def _inner(model: ir.Model, but: Collection[ir.Value]) -> list[ir.Value]:
    """The values that are no inputs or outputs, those of bodies included."""
    found = [v for node in model.graph.all_nodes() for v in node.outputs]
    found += [v for graph in model.graph.subgraphs() for v in graph.inputs]
    found += [v for graph in model.graphs() for v in graph.initializers.values()]
    return [v for v in dict.fromkeys(found) if v not in but]
