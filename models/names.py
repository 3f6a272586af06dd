"""How Hugging Face names tensors: one table per architecture, from their names to ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from onnxsmith.errors import BadInput


@dataclass(frozen=True)
class NameTable:
    """``rename`` maps patterns of their names to ours; ``unused`` are tensors that the model does without."""

    rename: Mapping[str, str]
    unused: tuple[str, ...] = ()

    def ours(self, theirs: Iterable[str]) -> dict[str, str]:
        """Their name by our name. Raises BadInput for a tensor that no row knows, or two for one place."""
        found: dict[str, str] = {}
        for name in theirs:
            if any(re.fullmatch(pattern, name) for pattern in self.unused):
                continue
            ours = self._one(name)
            if ours in found:
                raise BadInput(f"the checkpoint has tensors {found[ours]!r} and {name!r} for one place; keep one")
            found[ours] = name
        return found

    def _one(self, name: str) -> str:
        for pattern, ours in self.rename.items():
            if (match := re.fullmatch(pattern, name)) is not None:
                return match.expand(ours)
        raise BadInput(f"the checkpoint has a tensor {name!r} that the architecture has no place for")


_LAYER = r"(?:bert\.)?encoder\.layer\.(\d+)\."
_KIND = r"\.(weight|bias)"

BERT = NameTable(
    {
        r"(?:bert\.)?embeddings\.word_embeddings\.weight": r"embeddings.token.weight",
        r"(?:bert\.)?embeddings\.position_embeddings\.weight": r"embeddings.position.weight",
        r"(?:bert\.)?embeddings\.token_type_embeddings\.weight": r"embeddings.segment.weight",
        r"(?:bert\.)?embeddings\.LayerNorm" + _KIND: r"embeddings.norm.\1",
        _LAYER + r"attention\.self\.(query|key|value)" + _KIND: r"layers.\1.attention.\2.\3",
        _LAYER + r"attention\.output\.dense" + _KIND: r"layers.\1.attention.output.\2",
        _LAYER + r"attention\.output\.LayerNorm" + _KIND: r"layers.\1.attention_norm.\2",
        _LAYER + r"intermediate\.dense" + _KIND: r"layers.\1.feed_forward.up.\2",
        _LAYER + r"output\.dense" + _KIND: r"layers.\1.feed_forward.down.\2",
        _LAYER + r"output\.LayerNorm" + _KIND: r"layers.\1.output_norm.\2",
    },
    # Heads that an encoder does not use, and a buffer that is only 0, 1, 2, ...
    unused=(r"(?:bert\.)?pooler\..*", r"cls\..*", r"(?:bert\.)?embeddings\.position_ids"),
)
