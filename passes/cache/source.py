"""An encoder-decoder as two graphs: what reads the source alone, run once, and a decoder that takes what that gives.

    encoder(source)  ->  keys and values of each cross-attention, and whatever else of the source the decoder reads
    decoder(text, mask of the source, those)  ->  logits

What depends on the source's mask or length alone is computed in both. Shapes: B batch, R source tokens, H heads, D head
size.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx_ir as ir

from onnxsmith.passes.cache.heads import apart, packed
from onnxsmith.passes.cache.last import follow_outputs
from onnxsmith.passes.cache.record import Cross, record_source
from onnxsmith.passes.cache.sides import Crossing, Sides
from onnxsmith.passes.cache.text import Refused
from onnxsmith.passes.canonicalize import follow, sweep
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.provenance import stamp
from onnxsmith.passes.engine.values import dims

NAME = "encoder-decoder"


def split(model: ir.Model) -> tuple[ir.Model, ir.Model, Cross]:
    """The encoder and the decoder of a lifted model that reads two texts, which is not changed itself.

    The decoder is a plain one, without a cache; what it takes of the encoder is recorded in both, and given here too.
    Raises Refused.
    """
    decoder = model.clone()
    follow_outputs(decoder)
    sides = Sides(decoder)
    sides.tell_lengths()
    sweep(decoder)
    encoder, crossings = decoder.clone(), sides.crossings()
    _give(encoder, crossings)
    _keep_inputs(encoder, {str(v.name) for v in sides.source.inputs})
    _take(decoder, crossings, sides)
    _keep_inputs(decoder, {str(v.name) for v in [*sides.text.inputs, sides.source.mask] if v} | _pasts(crossings))
    cross = _cross(crossings, sides)
    record_source(decoder, cross)
    record_source(encoder, cross)
    return encoder, decoder, cross


def _pasts(crossings: Sequence[Crossing]) -> set[str]:
    return {c.past for c in crossings}


def _cross(crossings: Sequence[Crossing], sides: Sides) -> Cross:
    inputs = [str(v.name) for v in sides.source.inputs]
    mask = str(sides.source.mask.name) if sides.source.mask is not None else None
    return Cross([c.past for c in crossings], [c.present for c in crossings], inputs, mask)


def _give(encoder: ir.Model, crossings: Sequence[Crossing]) -> None:
    """Let the model give what crosses, in place, and nothing else."""
    graph, op, names = encoder.graph, Builder(), Names(encoder)
    values = {str(v.name): v for node in graph for v in node.outputs}
    outputs = []
    for crossing in crossings:
        own = values[str(crossing.value.name)]
        outputs.append(own if crossing.heads is None else _traced(op, own, apart(op, own, crossing.heads)))
    names.adopt(graph, op)
    graph.extend(op.nodes)
    graph.outputs.clear()
    for crossing, v in zip(crossings, outputs, strict=True):
        v.name = crossing.present
        graph.outputs.append(v)


def _take(decoder: ir.Model, crossings: Sequence[Crossing], sides: Sides) -> None:
    """Let the model take what crosses, in place."""
    graph, op, names, taken = decoder.graph, Builder(), Names(decoder), []
    for crossing in crossings:
        own = crossing.value
        shape = dims(own) or []
        if crossing.heads is not None:
            assert isinstance(shape[2], int), "heads are of known size"
            shape = [shape[0], crossing.heads, shape[1], shape[2] // crossing.heads]
        given = ir.Value(name=crossing.past, type=own.type, shape=ir.Shape(shape))
        graph.inputs.append(given)
        own.replace_all_uses_with(given if crossing.heads is None else _traced(op, own, packed(op, given)))
        taken.append(given)
    if sides.source.mask is None:
        _measure(sides.source.ids, taken)
    names.adopt(graph, op)
    graph.extend(op.nodes)
    graph.sort()


def _measure(ids: ir.Value, given: Sequence[ir.Value]) -> None:
    """Let lengths of the source's ids be those of what is given of it."""
    axes = {name: (v, axis) for v in given for axis, name in enumerate(dims(v) or [])}
    for node in [node for node, _ in ids.uses() if node.op_type == "Shape"]:
        name = (dims(ids) or [])[node.attributes["start"].as_int()]
        if name not in axes:
            raise Refused("nothing that the decoder reads of the source has its length")
        v, axis = axes[name]
        node.replace_input_with(0, v)
        node.attributes["start"], node.attributes["end"] = ir.AttrInt64("start", axis), ir.AttrInt64("end", axis + 1)


def _traced(op: Builder, own: ir.Value, made: ir.Value) -> ir.Value:
    """Record that the two views behind what was made stand for what gave the value."""
    producer = own.producer()
    if producer is not None:
        stamp(op.nodes[-2:], NAME, [producer])
    return made


def _keep_inputs(model: ir.Model, kept: Collection[str]) -> None:
    """What nothing reads any more goes, in place, and so do the other inputs."""
    sweep(model)
    for v in [v for v in model.graph.inputs if v.name not in kept and not v.is_initializer()]:
        model.graph.inputs.remove(v)
    follow(model)
