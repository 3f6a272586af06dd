"""A comparison as one page that needs nothing else."""

from onnxsmith.compiler.compare.page.render import render, write_page

__all__ = ["render", "write_page"]
