"""Verification of a model with a cache: run in steps, it gives what the original gives for the whole text.

The rule is that of ``compiler/verify.py``. Each text goes in several ways (see ``compiler/steps.py``): prompts of
different lengths and single tokens behind them, in two pieces, and token by token. In the layout *in-place* rows are
padded on the right, for the original too. An original with a cache of its own is fed in the same steps, with the past
that it gave itself; what takes no compact rows sees each row by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxsmith.compiler.closeness import Closeness, check_closeness, compared, logits, run_lossy
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.past import text_model
from onnxsmith.compiler.reference import Reference
from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.steps import Array, Call, Feeds, Result, Run, Stepper, reader, rows_alone, schedules, text_of
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
        return check_whole(text_model(original), model, cases, config)
    return check_cached(original, model, cases, config, *encoder)


def closeness_of(
    original: ir.Model, compiled: Sequence[ir.Model], cases: Sequence[Case], config: Mapping[str, str]
) -> list[Closeness]:
    """How near what was compiled, as above, stays to the float32 original."""
    model, *encoder = compiled
    if recorded(model) is None:
        return check_closeness(text_model(original), model, cases, config)
    return closeness_cached(original, model, cases, config, *encoder)


def check_cached(
    original: ir.Model,
    compiled: ir.Model,
    cases: Sequence[Case],
    config: Mapping[str, str],
    encoder: ir.Model | None = None,
) -> list[Evidence]:
    """The compiled model in steps against the original in float64 on the whole text: evidence of its logits.

    Where it is an encoder-decoder's decoder, its compiled ``encoder`` reads the source, or the cases have what that
    gives.
    Raises Unverifiable as :func:`onnxsmith.compiler.verify.check_whole` does.
    """
    stepper, tally = Stepper(compiled, attempt(compiled, optimize=True, config=config)), Tally()
    read = _reader(stepper.cache, None if encoder is None else attempt(encoder, optimize=True, config=config))
    name = stepper.cache.logits
    double, single = _Original(original, _truths(original), stepper.cache), _baseline(original, stepper.cache)
    for case, results in _stepped(stepper, cases, read):
        tally.cases += 1
        for calls, found in results:
            truth, own = double(case, calls), single(case, calls)
            if found is None:
                tally.add(name, REFUSED, case, truth)
                continue
            result, counted = found
            rows = case.rows[: len(result), None]
            tally.add(name, error_ratio(result, own, truth, counted & rows), case, truth)
    return [tally.evidence("whole model", name)]


def closeness_cached(
    original: ir.Model,
    compiled: ir.Model,
    cases: Sequence[Case],
    config: Mapping[str, str],
    encoder: ir.Model | None = None,
) -> list[Closeness]:
    """How near the logits of a lossy model with a cache stay to the float32 original's."""
    stepper = Stepper(*run_lossy(compiled, config))
    read = _reader(stepper.cache, None if encoder is None else run_lossy(encoder, config)[1])
    name = stepper.cache.logits
    single = _baseline(original, stepper.cache)

    def pairs() -> Iterator[tuple[Values, Values, Case]]:
        for case, results in _stepped(stepper, cases, read):
            for calls, found in results:
                if found is not None:
                    result, counted = found
                    rows = np.asarray(counted & case.rows[: len(result), None])
                    yield {name: single(case, calls)}, {name: result}, replace(case, rows=rows)

    return compared(pairs(), logits(original))


class _Original:
    """The original's logits [B, S, V] where the compiled model is asked for them.

    Of the whole text at once, or in the same calls where it has a cache of its own; B rows as they have.
    """

    def __init__(self, original: ir.Model, run: Callable[[Case], Values], compiled: Cache) -> None:
        self._run, self._logits = run, compiled.logits
        self._stepper = None if recorded(original) is None else Stepper(original, self._fed)
        self._compact = compiled.layout == "in-place"
        self._whole: tuple[Case, Array] | None = None

    def __call__(self, case: Case, calls: Sequence[Call]) -> Array:
        if self._stepper is not None:
            return self._in_steps(self._stepper, case, calls)
        if self._whole is None or self._whole[0] is not case:
            self._whole = case, self._run(case)[self._logits]
        return self._whole[1][: len(calls[0].ids)]

    def _in_steps(self, stepper: Stepper, case: Case, calls: Sequence[Call]) -> Array:
        length, source = case.feeds[stepper.cache.ids].shape[1], stepper.source(case.feeds)
        if self._compact:
            each = enumerate(rows_alone(calls))
            found = [stepper(alone, length, {n: x[i : i + 1] for n, x in source.items()}) for i, alone in each]
        else:
            found = [stepper(calls, length, source)]
        return np.concatenate([result[0] for result in found if result is not None])

    def _fed(self, feeds: Feeds) -> Values:
        return self._run(Case("a step", dict(feeds), np.ones(len(feeds[next(iter(feeds))]), bool)))


def _truths(original: ir.Model) -> Callable[[Case], Values]:
    """In float64."""
    reference = Reference(original)
    return lambda case: truth_of(reference, case)


def _baseline(original: ir.Model, compiled: Cache) -> _Original:
    """In float32, by ONNX Runtime."""
    run = run_model(original)
    return _Original(original, lambda case: run(case.feeds), compiled)


def _reader(cache: Cache, encoder: Run | None) -> Callable[[Values], Values]:
    """What is read of a case's source, if there is one: without an encoder the case itself has it."""
    cross = cache.cross
    if cross is None:
        return lambda feeds: {}
    if encoder is None:
        return lambda feeds: {name: feeds[name] for name in (*cross.past, *filter(None, [cross.mask]))}
    return reader(cross, encoder)


def _stepped(
    stepper: Stepper, cases: Sequence[Case], read: Callable[[Values], Values]
) -> Iterator[tuple[Case, list[tuple[list[Call], Result | None]]]]:
    """Each case as the original is to see it, and every way to feed it with what it gives.

    In place every row is given a token; that of a row of which nothing of the source counts is not compared.
    """
    cache = stepper.cache
    for case in cases:
        ids, mask = text_of(cache, case.feeds)
        every = np.asarray(mask.astype(bool).any(axis=1))
        rows = every if cache.layout == "in-place" and cache.cross is None else case.rows
        seen = replace(case, feeds={**case.feeds, cache.ids: ids, cache.mask: mask}, rows=rows)
        source = read(case.feeds)
        yield seen, [(calls, stepper(calls, ids.shape[1], source)) for calls in schedules(cache, ids, mask)]
