"""What a model is exported for: its inputs and outputs by name, type and which dimensions vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxsmith.errors import BadInput

DTYPES = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "int8", "uint8", "bool")


@dataclass(frozen=True)
class TensorSpec:
    """``dims`` holds an int for a fixed dimension and a name for one that varies at run time."""

    name: str
    dtype: str
    dims: tuple[str | int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise BadInput(f"tensor {self.name!r} has dtype {self.dtype!r}; give one of {', '.join(DTYPES)}")

    def to_json(self) -> dict[str, object]:
        return {"name": self.name, "dtype": self.dtype, "dims": list(self.dims)}


@dataclass(frozen=True)
class ExportTask:
    """``bounds`` gives the largest size of a named dimension, as in ``{"sequence": 512}``."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    bounds: Mapping[str, int] = field(default_factory=dict)


def encoder_task(hidden_size: int, positions: int, *, pooled: bool) -> ExportTask:
    """A BERT-like encoder: "embed" when a sentence embedding follows the hidden states, else "features"."""
    ids = ("batch", "sequence")
    inputs = tuple(TensorSpec(n, "int64", ids) for n in ("input_ids", "attention_mask", "token_type_ids"))
    hidden = TensorSpec("last_hidden_state", "float32", (*ids, hidden_size))
    embedding = TensorSpec("sentence_embedding", "float32", ("batch", hidden_size))
    outputs = (hidden, embedding) if pooled else (hidden,)
    return ExportTask("embed" if pooled else "features", inputs, outputs, {"sequence": positions})
