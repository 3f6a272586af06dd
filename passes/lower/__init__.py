"""Lower: for each site of the lifted graph the kernel that the target runs best."""

from __future__ import annotations

from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.lower import activation, attention, cross, embeddings, gelu, grouped, norms
from onnxsmith.passes.lower.kernels import Kernels

__all__ = ["Kernels", "rules"]


def rules(kernels: Kernels) -> list[Rule]:
    """The rules that turn standard operators into the target's own where those are faster.

    They are the same for every target: its kernel table decides which of them fire. What joins more comes first.
    """
    files = (embeddings, norms, gelu, activation, cross, attention, grouped)
    return [rule for file in files for rule in file.rules(kernels)]
