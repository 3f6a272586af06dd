"""What a call gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from onnxsmith.runtime.bandwidth import read_bandwidth

Reason = Literal["stop", "length"]


@dataclass(frozen=True)
class Timing:
    """Wall-clock seconds of a call, from reading the prompt on. ``bytes`` is the largest size of the cache.

    ``read`` is how many bytes of weights, keys and values all runs after the first token read together; 0 where the
    manifest does not say how large the weights of a step are.
    """

    first_token: float = 0.0
    total: float = 0.0
    prompt_tokens: int = 0
    new_tokens: int = 0
    rows: int = 1
    bytes: int = 0
    read: int = 0

    @property
    def tokens_per_second(self) -> float | None:
        """Of all rows together, after the first token of each; None where there is no second one."""
        seconds, tokens = self.total - self.first_token, self.new_tokens - self.rows
        return tokens / seconds if seconds > 0 and tokens > 0 else None

    @property
    def roof_share(self) -> float | None:
        """Bytes read a second over what the machine's memory gives, which is measured; None where either is unknown.

        Above 1 where the processor's own memory keeps a part of a small model.
        """
        seconds = self.total - self.first_token
        return self.read / seconds / read_bandwidth() if seconds > 0 and self.read else None


@dataclass(frozen=True)
class Generated:
    """``sequences`` are the new ids of each text, its stop token included; several of a prompt stand side by side.

    ``texts`` are the same without special tokens and stop texts, empty without a tokenizer. ``reasons`` say whether a
    text came to its own end ("stop") or to the limit ("length"). ``scores`` are a beam search's: the sum of log
    probabilities over the number of tokens to the power of the length penalty.
    """

    sequences: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...] = ()
    reasons: tuple[Reason, ...] = ()
    scores: tuple[float, ...] | None = None
    timing: Timing = field(default_factory=Timing)
