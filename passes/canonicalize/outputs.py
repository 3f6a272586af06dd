"""Names that an exporter invented for the dimensions of an output: present_key_dim_0, which is the batch.

Where nodes read the output too, as they read the keys of a longer cache, such a name hides that the dimension is one
of the inputs'. Without it, shape inference finds what it is.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxsmith.passes.engine.values import dims


def forget(model: ir.Model) -> None:
    """Drop the names of dimensions that come from outputs read inside and that no input has; in place."""
    graph = model.graph
    known = {dim for v in graph.inputs for dim in dims(v) or []}
    read = [v for v in graph.outputs if v.uses() and v not in graph.inputs]
    invented = {dim for v in read for dim in dims(v) or [] if _plain(dim)} - known
    for v in (v for node in graph for v in node.outputs) if invented else ():
        found = dims(v)
        if found is not None and not invented.isdisjoint(found):
            v.shape = ir.Shape([None if dim in invented else dim for dim in found])


def _plain(dim: int | str | None) -> bool:
    """A name; a formula such as past + sequence says how the dimension follows from the inputs'."""
    return isinstance(dim, str) and dim.isidentifier()
