"""A module as a function from arrays to arrays, under the names that its task gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from onnxsmith.models.task import ExportTask

Feeds = Mapping[str, NDArray[Any]]
RunFeeds = Callable[[Feeds], Mapping[str, NDArray[Any]]]


def on_arrays(module: nn.Module, task: ExportTask) -> Callable[[Feeds], dict[str, NDArray[Any]]]:
    """Run the module in PyTorch on arrays by input name; gives arrays by output name."""
    inputs, outputs = ([spec.name for spec in specs] for specs in (task.inputs, task.outputs))

    def run(feeds: Feeds) -> dict[str, NDArray[Any]]:
        with torch.inference_mode():
            results = module(*(torch.from_numpy(np.asarray(feeds[name])) for name in inputs))
        tensors = results if isinstance(results, tuple) else (results,)
        return {name: tensor.numpy() for name, tensor in zip(outputs, tensors, strict=True)}

    return run
