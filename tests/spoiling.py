"""What a model with a cache gives on request, spoilt: verification must see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.steps import Stepper, schedules
from onnxsmith.passes.cache import recorded
from tests.generation import rows_of

Values = Mapping[str, np.ndarray]
Spoil = Callable[[Values, Values], Values]  # feeds, and what was found for them -> what is given


def check_seen(model: ir.Model, spoil: Spoil, source: Values | None = None) -> None:
    """The logits of two texts are numbers for the sound model, and not all of them for one that is spoilt."""
    cache, run = recorded(model), run_model(model)
    assert cache is not None
    ids = np.array(rows_of((7, 7)))
    calls = next(schedules(cache, ids, np.ones_like(ids)))
    sound, broken = (Stepper(model, each)(calls, 7, source) for each in (run, lambda feeds: spoil(feeds, run(feeds))))
    assert sound is not None and np.isfinite(sound[0][sound[1]]).all()
    assert broken is not None and np.isnan(broken[0]).any()
