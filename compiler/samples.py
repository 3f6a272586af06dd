"""The user's own inputs: for a lossy precision half of them calibrate, the other half judge."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler.compare.inputs import mask_names
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.session import run_model
from onnxsmith.errors import BadInput, first_line
from onnxsmith.passes.engine.values import dims
from onnxsmith.runtime.artifact import Artifact
from onnxsmith.runtime.feeds import TensorInfo, check_feeds, check_ids
from onnxsmith.runtime.tokenize import Tokens, text_encoder

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
Given: TypeAlias = Arrays | Sequence[str]  # arrays [N, ..] by input name, or texts
_BATCH = 8


@dataclass(frozen=True)
class Samples:
    """Inputs that calibrate, and others that judge."""

    calibrating: Sequence[Case] = ()
    judging: Sequence[Case] = ()


def split(given: Given, model: ir.Model, artifact: Artifact) -> Samples:
    """The samples as :func:`given_cases`, every second batch for judging. Raises BadInput also for fewer than two."""
    cases = given_cases(given, model, artifact)
    if len(cases) < 2:
        raise BadInput("calibration needs 2 samples or more, for one half judges what the other calibrates; add some")
    return Samples(cases[::2], cases[1::2])


def given_cases(given: Given, model: ir.Model, artifact: Artifact) -> list[Case]:
    """The samples as batches, checked against the model's inputs and run once.

    Raises BadInput: arrays that do not fit the model or hold NaN, texts without a tokenizer, or a sample that the
    model does not run on.
    """
    inputs = [_declared(v) for v in model.graph.inputs if not v.is_initializer()]
    batches = _arrays(given, inputs) if isinstance(given, Mapping) else _texts(given, inputs, artifact)
    cases = [_case(i, feeds, inputs, model, artifact) for i, feeds in enumerate(batches)]
    run = run_model(model)
    for case in cases:
        try:
            run(case.feeds)
        except Exception as e:  # ONNX Runtime's error classes have no common base
            raise BadInput(f"{case.name}: ONNX Runtime fails on it: {first_line(e)}") from e
    return cases


def _arrays(given: Arrays, inputs: Sequence[TensorInfo]) -> Iterator[Arrays]:
    """Rows of the arrays in batches of the model's own size, or of a few."""
    batched = [info for info in inputs if info.dims and info.name in given and given[info.name].ndim]
    rows = max((len(given[info.name]) for info in batched), default=1)
    fixed = next((info.dims[0] for info in batched if isinstance(info.dims[0], int)), None)
    size = fixed or min(_BATCH, -(-rows // 2))
    names = {info.name for info in batched}
    for start in range(0, rows, max(size, 1)):
        yield {name: array[start : start + size] if name in names else array for name, array in given.items()}


def _texts(texts: Sequence[str], inputs: Sequence[TensorInfo], artifact: Artifact) -> Iterator[Arrays]:
    """Texts of one length make a batch, so that no position is padding."""
    encoder, by_length = text_encoder(artifact), defaultdict[int, list[Tokens]](list)
    for tokens in encoder.encode(texts):
        by_length[len(tokens.ids)].append(tokens)
    size = max(1, min(_BATCH, len(texts) // 2))
    for _, alike in sorted(by_length.items()):
        for start in range(0, len(alike), size):
            feeds = encoder.pad(alike[start : start + size])
            if strange := [info.name for info in inputs if info.name not in feeds]:
                raise BadInput(f"no text gives the input {', '.join(strange)}; give arrays (.npz) instead")
            yield {info.name: feeds[info.name] for info in inputs}


def _case(index: int, feeds: Arrays, inputs: Sequence[TensorInfo], model: ir.Model, artifact: Artifact) -> Case:
    arrays = check_feeds(feeds, inputs, artifact.manifest.get("bounds", {}))
    check_ids(arrays, artifact.manifest.get("vocab_size"))
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise BadInput(f"sample input {name}: expected finite numbers, found infinity or NaN; leave them out")
    masks = [arrays[name] for name in mask_names(model)]
    rows = np.all([mask.any(axis=1) for mask in masks], axis=0) if masks else np.ones(_rows(arrays), bool)
    return Case(f"sample {index}", arrays, rows)


def _rows(arrays: Arrays) -> int:
    return max((len(array) for array in arrays.values() if array.ndim), default=1)


def _declared(v: ir.Value) -> TensorInfo:
    kind = "object" if v.dtype == ir.DataType.STRING or v.dtype is None else str(v.dtype.numpy())
    return TensorInfo(str(v.name), kind, tuple(dims(v) or ()))
