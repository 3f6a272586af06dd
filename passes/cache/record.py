"""What a runtime must know of a model with a cache: recorded in the model, and the manifest's entry ``cache``.

Shapes: B batch, S new tokens, P tokens in the cache, H heads of keys and values, D head size, V vocabulary. P may be 0:
one graph serves the prompt and every step.

In the layout *concat*, past is P long and present P + S. The new tokens are the last S columns of the mask, and padding
may stand anywhere.

In the layout *in-place*, the rows are compact: the tokens of row b stand in the columns 0 .. n_b - 1 of its cache, and
row b of the mask [B, T] is n_b ones and then zeros, T being the length of the longest. Past may be any length that
holds what is stored; bound to one buffer of at least P + S columns with present, keys and values are appended there. A
prompt (P = 0) is padded on the right to S = T; a step has S = 1; S > 1 behind a prompt needs B = 1 (ONNX Runtime's
kernel GroupQueryAttention takes no other). The mask alone tells lengths: a shorter one drops tokens. Every row has one.
Where the cache ``rolls``, the first tokens of a row, which no window reaches any more, may be dropped as well: those
that are left move to the front, the mask counts them alone, and positions go on as if none were dropped.
Where it is ``steady``, the mask of a step may go on with zeros up to the length of the buffers or ``max_positions``.

In both, ``positions`` are the cumulative sum of the mask minus one, clipped at 0, in its last S columns.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import onnx_ir as ir

CACHE = "onnxsmith.cache"
SOURCE = "onnxsmith.cache.source"
COLUMNS = "onnxsmith.cache.columns"
PLACES = "onnxsmith.cache.places"
Layout = Literal["concat", "in-place"]


@dataclass(frozen=True)
class Cross:
    """What an encoder-decoder's decoder reads of the source: ``past``, which are ``outputs`` of the encoder in turn.

    The encoder takes ``inputs``, ids and a mask int64 [B, R], or ids alone; ``mask`` is what the decoder calls the
    source's mask, None where it takes none. Keys and values are [B, H, R, D]; where they are ``shared``, [C, H, R, D],
    with a mask [C, R], for the B / C rows in turn that read each of them. ``model`` is the encoder's file beside the
    decoder's, None where it is an artifact of its own.
    """

    past: list[str]
    outputs: list[str]
    inputs: list[str]
    mask: str | None
    model: str | None = None
    shared: bool = False


@dataclass(frozen=True)
class Best:
    """Names for a search by beams: asked for ``count`` int64 [1] tokens, 0 unless it is given, a run gives those best
    ones of each row in turn, ``tokens`` int64 [B, 1, count] and their log probabilities, ``scores`` float32 of as many.
    """

    count: str
    scores: str
    tokens: str


@dataclass(frozen=True)
class Cache:
    """Names of inputs and outputs, and sizes.

    ``ids`` int64 [B, S]; ``mask`` int64 [B, P + S]; ``positions`` int64 [B, S] or None, where the model takes none;
    ``past`` and ``present`` [B, H, P, D], keys and values of each layer in turn; ``logits`` [B, S, V], or [B, 1, V] of
    each row's last token where ``last_only``; ``next_token`` int64 [B, 1], the largest of those; ``window`` is how many
    last keys a query sees, itself among them; ``rolls``: what is behind it may be dropped; ``max_positions`` limits
    P + S, of the whole text; ``cross`` is what is read of a source; ``greedy``, bool [] and false unless it is given,
    asks for ``next_token`` alone: that takes less time, and the logits may have no row; ``steady``: the mask of a step
    may be longer than the text; ``best`` is how several tokens are asked for.
    """

    layers: int
    heads: int
    head_size: int
    dtype: str
    ids: str
    mask: str
    positions: str | None
    past: list[str]
    present: list[str]
    logits: str
    last_only: bool
    next_token: str | None
    layout: Layout = "concat"
    max_positions: int | None = None
    window: int | None = None
    rolls: bool = False
    cross: Cross | None = None
    greedy: str | None = None
    steady: bool = False
    best: Best | None = None

    def to_json(self) -> dict[str, object]:
        """The manifest's entry."""
        return asdict(self)


def record(model: ir.Model, cache: Cache) -> None:
    """Write it into the model's metadata; in place."""
    model.metadata_props[CACHE] = json.dumps(asdict(cache))


def recorded(model: ir.Model) -> Cache | None:
    """What :func:`record` wrote, or None for a model without a cache."""
    found = model.metadata_props.get(CACHE)
    if found is None:
        return None
    entry = json.loads(found)
    best = entry.get("best")
    return Cache(**entry | {"cross": _cross(entry["cross"]), "best": None if best is None else Best(**best)})


def record_source(model: ir.Model, cross: Cross) -> None:
    """Write into the metadata of a decoder without a cache what it takes of a source, or of the encoder; in place."""
    model.metadata_props[SOURCE] = json.dumps(asdict(cross))


def source_of(model: ir.Model) -> Cross | None:
    """What :func:`record_source` wrote, or None for a model that reads and gives no source."""
    return _cross(json.loads(model.metadata_props.get(SOURCE, "null")))


def handed_on(model: ir.Model) -> frozenset[str]:
    """Names of inputs and outputs that no user sees: what one run gives there, another one takes."""
    cache, cross = recorded(model), source_of(model)
    own = () if cache is None else (*cache.past, *cache.present)
    return frozenset((*own, *(() if cross is None else (*cross.past, *cross.outputs))))


def _cross(entry: dict[str, Any] | None) -> Cross | None:
    return None if entry is None else Cross(**entry)


def changed(model: ir.Model, **changes: object) -> None:
    """Record other values of some fields; in place."""
    cache = recorded(model)
    assert cache is not None, "only a model with a cache has them"
    record(model, replace(cache, **changes))  # type: ignore[arg-type]


def counts_columns(model: ir.Model) -> bool:
    """Whether something besides attention tells tokens apart by their column in the mask, padding or not."""
    return COLUMNS in model.metadata_props


def feeds_columns(model: ir.Model) -> bool:
    """Whether the model without a cache took columns for positions, padding or not: what verification must feed."""
    return PLACES in model.metadata_props
