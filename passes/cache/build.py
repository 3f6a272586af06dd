"""The rewrite: cones at both lengths, attention with past and present, and the outputs of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir

from onnxsmith.passes.cache.cones import ALL, NEW, Copies
from onnxsmith.passes.cache.last import last_token, narrowed
from onnxsmith.passes.cache.plan import Edge, Plan
from onnxsmith.passes.cache.positions import Positions
from onnxsmith.passes.cache.record import COLUMNS, PLACES, Cache, record, source_of
from onnxsmith.passes.cache.rows import Rows
from onnxsmith.passes.cache.sites import Site
from onnxsmith.passes.cache.text import Refused
from onnxsmith.passes.canonicalize import follow, prune, sweep
from onnxsmith.passes.engine.build import Builder, detach
from onnxsmith.passes.engine.names import Names
from onnxsmith.passes.engine.values import dims

_PAST = "past_sequence"
_OWN = _MASK, _POSITIONS, _NEXT = "attention_mask", "position_ids", "next_token"
_MASK_OF_TWO = "decoder_attention_mask"  # beside the source's
_PREFIXES = ("past_key_values.", "present.")
_Pairs = list[tuple[ir.Value, ir.Value]]


def cached(model: ir.Model, plan: Plan, *, all_logits: bool, bounds: Mapping[str, int]) -> Cache:
    """Do what was planned, in place. May still refuse, before it changes anything."""
    graph, op, names = model.graph, Builder(), Names(model)
    name = _MASK_OF_TWO if plan.source else _MASK
    mask = plan.text.mask or ir.Value(name=name, type=ir.TensorType(ir.DataType.INT64))
    shape = ir.Shape(dims(plan.text.ids) or [])
    value = ir.Value(name=_POSITIONS, type=ir.TensorType(ir.DataType.INT64), shape=shape)
    positions = Positions(plan.cones, value)
    copies = Copies(plan.cones, op, plan.text.ids, mask)
    of_tokens, of_columns = Rows(copies, positions), Rows(copies)
    try:
        made = [(edge, _replacement(edge, copies, of_tokens, of_columns)) for edge in plan.edges]
    except Refused:
        detach(op.nodes)
        raise
    # From here on the graph changes, and nothing refuses.
    _free_names(graph)
    for edge, v in made:
        edge.node.replace_input_with(edge.index, v)
    names.adopt(graph, op)
    graph.extend(op.nodes)
    if plan.text.mask is None:
        graph.inputs.append(mask)
    if positions.used:
        graph.inputs.append(positions.value)
    pairs = [_with_past(graph, i, site, plan) for i, site in enumerate(plan.sites)]
    mask.shape = ir.Shape([(dims(plan.text.ids) or [None])[0], _total(plan)])
    next_token = _outputs(model, plan, mask, all_logits)
    graph.sort()
    _settle(model)
    found = _described(plan, mask, positions, pairs, next_token)
    limit = min((bounds[name] for name in plan.text.sequence if name in bounds), default=None)
    cross = source_of(model)
    record(model, replace(found, last_only=not all_logits, max_positions=limit, cross=cross))
    if of_tokens.cut:
        model.metadata_props[COLUMNS] = "1"
    if positions.columns:
        model.metadata_props[PLACES] = "1"
    return found


def _described(plan: Plan, mask: ir.Value, positions: Positions, pairs: Sequence[_Pairs], next_token: str) -> Cache:
    site = plan.sites[0]
    assert site.keys.dtype is not None, "attention was recognised by its type"
    return Cache(
        layers=len(plan.sites),
        heads=site.heads,
        head_size=site.size,
        dtype=str(site.keys.dtype.numpy()),
        ids=str(plan.text.ids.name),
        mask=str(mask.name),
        positions=_POSITIONS if positions.used else None,
        past=[str(past.name) for pair in pairs for past, _ in pair],
        present=[str(present.name) for pair in pairs for _, present in pair],
        logits=str(plan.graph.outputs[0].name),
        last_only=True,
        next_token=next_token,
    )


def _free_names(graph: ir.Graph) -> None:
    """Inner values give way to the new inputs and outputs."""
    taken = {str(v.name) for v in [*graph.inputs, *graph.outputs]}
    inner = [v for node in graph for v in node.outputs] + list(graph.initializers.values())
    for v in inner:
        name = str(v.name)
        if name not in taken and (name in _OWN or name.startswith(_PREFIXES)):
            v.name = f"{name}.inner"


def _replacement(edge: Edge, copies: Copies, of_tokens: Rows, of_columns: Rows) -> ir.Value:
    if edge.kind == "shape":
        return copies.at(edge.value, NEW)
    if edge.axis is None:
        return copies.at(edge.value, ALL)
    return (of_columns if edge.kind == "mask" else of_tokens).of(edge.value, edge.axis)


def _total(plan: Plan) -> str:
    """What the length of the whole text is called."""
    return f"{_PAST} + {(dims(plan.text.ids) or [None])[1]}"


def _with_past(graph: ir.Graph, layer: int, site: Site, plan: Plan) -> _Pairs:
    """Attention with past and present in place of the plain one; (past, present) of keys and of values."""
    node, batch = site.node, (dims(plan.text.ids) or [None])[0]
    pairs = []
    for part, size in (("key", site.size), ("value", site.value_size)):
        kind = ir.TensorType(site.keys.dtype)  # type: ignore[arg-type]
        shapes = [ir.Shape([batch, site.heads, length, size]) for length in (_PAST, _total(plan))]
        past = ir.Value(name=f"past_key_values.{layer}.{part}", type=kind, shape=shapes[0])
        present = ir.Value(name=f"present.{layer}.{part}", type=kind, shape=shapes[1])
        pairs.append((past, present))
    own = node.outputs[0]
    output = ir.Value(name=own.name, type=own.type, shape=own.shape)
    own.name = f"{own.name}.plain"
    inputs = [node.inputs[0], site.keys, site.values, site.mask, *(past for past, _ in pairs)]
    outputs = [output, *(present for _, present in pairs)]
    made = ir.Node("", "Attention", inputs, node.attributes.values(), outputs=outputs, name=node.name)
    made.metadata_props.update(node.metadata_props)
    graph.insert_before(node, made)
    own.replace_all_uses_with(output)
    graph.remove(node, safe=True)
    graph.inputs.extend(past for past, _ in pairs)
    graph.outputs.extend(present for _, present in pairs)
    return pairs


def _outputs(model: ir.Model, plan: Plan, mask: ir.Value, all_logits: bool) -> str:
    """Logits of the last token, unless all are wanted, and the token that has the largest; the latter's name."""
    graph, op, names, logits = model.graph, Builder(), Names(model), plan.logits
    if not all_logits:
        logits = narrowed(op, plan.logits, plan.cones.hidden, plan.text.ids, mask)
        last = logits
    else:
        last = last_token(op, logits, plan.text.ids, mask)
    chosen = op.ArgMax(last, axis=-1, keepdims=0)
    names.adopt(graph, op)
    if logits is not plan.logits:
        logits.name, plan.logits.name = plan.logits.name, f"{plan.logits.name}.all"
        graph.outputs[0] = logits
    chosen.name, chosen.type = _NEXT, ir.TensorType(ir.DataType.INT64)
    chosen.shape = ir.Shape([(dims(plan.text.ids) or [None])[0], 1])
    graph.extend(op.nodes)
    graph.outputs.insert(1, chosen)
    return _NEXT


def _settle(model: ir.Model) -> None:
    """Types and shapes of what was built; what nothing reads any more goes."""
    prune(model)
    sweep(model)
    follow(model)
