"""Common inputs for all variants, made from what the reference declares of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler.inputs import Case, made_up, table_rows
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.artifact import Artifact
from onnxsmith.runtime.feeds import Feeds, TensorInfo
from onnxsmith.runtime.tokenize import text_encoder

_TEXTS = 16  # that make one input
DEFAULTS = {"batch": 1, "sequence": 128}
_ROLES = tuple(DEFAULTS)  # of the first two axes, whatever an exporter called them


def synthesize(
    model: ir.Model,
    inputs: Sequence[TensorInfo],
    shapes: Mapping[str, int],
    bounds: Mapping[str, int],
    seed: int = 0,
) -> dict[str, NDArray[Any]]:
    """Feeds for ``inputs``: ids that their table has, right-padded masks, normal floats, ones for the rest.

    Args:
        model: The graph that declares them, for the tables.
        inputs: What to make.
        shapes: Sizes by dimension name; "batch" and "sequence" also stand for the first and second axis.
        bounds: Largest sizes by dimension name; they limit the defaults.
        seed: Of the random values.
    """
    named = {dim for info in inputs for dim in info.dims if isinstance(dim, str)}
    if unknown := sorted(set(shapes) - named - set(_ROLES)):
        known = ", ".join(sorted(named | set(_ROLES)))
        raise BadUsage(f"unknown dimension {', '.join(unknown)} in shapes; this model has {known}")
    rng = np.random.default_rng(seed)
    masks, values = mask_names(model), {value.name: value for value in model.graph.inputs}
    feeds = {}
    for info in inputs:
        shape = tuple(_size(info, axis, shapes, bounds) for axis in range(len(info.dims)))
        feeds[info.name] = _array(shape, info, info.name in masks, table_rows(values[info.name]), rng)
    return feeds


def given_case(name: str, feeds: Feeds, model: ir.Model) -> Case:
    """The user's own input as a case: rows without any allowed key do not count."""
    masks = [np.asarray(feeds[mask]) for mask in mask_names(model) if mask in feeds]
    rows = [mask.astype(bool).any(axis=1) for mask in masks if mask.ndim == 2]
    size = max((len(array) for array in feeds.values() if np.ndim(array)), default=1)
    return Case(name, dict(feeds), np.logical_and.reduce(rows) if rows else np.ones(size, bool))


def text_case(texts: Sequence[str], model: ir.Model, artifact: Artifact) -> Case:
    """The first texts as one padded batch. Raises BadInput for a model without a tokenizer, or with other inputs."""
    encoder = text_encoder(artifact)
    feeds = encoder.pad(encoder.encode(texts[:_TEXTS]))
    wanted = [str(v.name) for v in model.graph.inputs if not v.is_initializer()]
    if strange := [name for name in wanted if name not in feeds]:
        raise BadInput(f"no text gives the input {', '.join(strange)}; give arrays (.npz) instead")
    return given_case("the texts", {name: feeds[name] for name in wanted}, model)


def mask_names(model: ir.Model) -> list[str]:
    """Inputs [B, S] of integers or booleans that pick no rows of a table: the padding masks."""
    return [
        str(value.name)
        for value in model.graph.inputs
        if value.dtype is not None
        and not value.dtype.is_floating_point()
        and value.shape is not None
        and len(value.shape) == 2
        and table_rows(value) is None
    ]


def _size(info: TensorInfo, axis: int, shapes: Mapping[str, int], bounds: Mapping[str, int]) -> int:
    dim = info.dims[axis]
    if isinstance(dim, int):
        return dim
    if isinstance(dim, str) and dim in shapes:
        return shapes[dim]
    if axis >= len(_ROLES):
        raise BadInput(f"input {info}: no size known for axis {axis}; give it in shapes, or give inputs")
    role = _ROLES[axis]
    return shapes.get(role, min(DEFAULTS[role], bounds.get(str(dim), DEFAULTS[role])))


def _array(
    shape: tuple[int, ...], info: TensorInfo, is_mask: bool, rows: int | None, rng: np.random.Generator
) -> NDArray[Any]:
    if is_mask:
        return _right_padded(*shape).astype(info.dtype)
    return made_up(shape, np.dtype(info.dtype), rows, rng)


def _right_padded(batch: int, length: int) -> NDArray[np.bool_]:
    """Mask [B, S] whose first row is full and whose last allows about half of the positions."""
    lengths = length - np.arange(batch) * (length // 2) // max(batch - 1, 1)
    return np.arange(length) < lengths[:, None]
