"""What a model reads: token ids, and a mask over them. Everything else in the graph follows from these two.

An encoder-decoder reads two such texts; its decoder, once apart, reads one and what was made of the other.

Shapes: B batch, S new tokens, T all tokens, those in the cache too.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from onnxsmith.passes.engine.values import constant, dims
from onnxsmith.passes.shapes import sizes

_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32)
_VIEWS = frozenset({"Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Clip", "Max", "Min"})


class Refused(Exception):
    """Why the model cannot have a cache."""


@dataclass(frozen=True)
class Text:
    """``ids`` [B, S], ``mask`` [B, S] (None: the model takes none), and the names of the dimensions B and S.

    ``source`` are the inputs that say something of another text.
    """

    ids: ir.Value
    mask: ir.Value | None
    batch: frozenset[str]
    sequence: frozenset[str]
    source: tuple[ir.Value, ...] = ()

    @property
    def inputs(self) -> list[ir.Value]:
        """The ids and the mask, where there is one."""
        return [self.ids] if self.mask is None else [self.ids, self.mask]

    def axis(self, v: ir.Value) -> int | None:
        """The one axis of a value that goes along the tokens; None where there is none. Refuses several."""
        found = sizes(v)
        if found is None:
            raise Refused(f"the rank of {v.name} is unknown")
        along = [i for i, size in enumerate(found) if self.sequence.intersection(size.names)]
        if len(along) > 1:
            raise Refused(f"{v.name} has {len(along)} dimensions as long as the text, {dims(v)}")
        return along[0] if along else None

    def is_batch(self, dim: object) -> bool:
        return dim == 1 or dim in self.batch


def find_text(graph: ir.Graph, source: Collection[str] = ()) -> Text:
    """The ids and the mask among the inputs, and those of the ``source`` by name.

    Refuses any other input, and dimensions that have no name.
    """
    given = [v for v in _given(graph) if v.name not in source]
    ids = [v for v in given if is_ids(v)]
    if len(ids) != 1:
        names = ", ".join(str(v.name) for v in ids) or "none"
        raise Refused(f"expected one input of token ids [B, S], found {names}")
    others = [v for v in given if v is not ids[0]]
    if strange := [v for v in others if len(dims(v) or ()) != 2]:
        raise Refused(f"input {strange[0].name} is neither ids nor a mask: a cache already, or another text")
    if len(others) > 1:
        raise Refused(f"expected one mask beside the ids, found inputs {', '.join(str(v.name) for v in others)}")
    apart = tuple(v for v in _given(graph) if v.name in source)
    return _text(ids[0], others[0] if others else None, apart)


def find_texts(graph: ir.Graph) -> list[Text]:
    """The two texts of an encoder-decoder, inputs of ids of two lengths, perhaps with masks; none of any other model.

    Refuses further inputs beside two of ids, and dimensions that have no name.
    """
    given = _given(graph)
    ids = [v for v in given if is_ids(v)]
    lengths = {(dims(v) or [None, None])[1] for v in ids}
    if len(ids) != 2 or len(lengths) != 2 or any(len(dims(v) or ()) != 2 for v in given):
        return []
    masks: dict[ir.Value, ir.Value] = {}
    for v in (v for v in given if v not in ids):
        own = [text for text in ids if _name(text, 1) == _name(v, 1) and text not in masks]
        if len(own) != 1:
            told = " or ".join(str(text.name) for text in ids)
            raise Refused(f"input {v.name} {dims(v)} is the mask of no one of two texts, {told}")
        masks[own[0]] = v
    return [_text(v, masks.get(v)) for v in ids]


def _text(ids: ir.Value, mask: ir.Value | None, source: tuple[ir.Value, ...] = ()) -> Text:
    own = [ids] if mask is None else [ids, mask]
    batch, sequence = (frozenset(_name(v, axis) for v in own) for axis in (0, 1))
    return Text(ids, mask, batch, sequence, source)


def _given(graph: ir.Graph) -> list[ir.Value]:
    return [v for v in graph.inputs if not v.is_initializer()]


def is_ids(v: ir.Value) -> bool:
    return len(dims(v) or ()) == 2 and v.dtype in _INTEGERS and _picks_rows(v)


def _picks_rows(v: ir.Value) -> bool:
    """Whether a table of weights is read at the rows that this input gives, as it stands or clipped."""
    seen, stack = {v}, [v]
    while stack:
        for node, i in stack.pop().uses():
            if node.op_type == "Gather" and i == 1 and (table := constant(node.inputs[0])) is not None:
                if len(table.shape) > 1:
                    return True
            elif node.op_type in _VIEWS and i == 0:
                stack += [out for out in node.outputs if out not in seen]
                seen.update(node.outputs)
    return False


def _name(v: ir.Value, axis: int) -> str:
    found = (dims(v) or [])[axis]
    if not isinstance(found, str):
        told = "has no name; name it with --dims" if found is None else f"is fixed at {found}; export it open"
        raise Refused(f"dimension {axis} of {v.name} {told}")
    return found
