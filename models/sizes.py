"""How large the named configs are: parameters, work per token and memory, counted without allocating weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from onnxsmith.models.parts import PAST
from onnxsmith.models.registry import CONFIGS, sketch
from onnxsmith.models.task import ExportTask

BYTES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0, "int4": 0.5}


@dataclass(frozen=True)
class Size:
    """``flops`` are of one token alone (one on each side of an encoder-decoder), a product and its sum counting two.

    Attention over a longer text comes on top: 4 times its length and the model's width, a layer. ``cache`` is the bytes
    of float32 keys and values that a token of a text leaves, 0 for an encoder. ``tasks`` are what the model can be
    exported for.
    """

    name: str
    parameters: int
    flops: int
    cache: int
    tasks: tuple[str, ...]

    @property
    def memory(self) -> dict[str, int]:
        """Bytes of the weights by precision; the scales of quantized blocks are not counted."""
        return {precision: int(self.parameters * width) for precision, width in BYTES.items()}

    def to_json(self) -> dict[str, object]:
        return {
            "name": self.name,
            "parameters": self.parameters,
            "flops_per_token": self.flops,
            "bytes": self.memory,
            "cache_bytes_per_token": self.cache,
            "tasks": list(self.tasks),
        }


def size_of(name: str) -> Size:
    """The size of one config, traced on the meta device. Raises BadInput for an unknown name."""
    module, tasks = sketch(name)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        dims = [[d if isinstance(d, int) else 1 for d in spec.dims] for spec in tasks[0].inputs]
        module.eval()(*(torch.ones(d, dtype=torch.int64) for d in dims))
    parameters = sum(p.numel() for p in module.parameters())
    names = tuple(task.name for task in tasks)
    return Size(name, parameters, counter.get_total_flops(), _cache_bytes(tasks), names)


def _cache_bytes(tasks: Sequence[ExportTask]) -> int:
    """Of one token, in all layers together: what the task with a cache takes of each earlier one."""
    pasts = {spec.name: spec.dims for task in tasks for spec in task.inputs if PAST in spec.dims}
    return 4 * sum(math.prod(d for d in dims if isinstance(d, int)) for dims in pasts.values())


def sizes() -> list[Size]:
    """The size of every config, in the registry's order."""
    return [size_of(name) for name in CONFIGS]
