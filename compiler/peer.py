"""PyTorch beside ONNX: a checkpoint as a function from feeds to outputs, to compare variants with."""

from __future__ import annotations

import copy
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

    from onnxsmith.models.checkpoint import Checkpoint
    from onnxsmith.runtime.embed import RunFeeds
    from onnxsmith.runtime.feeds import Feeds


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
    import torch

    inputs, outputs = ([spec.name for spec in specs] for specs in (checkpoint.task.inputs, checkpoint.task.outputs))

    def run(feeds: Feeds) -> dict[str, NDArray[Any]]:
        with torch.inference_mode():
            results = module(*(torch.from_numpy(np.asarray(feeds[name])) for name in inputs))
        tensors = results if isinstance(results, tuple) else (results,)
        return {name: tensor.numpy() for name, tensor in zip(outputs, tensors, strict=True)}

    return run
