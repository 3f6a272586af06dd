"""The sizes that a model is tuned at: every combination of those that the user names, checked against the model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.passes.engine.values import dims

Sizes = dict[str, int]
_ROLES = ("batch", "sequence")  # of the first two axes, whatever an exporter called them


def combinations(model: ir.Model, shapes: Mapping[str, Sequence[int]], bounds: Mapping[str, int]) -> list[Sizes]:
    """Sizes by the model's own names of dimensions, small ones first.

    Args:
        model: its inputs are what the names are looked up in.
        shapes: sizes by dimension; "batch" and "sequence" also stand for the first two axes under other names.
        bounds: the largest size of a dimension that has one.

    Raises:
        BadUsage: a name that the model lacks, a dimension without a size, or a size below 1.
        BadInput: a size beyond its bound, or a dimension that has no name.
    """
    names = _open_dims(model)
    targets = {name: _targets(name, names, shapes) for name in shapes}
    if unknown := [name for name, found in targets.items() if not found]:
        raise BadUsage(f"--shapes: this model has no dimension {unknown[0]!r}; it has {', '.join(names) or 'none'}")
    given = {target for found in targets.values() for target in found}
    if missing := [name for name in names if name not in given]:
        raise BadUsage(f"--shapes: no size for dimension {missing[0]!r}; give it, as in {missing[0]}=1,8")
    for name, sizes in shapes.items():
        _check(name, sizes, min((bounds[target] for target in targets[name] if target in bounds), default=None))
    chosen = itertools.product(*shapes.values())
    return [{t: size for name, size in zip(shapes, c, strict=True) for t in targets[name]} for c in chosen]


def _open_dims(model: ir.Model) -> dict[str, int]:
    """Named dimensions of the inputs with their axis; sums such as ``past + sequence`` follow from others."""
    found: dict[str, int] = {}
    for v in model.graph.inputs:
        for axis, dim in enumerate(dims(v) or []) if not v.is_initializer() else ():
            if dim is None:
                raise BadInput(f"input {v.name} leaves dimension {axis} without a name; name it with --dims")
            if isinstance(dim, str) and " + " not in dim:
                found.setdefault(dim, axis)
    return found


def _targets(name: str, names: Mapping[str, int], shapes: Mapping[str, Sequence[int]]) -> list[str]:
    if name in names or name not in _ROLES:
        return [name] if name in names else []
    return [own for own, axis in names.items() if axis == _ROLES.index(name) and own not in shapes]


def _check(name: str, sizes: Sequence[int], bound: int | None) -> None:
    if not sizes or min(sizes) < 1:
        raise BadUsage(f"--shapes: {name} needs sizes of at least 1, as in {name}=1,8; found {list(sizes)}")
    if bound is not None and max(sizes) > bound:
        raise BadInput(f"{name}={max(sizes)} is beyond this model's {bound} positions; give smaller sizes")
