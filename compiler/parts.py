"""An encoder-decoder with a cache is compiled as two models: an encoder, run once, and a decoder, run at each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import onnx_ir as ir

from onnxsmith.compiler import pipeline
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.pipeline import Observer, Outcome, Pass
from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.steps import reader
from onnxsmith.errors import BadUsage
from onnxsmith.passes.cache import Cross, Refused, find_texts, recorded, split
from onnxsmith.passes.engine.remark import Remark

Given: TypeAlias = Callable[[Sequence[Case]], list[Case]]  # a part's inputs, from those of the whole model
_KEPT = ("parity", "budget")  # codes of misses that no later pass finds again


@dataclass(frozen=True)
class Compiled:
    """What the passes gave: one model, or an encoder-decoder's decoder as ``outcome``, and its ``encoder``.

    The remarks and sites of both are the outcome's.
    """

    outcome: Outcome
    encoder: Outcome | None = None

    @property
    def models(self) -> list[ir.Model]:
        return [outcome.model for outcome in self._outcomes]

    @property
    def exact(self) -> list[ir.Model]:
        """They as they stood before the first lossy pass."""
        return [outcome.exact or outcome.model for outcome in self._outcomes]

    @property
    def _outcomes(self) -> list[Outcome]:
        return [self.outcome, *([] if self.encoder is None else [self.encoder])]


@dataclass(frozen=True)
class Compilation:
    """How a canonical model is compiled: the passes with a cache or without, and their observer if there is one.

    Both depend on inputs, which for a decoder alone are others than for the whole. ``budgeted``: the observer holds a
    budget, which it can do for one model only. ``unpadded``: the passes remove padding, which a cache has none of.
    """

    steps: Callable[[Given, bool], list[Pass]]
    observe: Callable[[Given], Observer | None]
    budgeted: bool = False
    unpadded: bool = False

    def whole(self, model: ir.Model, *, cache: bool) -> Compiled:
        """The model as one."""
        return Compiled(pipeline.run(model, self.steps(list, cache), self.observe(list)))

    def parts(self, model: ir.Model) -> Compiled:
        """The model with a cache, an encoder-decoder as two; without one and with a remark where that cannot be.

        Raises BadUsage for an encoder-decoder and a budget, and for a decoder alone without padding.
        """
        try:
            if not find_texts(model.graph):
                if self.unpadded:
                    raise BadUsage("a decoder with a cache has no padding to remove; choose cache or unpad")
                return self.whole(model, cache=True)
            if self.budgeted:
                raise BadUsage("a budget is held by one model, and an encoder-decoder becomes two; leave it out")
            lifted = pipeline.run(model.clone(), pipeline.lifting(), self.observe(list))
            encoder, decoder, cross = split(lifted.model)
        except Refused as refused:
            return self._without(model, Remark("missed", "kv-cache", "", reason=str(refused)))
        given = _with_source(encoder.clone(), cross)
        made = pipeline.run(decoder, self.steps(given, True), self.observe(given))
        if recorded(made.model) is None:
            return self._without(model, next(r for r in made.remarks if r.rule == "kv-cache"))
        return _joined(lifted, pipeline.run(encoder, self.steps(list, False), self.observe(list)), made)

    def _without(self, model: ir.Model, why: Remark) -> Compiled:
        found = self.whole(model, cache=False)
        return replace(found, outcome=replace(found.outcome, remarks=[*found.outcome.remarks, why]))


def _joined(lifted: Outcome, encoder: Outcome, decoder: Outcome) -> Compiled:
    told = [r for r in lifted.remarks if r.kind != "missed" or r.code in _KEPT]
    lossy = encoder.exact is not None or decoder.exact is not None
    whole = Outcome(
        decoder.model,
        list(dict.fromkeys([*told, *encoder.remarks, *decoder.remarks])),
        [*lifted.applied, *encoder.applied, *decoder.applied],
        [*lifted.undone, *encoder.undone, *decoder.undone],
        decoder.exact or (decoder.model if lossy else None),
    )
    return Compiled(whole, encoder)


def _with_source(encoder: ir.Model, cross: Cross) -> Given:
    """Completes inputs of the whole model for its decoder, by what the encoder gives."""

    def complete(cases: Sequence[Case]) -> list[Case]:
        if not cases:
            return []
        read = reader(cross, run_model(encoder))
        return [replace(case, feeds={**case.feeds, **read(case.feeds)}) for case in cases]

    return complete
