"""What a graph with a cache takes and gives: the names of its tensors, and how its cache is laid out.

An artifact's manifest says so under "cache". Of a graph without one it is read from the names that Hugging Face's
optimum gives: ``past_key_values.0.key`` goes in, ``present.0.key`` comes out, a new and longer tensor.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnxsmith.errors import BadInput
from onnxsmith.runtime.feeds import TensorInfo

_PAST = re.compile(r"past_key_values\.\d+\.(?:(decoder|encoder)\.)?(?:key|value)")


@dataclass(frozen=True)
class Cross:
    """Keys and values of a source text: ``outputs`` of its own graph, which ``past`` of the decoder's takes in turn.

    ``inputs`` are its ids and mask, or ids alone; ``mask`` is the decoder's name of that mask, None where it takes
    none.
    ``model`` is that graph's file in the artifact's folder; None where it is an artifact of its own. ``max_positions``
    limits the source, where a limit is known. ``shared``: as many rows in turn may read each source.
    """

    past: tuple[str, ...]
    outputs: tuple[str, ...]
    inputs: tuple[str, ...] = ("input_ids", "attention_mask")
    mask: str | None = "encoder_attention_mask"
    model: str | None = None
    max_positions: int | None = None
    shared: bool = False


@dataclass(frozen=True)
class Best:
    """The optional input ``count`` int64 [1], and what a run then gives: so many best ``tokens`` [B, 1, count] of each
    row and their log probabilities, ``scores``.
    """

    count: str
    scores: str
    tokens: str


@dataclass(frozen=True)
class Interface:
    """``in_place``: rows are compact from column 0, and past and present may be one longer buffer.

    Otherwise new tokens are the last columns, and present is past and they. ``next_token`` is the best token [B, 1]
    where the graph picks it, and where the optional input ``greedy`` is true, it does so in less time and may give no
    logits; ``window`` is how many last tokens a query sees. Where the cache ``rolls``, those before may be dropped from
    the front of a row, if the positions go on. Where it is ``steady``, the mask of a step may be longer than the text.
    ``best`` is how it gives several tokens, where it does.
    """

    past: tuple[str, ...]
    present: tuple[str, ...]
    in_place: bool = False
    ids: str = "input_ids"
    mask: str = "attention_mask"
    positions: str | None = None
    logits: str = "logits"
    last_only: bool = False
    next_token: str | None = None
    max_positions: int | None = None
    window: int | None = None
    rolls: bool = False
    cross: Cross | None = None
    greedy: str | None = None
    steady: bool = False
    best: Best | None = None


def find_interface(
    manifest: Mapping[str, Any], inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]
) -> Interface | None:
    """The cache of a model with these inputs and outputs; None where it has none.

    Raises:
        BadInput: the manifest names tensors that the graph does not have.
    """
    entry = manifest.get("cache")
    found = _recorded(entry) if entry is not None else _named(manifest, inputs, outputs)
    if found is None:
        return None
    if found.cross is not None:
        limit = _limit(manifest, inputs, found.cross.mask) if found.cross.mask is not None else None
        found = replace(found, cross=replace(found.cross, max_positions=limit))
    taken = {found.ids, found.mask, *found.past, *(found.cross.past if found.cross else ())}
    if found.cross is not None and found.cross.mask is not None:
        taken.add(found.cross.mask)
    given = {found.logits, *found.present}
    lacking = taken - {info.name for info in inputs} | given - {info.name for info in outputs}
    if lacking:
        raise BadInput(f"the cache that is recorded names {min(lacking)!r}, which the graph lacks; write it again")
    return found


def _recorded(entry: Any) -> Interface:
    """The manifest's own words; see the class for their meaning."""
    try:
        cross, best = entry.get("cross"), entry.get("best")
        return Interface(
            past=tuple(entry["past"]),
            present=tuple(entry["present"]),
            in_place=entry["layout"] == "in-place",
            ids=str(entry["ids"]),
            mask=str(entry["mask"]),
            positions=entry.get("positions"),
            logits=str(entry["logits"]),
            last_only=bool(entry.get("last_only")),
            next_token=entry.get("next_token"),
            max_positions=entry.get("max_positions"),
            window=entry.get("window"),
            rolls=bool(entry.get("rolls")),
            cross=None if cross is None else _recorded_cross(cross),
            greedy=entry.get("greedy"),
            steady=bool(entry.get("steady")),
            best=None if best is None else Best(best["count"], best["scores"], best["tokens"]),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise BadInput(f"the manifest's 'cache' is not complete ({error}); optimize the model again") from error


def _recorded_cross(entry: Mapping[str, Any]) -> Cross:
    past, outputs, inputs = (tuple(entry[key]) for key in ("past", "outputs", "inputs"))
    return Cross(past, outputs, inputs, entry["mask"], entry["model"], shared=bool(entry.get("shared")))


def _named(
    manifest: Mapping[str, Any], inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]
) -> Interface | None:
    """A graph whose tensors have optimum's names."""
    names, given = {info.name: info for info in inputs}, {info.name for info in outputs}
    sides = {name: match.group(1) for name in names if (match := _PAST.fullmatch(name))}
    own = tuple(name for name, side in sides.items() if side != "encoder")
    source = tuple(name for name, side in sides.items() if side == "encoder")
    if not own or "logits" not in given or "attention_mask" not in names:
        return None
    return Interface(
        past=own,
        present=tuple(map(_present, own)),
        positions="position_ids" if "position_ids" in names else None,
        next_token="next_token" if "next_token" in given else None,
        max_positions=_limit(manifest, inputs, "attention_mask"),
        cross=Cross(source, tuple(map(_present, source))) if source else None,
    )


def _limit(manifest: Mapping[str, Any], inputs: Sequence[TensorInfo], mask: str) -> int | None:
    """How many columns a mask [B, T] may have, by the manifest's bounds."""
    lengths = [info.dims[1] for info in inputs if info.name == mask]
    limit: int | None = manifest.get("bounds", {}).get(lengths[0]) if lengths else None
    return limit


def _present(past: str) -> str:
    return past.replace("past_key_values", "present")
