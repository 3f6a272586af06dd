"""Positions as an input: found by what they are, whatever counts them.

A value is one of positions when it gives 0, 1, 2 ... over the tokens of every row without left padding. Behind left
padding some graphs count tokens and others columns; whoever runs the model decides by what it feeds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxsmith.passes.cache.cones import Cones
from onnxsmith.passes.cache.probe import Probe, padded
from onnxsmith.passes.cache.text import Refused
from onnxsmith.passes.engine.build import Builder
from onnxsmith.passes.engine.values import dims

_LENGTHS = (5, 8)


@dataclass
class Positions:
    """``value`` [B, S] is the input; ``used`` whether anything reads it, ``columns`` whether the graph counted columns.

    Columns are places in the row, padding or not.
    """

    cones: Cones
    value: ir.Value
    used: bool = False
    columns: bool = False
    _known: dict[ir.Value, bool] = field(default_factory=dict)

    def as_input(self, v: ir.Value, axis: int, op: Builder) -> ir.Value | None:
        """The input in the shape of ``v`` [B|1, .., T, ..], when that holds positions along ``axis`` and no more."""
        found = dims(v) or []
        rest = [d for i, d in enumerate(found) if i not in (0, axis)]
        if axis == 0 or any(d != 1 for d in rest) or not self.cones.text.is_batch(found[0]) or not self._holds(v):
            return None
        self.used = True
        axes = [i for i in range(len(found)) if i not in (0, axis)]
        given = op.Unsqueeze(self.value, op.constant(axes, "axes", np.int64)) if axes else self.value
        return given if v.dtype == self.value.dtype else op.Cast(given, to=v.dtype)

    def _holds(self, v: ir.Value) -> bool:
        if v not in self._known:
            self._known[v] = self.cones.holds(v) and self._counts(v)
        return self._known[v]

    def _counts(self, v: ir.Value) -> bool:
        try:
            probe = Probe(self.cones, v)
            if not all(_agree(probe, length, "right") for length in _LENGTHS):
                return False
            self.columns |= _agree(probe, _LENGTHS[0], "left")
        except Refused:
            return False
        return True


def _agree(probe: Probe, length: int, side: str) -> bool:
    """Whether the value is the column at every token of rows that are padded on that side."""
    mask = padded(length)[side]
    found = probe(mask)
    wrong = found.reshape(len(found), length) != np.arange(length)
    return not np.any(wrong & (mask == 1))
