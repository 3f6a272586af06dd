"""Next-token objectives: what the model reads, and what it is to say at each place.

Shapes: B batch, S or T sequence. ``mask`` is int64 and 1 at tokens; padding stands at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from onnxsmith.models.objectives.losses import IGNORED


def next_tokens(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Causal language modelling: two times [B, S] -> inputs, their mask and labels, each [B, S - 1].

    Every place is to say the token behind it. Radford et al. 2018, equation 1.
    """
    return ids[:, :-1], mask[:, :-1], _labels(ids[:, 1:], mask[:, 1:])


def teacher_forced(target: Tensor, mask: Tensor, start: int) -> tuple[Tensor, Tensor]:
    """Translation: a text with its end token [B, T] -> what the decoder reads, and labels, both [B, T].

    The decoder reads ``start`` and then the right tokens, whatever it said itself; the look-ahead mask of its
    attention hides what is to come. Williams and Zipser 1989, doi:10.1162/neco.1989.1.2.270.
    """
    first = torch.full_like(target[:, :1], start)
    return torch.cat([first, target[:, :-1]], dim=1), _labels(target, mask)


def _labels(ids: Tensor, mask: Tensor) -> Tensor:
    return ids.masked_fill(mask == 0, IGNORED)
