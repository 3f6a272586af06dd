"""Variants of one model side by side: verdicts, structure, errors, latency, and which of them are worth having."""

from onnxsmith.compiler.compare.column import Limits
from onnxsmith.compiler.compare.driver import compare
from onnxsmith.compiler.compare.report import Comparison, Variant
from onnxsmith.compiler.compare.verdict import Gates

__all__ = ["Comparison", "Gates", "Limits", "Variant", "compare"]
