"""Verification of a model with a cache: run in steps, it gives what the original gives for the whole text.

The rule is that of ``compiler/verify.py``. Each text goes in several ways (see ``compiler/steps.py``): prompts of
different lengths and single tokens behind them, in two pieces, and token by token. In the layout *in-place* rows are
padded on the right, for the original too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxsmith.compiler.closeness import Closeness, check_closeness, compared, logits
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.reference import Reference
from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.steps import Result, Stepper, reader, schedules, text_of
from onnxsmith.compiler.verify import REFUSED, Evidence, Tally, Values, attempt, check_whole, truth_of
from onnxsmith.passes.cache import Cache, recorded
from onnxsmith.runtime.parity import error_ratio


def check_model(
    original: ir.Model, compiled: Sequence[ir.Model], cases: Sequence[Case], config: Mapping[str, str]
) -> list[Evidence]:
    """Parity of what was compiled: one model, run whole or in steps, or a decoder and its encoder.

    Raises Unverifiable as :func:`onnxsmith.compiler.verify.check_whole` does.
    """
    model, *encoder = compiled
    if recorded(model) is None:
        return check_whole(original, model, cases, config)
    return check_cached(original, model, cases, config, *encoder)


def closeness_of(
    original: ir.Model, compiled: Sequence[ir.Model], cases: Sequence[Case], config: Mapping[str, str]
) -> list[Closeness]:
    """How near what was compiled, as above, stays to the float32 original."""
    model, *encoder = compiled
    if recorded(model) is None:
        return check_closeness(original, model, cases, config)
    return closeness_cached(original, model, cases, config, *encoder)


def check_cached(
    original: ir.Model,
    compiled: ir.Model,
    cases: Sequence[Case],
    config: Mapping[str, str],
    encoder: ir.Model | None = None,
) -> list[Evidence]:
    """The compiled model in steps against the original in float64 on the whole text: evidence of its logits.

    Where it is an encoder-decoder's decoder, its compiled ``encoder`` reads the source.
    Raises Unverifiable as :func:`onnxsmith.compiler.verify.check_whole` does.
    """
    reference, baseline, tally = Reference(original), run_model(original), Tally()
    stepper = Stepper(compiled, attempt(compiled, optimize=True, config=config))
    name, read = stepper.cache.logits, _reader(stepper.cache, encoder, config)
    for case, results in _stepped(stepper, cases, read):
        tally.cases += 1
        truth, own = truth_of(reference, case)[name], baseline(case.feeds)[name]
        for found in results:
            if found is None:
                tally.add(name, REFUSED, case, truth)
                continue
            result, counted = found
            rows = slice(len(result))
            tally.add(name, error_ratio(result, own[rows], truth[rows], counted & case.rows[rows, None]), case, truth)
    return [tally.evidence("whole model", name)]


def closeness_cached(
    original: ir.Model,
    compiled: ir.Model,
    cases: Sequence[Case],
    config: Mapping[str, str],
    encoder: ir.Model | None = None,
) -> list[Closeness]:
    """How near the logits of a lossy model with a cache stay to the float32 original's."""
    baseline = run_model(original)
    stepper = Stepper(compiled, run_model(compiled, optimize=True, config=config))
    name, read = stepper.cache.logits, _reader(stepper.cache, encoder, config)

    def pairs() -> Iterator[tuple[Values, Values, Case]]:
        for case, results in _stepped(stepper, cases, read):
            own = baseline(case.feeds)[name]
            for result, counted in filter(None, results):
                rows = slice(len(result))
                yield {name: own[rows]}, {name: result}, replace(case, rows=np.asarray(counted & case.rows[rows, None]))

    return compared(pairs(), logits(original))


def _reader(cache: Cache, encoder: ir.Model | None, config: Mapping[str, str]) -> Callable[[Values], Values]:
    """What is read of a case's source, if there is one."""
    if cache.cross is None or encoder is None:
        return lambda feeds: {}
    return reader(cache.cross, attempt(encoder, optimize=True, config=config))


def _stepped(
    stepper: Stepper, cases: Sequence[Case], read: Callable[[Values], Values]
) -> Iterator[tuple[Case, list[Result | None]]]:
    """Each case as the original is to see it, and what every way to feed it gives.

    In place every row is given a token; that of a row of which nothing of the source counts is not compared.
    """
    cache = stepper.cache
    for case in cases:
        ids, mask = text_of(cache, case.feeds)
        every = np.asarray(mask.astype(bool).any(axis=1))
        rows = every if cache.layout == "in-place" and cache.cross is None else case.rows
        seen = replace(case, feeds={**case.feeds, cache.ids: ids, cache.mask: mask}, rows=rows)
        source = read(case.feeds)
        yield seen, [stepper(calls, ids.shape[1], source) for calls in schedules(cache, ids, mask)]
