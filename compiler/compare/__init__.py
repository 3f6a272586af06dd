"""Variants of one model side by side: structure, outputs, search results, latency."""

from onnxsmith.compiler.compare.driver import compare
from onnxsmith.compiler.compare.report import Comparison, Variant

__all__ = ["Comparison", "Variant", "compare"]
