"""Tokenizers whose tokens are whole words, for texts that are generated from a known vocabulary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer, processors
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from torch import Tensor

SPECIAL = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
PAD, EOS = 0, 1  # their ids in a ``word_tokenizer``


def word_tokenizer(words: Iterable[str]) -> Tokenizer:
    """Splits at spaces, and ends every text with ``</s>``; ids go to ``SPECIAL`` first, then to the words in order."""
    names = list(dict.fromkeys((*SPECIAL.values(), *words)))
    tokenizer = Tokenizer(WordLevel({name: i for i, name in enumerate(names)}, unk_token=SPECIAL["unk"]))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens(list(SPECIAL.values()))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", EOS)])
    return tokenizer


def padded(rows: Sequence[Sequence[int]], fill: int = PAD) -> tuple[Tensor, Tensor]:
    """Ids of B texts -> ids and mask, both int64 [B, S], with ``fill`` behind the shorter ones."""
    ids = torch.full((len(rows), max(map(len, rows))), fill)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask
