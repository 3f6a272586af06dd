"""How large the named configs are: parameters, work per token and memory, counted without allocating weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from onnxsmith.models.registry import CONFIGS, sketch

BYTES = {"fp32": 4.0, "fp16": 2.0, "int8": 1.0, "int4": 0.5}


@dataclass(frozen=True)
class Size:
    """``flops`` are of one token alone (one on each side of an encoder-decoder), a product and its sum counting two.

    Attention over a longer text comes on top: 4 times its length and the model's width, a layer. ``tasks`` are what the
    model can be exported for.
    """

    name: str
    parameters: int
    flops: int
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
            "tasks": list(self.tasks),
        }


def size_of(name: str) -> Size:
    """The size of one config, traced on the meta device. Raises BadInput for an unknown name."""
    module, tasks = sketch(name)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        dims = [[d if isinstance(d, int) else 1 for d in spec.dims] for spec in tasks[0].inputs]
        module.eval()(*(torch.ones(d, dtype=torch.int64) for d in dims))
    parameters = sum(p.numel() for p in module.parameters())
    return Size(name, parameters, counter.get_total_flops(), tuple(task.name for task in tasks))


def sizes() -> list[Size]:
    """The size of every config, in the registry's order."""
    return [size_of(name) for name in CONFIGS]
