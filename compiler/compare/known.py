"""What the reference makes of every input: the inputs of a comparison, and the truth about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler.compare.accuracy import Known, Values
from onnxsmith.compiler.compare.variants import Opened
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.reference import Reference
from onnxsmith.errors import first_line
from onnxsmith.runtime.feeds import Feeds
from onnxsmith.runtime.session import open_session


def know(reference: Opened, graph: ir.Model, wanted: Sequence[Case]) -> tuple[list[Known], str]:
    """What the reference makes of the inputs that it runs on, and a note where float64 has to be gone without."""
    truth: Callable[[Feeds], Values] | None = _truth(reference, graph)
    plain, note = _plain(reference), ""
    found: list[Known] = []
    for case in wanted:
        try:
            own, single = reference.run(case.feeds), plain(case.feeds)
        except Exception:  # a length that the exporter baked in, mostly
            continue
        right: Values | None = None
        if truth is not None:
            try:
                right = truth(case.feeds)
            except Exception as e:  # onnx.reference has its own ways to say that it lacks an operator
                truth, note = None, f"no float64 evaluation of the reference ({first_line(e)}); its float32 stands in"
        found.append(Known(case, single if right is None else right, single, own))
    if truth is None:
        found = [Known(k.case, k.plain, k.plain, k.found) for k in found]
    return found, note


def _plain(reference: Opened) -> Callable[[Feeds], Values]:
    """The reference without any of ONNX Runtime's optimizations, where it runs there."""
    if reference.model is None:
        return reference.run
    session = open_session(reference.model.artifact.model, optimize=False)
    names = [output.name for output in session.get_outputs()]

    def run(feeds: Feeds) -> dict[str, NDArray[Any]]:
        return dict(zip(names, session.run(names, dict(reference.feeds(feeds))), strict=True))

    return run


def _truth(reference: Opened, graph: ir.Model) -> Callable[[Feeds], Values]:
    if reference.truth is not None:
        return reference.truth
    evaluator = Reference(graph)
    return lambda feeds: evaluator.run(reference.feeds(feeds))
