"""What a model is exported for: its inputs and outputs by name, type and which dimensions vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

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
    """``method`` of the module is what runs.

    A dimension may be the sum of others, as in "past_sequence + sequence". ``bounds`` gives the largest size of a named
    dimension, as in ``{"sequence": 512}``.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    bounds: Mapping[str, int] = field(default_factory=dict)
    method: str = "forward"


def token_inputs(*extra: str, dims: tuple[str, ...] = ("batch", "sequence")) -> tuple[TensorSpec, ...]:
    """``input_ids`` and ``attention_mask``, then ``extra`` ones, int64 [B, S] each."""
    return tuple(TensorSpec(name, "int64", dims) for name in ("input_ids", "attention_mask", *extra))


def encoder_task(hidden_size: int, positions: int, *, segments: bool = True) -> ExportTask:
    """A BERT-like encoder: token ids to hidden states [B, S, hidden_size]."""
    inputs = token_inputs(*(["token_type_ids"] if segments else []))
    hidden = TensorSpec("last_hidden_state", "float32", ("batch", "sequence", hidden_size))
    return ExportTask("features", inputs, (hidden,), {"sequence": positions})


def decoder_task(name: str, width: int, positions: int) -> ExportTask:
    """A decoder without a cache: ids to "features" or "causal-lm" logits [B, S, width], or "classify" [B, width]."""
    output = "last_hidden_state" if name == "features" else "logits"
    dims = ("batch", width) if name == "classify" else ("batch", "sequence", width)
    return ExportTask(name, token_inputs(), (TensorSpec(output, "float32", dims),), {"sequence": positions})


def pooled(task: ExportTask) -> ExportTask:
    """The task of an encoder whose hidden states are followed by an embedding of the sentence."""
    (hidden,) = task.outputs
    embedding = TensorSpec("sentence_embedding", hidden.dtype, ("batch", hidden.dims[-1]))
    return replace(task, name="embed", outputs=(hidden, embedding))
