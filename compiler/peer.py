"""PyTorch beside ONNX: a checkpoint as a function from feeds to outputs, to compare variants with."""

from __future__ import annotations

import copy
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from onnxsmith.models.checkpoint import Checkpoint
    from onnxsmith.runtime.embed import RunFeeds


def torch_peer(checkpoint: Checkpoint) -> RunFeeds:
    """Run the checkpoint's module in PyTorch on arrays by input name; gives arrays by output name."""
    return _runner(checkpoint, checkpoint.module)


def in_double(checkpoint: Checkpoint) -> RunFeeds:
    """The same in float64; the copy of the module is made when it is first run."""

    @cache
    def double() -> RunFeeds:
        return _runner(checkpoint, copy.deepcopy(checkpoint.module).double())

    return lambda feeds: double()(feeds)


def _runner(checkpoint: Checkpoint, module: nn.Module) -> RunFeeds:
    from onnxsmith.models.running import on_arrays

    return on_arrays(module, checkpoint.task)
