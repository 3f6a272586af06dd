"""Losses. Labels are int64 token ids, and IGNORED where a place does not count.

Shapes: B batch, S sequence, V vocabulary, N examples, K negatives, E embedding size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORED = -100


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Logits [.., V] and labels [..] -> the mean in nats over the labels that count, [].

    ``smoothing`` e wants 1 - e of the label and e / V of every token: Szegedy et al. 2016, arXiv:1512.00567, section 7;
    Vaswani et al. 2017 train with 0.1. Zero where no label counts.
    """
    flat = labels.flatten()
    if not (flat != IGNORED).any():
        return logits.sum() * 0.0
    return F.cross_entropy(logits.flatten(0, -2), flat, ignore_index=IGNORED, label_smoothing=smoothing)


def span_loss(start: Tensor, end: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Logits of the two ends [B, S] each, and their places int64 [B] -> the mean of both losses, [].

    Source: Devlin et al. 2018, arXiv:1810.04805, section 4.2.
    """
    return (F.cross_entropy(start, starts) + F.cross_entropy(end, ends)) / 2


class SkipGram(nn.Module):
    """Word vectors by which words stand near which. Mikolov et al. 2013, arXiv:1310.4546, section 2.2."""

    def __init__(self, vocab_size: int, size: int) -> None:
        super().__init__()
        self.centre = nn.Embedding(vocab_size, size)
        self.context = nn.Embedding(vocab_size, size)
        nn.init.uniform_(self.centre.weight, -0.5 / size, 0.5 / size)
        nn.init.zeros_(self.context.weight)

    def forward(self, centres: Tensor, contexts: Tensor, negatives: Tensor) -> Tensor:
        """Words [N], words beside them [N], words drawn by chance [N, K] -> the loss, [].

        The mean over examples of -log s(u v) - sum over k of log s(-u_k v), with s the logistic function.
        """
        v = self.centre(centres)  # [N, E]
        near = F.logsigmoid((self.context(contexts) * v).sum(-1))
        far = F.logsigmoid(-(self.context(negatives) @ v[:, :, None]).squeeze(-1)).sum(-1)
        return -(near + far).mean()

    def nearest(self, word: int, count: int) -> list[tuple[int, float]]:
        """The ``count`` words with the largest cosine to a word, and the cosines, largest first."""
        table = F.normalize(self.centre.weight.detach(), dim=-1)
        cosines = table @ table[word]
        cosines[word] = -torch.inf
        found = cosines.topk(count)
        return list(zip(found.indices.tolist(), found.values.tolist(), strict=True))


def noise_distribution(counts: Tensor) -> Tensor:
    """How often each word [V] is drawn as a negative: counts to the power 3/4, as the paper found best."""
    weights = counts.double() ** 0.75
    return weights / weights.sum()
