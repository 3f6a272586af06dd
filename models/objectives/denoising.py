"""Texts with spans taken out: what T5 and BART are pre-trained to restore.

A text is a list of token ids without special tokens; the caller adds start and end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Generator

Tokens = list[int]


def corrupt_spans(
    text: Sequence[int], sentinels: Sequence[int], generator: Generator, density: float = 0.15, length: float = 3.0
) -> tuple[Tokens, Tokens]:
    """T5's objective: the text with a sentinel in place of each span, and what the spans were.

        a b c d e f   ->   a <0> d e <1>     <0> b c <1> f <2>

    ``density`` of the tokens are taken out, in spans of ``length`` on average; spans do not touch. Needs two tokens,
    and a sentinel more than there are spans. Source: Raffel et al. 2020, arXiv:1910.10683, section 3.1.4, figure 2.
    """
    taken = min(max(round(len(text) * density), 1), len(text) - 1)
    spans = min(max(round(taken / length), 1), taken, len(text) - taken)
    inputs: Tokens = []
    target: Tokens = []
    at = 0
    for i, (kept, out) in enumerate(
        zip(_segments(len(text) - taken, spans, generator), _segments(taken, spans, generator), strict=True)
    ):
        inputs += [*text[at : at + kept], sentinels[i]]
        target += [sentinels[i], *text[at + kept : at + kept + out]]
        at += kept + out
    return inputs, [*target, sentinels[spans]]


def _segments(total: int, parts: int, generator: Generator) -> list[int]:
    """``parts`` numbers of at least 1 that sum to ``total``, every such split as likely as any other."""
    cuts = sorted((torch.randperm(total - 1, generator=generator)[: parts - 1] + 1).tolist())
    return [end - start for start, end in zip([0, *cuts], [*cuts, total], strict=True)]


def infill(
    text: Sequence[int], mask_id: int, generator: Generator, density: float = 0.3, length: float = 3.0
) -> Tokens:
    """BART's text infilling: spans become one ``mask_id`` each, whatever their length; those of none insert one.

    Lengths are drawn from a Poisson distribution with mean ``length`` until ``density`` of the tokens are covered.
    Source: Lewis et al. 2019, arXiv:1910.13461, section 2.2.
    """
    hidden, starts, inserted = [False] * len(text), [False] * len(text), [0] * (len(text) + 1)
    while (left := round(len(text) * density) - sum(hidden)) > 0:
        span = min(int(torch.poisson(torch.tensor(length), generator=generator)), left)
        places = [i for i in range(len(text) - span + 1) if not any(hidden[i : i + span])]
        if not places:
            continue  # a shorter one will fit
        at = places[int(torch.randint(len(places), (), generator=generator))]
        if span == 0:
            inserted[at] += 1
            continue
        hidden[at : at + span], starts[at] = [True] * span, True
    found: Tokens = []
    for i, token in enumerate(text):
        found += [mask_id] * (inserted[i] + starts[i]) + [token] * (not hidden[i])
    return found + [mask_id] * inserted[-1]


def permute_sentences(text: Sequence[int], ends: Collection[int], generator: Generator) -> Tokens:
    """BART's sentence permutation: the sentences, each up to a token of ``ends``, in an order by chance."""
    sentences: list[Tokens] = [[]]
    for token in text:
        sentences[-1].append(token)
        if token in ends:
            sentences.append([])
    whole = [sentence for sentence in sentences if sentence]
    return [token for i in torch.randperm(len(whole), generator=generator).tolist() for token in whole[i]]
