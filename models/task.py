"""What a model is exported for: its inputs and outputs by name, type and which dimensions vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TensorSpec:
    """``dims`` holds an int for a fixed dimension and a name for one that varies at run time."""

    name: str
    dtype: str
    dims: tuple[str | int, ...]

    def to_json(self) -> dict[str, object]:
        return {"name": self.name, "dtype": self.dtype, "dims": list(self.dims)}


@dataclass(frozen=True)
class ExportTask:
    """``bounds`` gives the largest size of a named dimension, as in ``{"sequence": 512}``."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    bounds: Mapping[str, int] = field(default_factory=dict)


def encoder_task(name: str, outputs: tuple[TensorSpec, ...], positions: int) -> ExportTask:
    """The inputs of a BERT-like encoder with the given outputs."""
    ids = ("batch", "sequence")
    inputs = tuple(TensorSpec(n, "int64", ids) for n in ("input_ids", "attention_mask", "token_type_ids"))
    return ExportTask(name, inputs, outputs, {"sequence": positions})
