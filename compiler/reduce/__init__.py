"""Reduce: from a model that fails to a few nodes that fail in the same way, as files that show it."""

from onnxsmith.compiler.reduce.driver import Reduction, reduce

__all__ = ["Reduction", "reduce"]
