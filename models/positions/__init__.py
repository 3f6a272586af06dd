"""Ways to tell a Transformer where a token stands, behind one interface, ``Positions``."""

from __future__ import annotations

from onnxsmith.errors import BadInput
from onnxsmith.models.positions.base import Positions, token_positions
from onnxsmith.models.positions.biased import Alibi, RelativeBias, alibi, alibi_slopes
from onnxsmith.models.positions.embedded import LearnedPositions, Sinusoidal, sinusoidal
from onnxsmith.models.positions.rotary import Rotary, rotate

POSITIONS = ("learned", "sinusoidal", "rotary", "alibi", "relative")


def make_positions(
    kind: str,
    *,
    hidden: int,
    heads: int,
    length: int,
    offset: int = 0,
    interleaved: bool = True,
    both_sides: bool = False,
) -> Positions:
    """Positions of a kind that stands in POSITIONS, with what the kind's own paper says of the rest.

    Args:
        kind: "learned" has a table of ``offset`` rows and then ``length``; the others have no limit of their own.
        hidden, heads, length: sizes of the model, ``length`` in tokens.
        offset: rows of a learned table that stand for no position.
        interleaved: how "sinusoidal" lays out its sines and cosines.
        both_sides: whether tokens see what comes after them, as in an encoder; "relative" has buckets for it.

    Raises:
        BadInput: an unknown kind, or sizes that the kind cannot have.
    """
    match kind:
        case "learned":
            return LearnedPositions(offset + length, hidden, offset)
        case "sinusoidal":
            return Sinusoidal(hidden, interleaved)
        case "rotary":
            return Rotary(hidden // heads, 10000.0, length, {})
        case "alibi":
            return Alibi(heads)
        case "relative":
            return RelativeBias(heads, both_sides=both_sides)
    raise BadInput(f"no positions {kind!r}; choose one of {', '.join(POSITIONS)}")


__all__ = [
    "POSITIONS",
    "Alibi",
    "LearnedPositions",
    "Positions",
    "RelativeBias",
    "Rotary",
    "Sinusoidal",
    "alibi",
    "alibi_slopes",
    "make_positions",
    "rotate",
    "sinusoidal",
    "token_positions",
]
