"""One module an engine: ``open_engine(folder, variant, threads)`` loads a model and gives its ``Prepare``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]  # [B, S]; every position counts
Run = Callable[[], Any]  # runs once; gives the output, an array [B, .., D]
Prepare = Callable[[Ids], Run]


def feeds_of(ids: Ids) -> dict[str, Ids]:
    """The inputs of a raw export, and of what is made of it."""
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


class Unavailable(Exception):
    """The engine has no such model, or cannot run on this machine; the message says which."""
