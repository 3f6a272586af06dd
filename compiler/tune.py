"""Tune: which of lowering's choices are fastest on this machine, at the sizes that the user names.

Every alternative of a site (see alternatives.py) is timed against the best without it, in one process with the
session's own threads, interleaved A B B A; it wins or loses only where the interval of the ratio excludes 1. Then the
whole model, lowered by the winners, is timed against the one that the shipped table makes: what loses there is not
kept, since a micro-model reads its weights from a warm cache and the whole model does not. Session options are tried
on the whole model, one after the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnx_ir as ir

from onnxsmith.compiler import alternatives, pipeline, tuned
from onnxsmith.compiler.alternatives import Alternative, RulesOf
from onnxsmith.compiler.dims import Dims, name_dims
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.machine import this_machine
from onnxsmith.compiler.saturation import saturates
from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.source import open_source
from onnxsmith.compiler.target import target
from onnxsmith.compiler.timing import Measure, timed
from onnxsmith.compiler.tune_report import Finding, Option, TuneReport
from onnxsmith.compiler.tune_sizes import Sizes, combinations
from onnxsmith.compiler.tuned import Timing
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.passes import lower
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.lower.kernels import Interval, Kernels, Measured, Site
from onnxsmith.passes.quantize import int8
from onnxsmith.runtime.measure import Run, elapsed
from onnxsmith.runtime.session import one_line

Progress = Callable[[int, int, str], None]
Config = Mapping[str, str]
_Call = Callable[[alternatives.Feeds], object]

# What steers how ONNX Runtime computes, with the value that is tried against its default.
OPTIONS = (
    ("session.dynamic_block_base", "4"),
    ("session.intra_op.allow_spinning", "0"),
    ("optimization.disable_specified_optimizers", ""),
)
_SECONDS = 50.0  # for all sites together
_WHOLE_SECONDS = 4.0  # for one comparison of whole models at one set of sizes
_RUN_SECONDS = 0.25  # for one run at each of the sizes at which whole models are compared: the quickest ones


def tune(
    source: str | Path,
    shapes: Mapping[str, Sequence[int]],
    *,
    precision: str = "fp32",
    threads: int | None = None,
    dims: Dims | None = None,
    measure: Measure = timed,
    progress: Progress = lambda done, total, what: None,
) -> TuneReport:
    """Measure the alternatives of the model at ``source`` on this machine, and remember what won.

    Args:
        source: an artifact folder or an .onnx file, as it was exported; it is never changed.
        shapes: sizes by dimension, as in {"batch": [1, 8], "sequence": [32, 128]}: every combination is measured.
            "batch" and "sequence" also stand for the first two axes of inputs that name theirs otherwise.
        precision: "fp32", or "int8" to measure integer products too.
        threads: threads inside an operator; None is what ONNX Runtime takes by itself.
        dims: names or sizes of an input's dimensions, where the file leaves them open.
        measure: how two runs are compared, given the seconds to do it in.
        progress: told how many steps are done, how many there are, and what comes now.

    Raises:
        BadInput: the model cannot be used, has no choice to measure, or does not run at these sizes.
        BadUsage: the model lacks a dimension that is named, or has one that is not; or no such precision.
    """
    if precision not in _RULES:
        raise BadUsage(f"tune measures no {precision!r}; choose one of {', '.join(_RULES)}")
    artifact = open_source(source)
    if artifact.is_structure:
        raise BadInput(f"{source} is a structure, its weights are absent; export it with its weights to measure it")
    loaded = name_dims(load_model(artifact.model), dims or {})
    name = tuned.architecture(loaded, precision)
    model = pipeline.run(canonicalize(loaded), pipeline.before_lowering()).model
    rules = _RULES[precision]
    found = alternatives.find(model, rules, _kernels())
    if not found:
        raise BadInput(f"{source}: no site where kernels could be chosen; give a Transformer as it was exported")
    sizes = combinations(model, shapes, artifact.manifest.get("bounds", {}))
    job = _Job(
        model, rules, sizes, threads, measure, lambda done, what: progress(done, len(found) + 1 + len(OPTIONS), what)
    )
    return job.run(name, found)


def _with_products(kernels: Kernels) -> list[Rule]:
    largest_code = int8.LARGEST_7_BIT_CODE if saturates() else int8.LARGEST_CODE
    return [*lower.rules(kernels), *int8.rules(kernels, {}, largest_code)]


_RULES: dict[str, RulesOf] = {"fp32": lower.rules, "int8": _with_products}


def _kernels(measured: Mapping[Site, Interval] | None = None) -> Kernels:
    table = target("cpu", "fp32").kernels
    assert table is not None, "the target for the CPU has kernels"
    return replace(table, measured=Measured(measured) if measured else None)


@dataclass
class _Job:
    """One tuning: the lifted model, the sizes, and how to measure. ``quick`` are the sizes for whole models."""

    model: ir.Model
    rules: RulesOf
    sizes: list[Sizes]
    threads: int | None
    measure: Measure
    progress: Callable[[int, str], None]
    quick: list[Sizes] = field(default_factory=list)

    def run(self, name: str, found: Sequence[Alternative]) -> TuneReport:
        config = target("cpu", "fp32").session
        self.quick = self._quick(config)
        findings = self._sites(found)
        self.progress(len(found), "the whole model")
        chosen = {(f.operator, f.shapes): f.overall for f in findings}
        whole = self._against_table(_kernels(chosen), config)
        kept = {} if whole is not None and whole.slower else chosen
        options = self._options(self._lowered(_kernels(kept)), config, len(found) + 1)
        session = {option.key: option.value for option in options if option.overall.faster}
        machine = this_machine(self.threads)
        timings = {(f.operator, f.shapes): f.timings for f in findings if kept}
        path = tuned.write(tuned.read(machine).with_results(timings, name, session))
        return TuneReport(machine, findings, whole, options, session, path)

    def _sites(self, found: Sequence[Alternative]) -> list[Finding]:
        """Parts before wholes: what is known of the parts decides what a whole is compared with."""
        findings: list[Finding] = []
        for i, alternative in enumerate(found):
            self.progress(i, alternative.operator)
            known = {(f.operator, f.shapes): f.overall for f in findings}
            timings = self._compare(alternative, _kernels(known), _SECONDS / len(found) / len(self.sizes))
            if timings:
                about = (alternative.operator, alternative.rule.name, alternative.shapes.text, len(alternative.places))
                findings.append(Finding(*about, tuple(timings), tuned.overall(timings)))
        return findings

    def _compare(self, alternative: Alternative, kernels: Kernels, seconds: float) -> list[Timing]:
        """Nothing where ONNX Runtime refuses one of the two; no size that is not known."""
        models = alternative.models(self.rules, kernels)
        own = [{name: size for name, size in s.items() if name in alternative.shapes.names} for s in self.sizes]
        distinct = [sizes for i, sizes in enumerate(own) if sizes not in own[:i]]
        try:
            calls = [self._open(model, target("cpu", "fp32").session) for model in models or ()]
        except BadInput:
            return []
        return [t for sizes in distinct if (t := self._timing(alternative.region, calls, sizes, seconds)) is not None]

    def _timing(self, inputs: ir.Model, calls: Sequence[_Call], sizes: Sizes, seconds: float) -> Timing | None:
        feeds = alternatives.feeds(inputs, sizes)
        if feeds is None or len(calls) != 2:
            return None
        before, after = (_bound(call, feeds) for call in calls)
        return self._timed(before, after, sizes, seconds)

    def _lowered(self, kernels: Kernels) -> ir.Model:
        return pipeline.Pass("lower", tuple(self.rules(kernels))).run(self.model.clone()).model

    def _open(self, model: ir.Model, config: Config) -> _Call:
        return run_model(model, optimize=True, config=config, threads=self.threads)

    def _quick(self, config: Config) -> list[Sizes]:
        """The sizes at which whole models are compared. Raises BadInput where the model does not run at one of all."""
        call = self._open(self._lowered(_kernels()), config)
        took = [(self._seconds(call, sizes), i) for i, sizes in enumerate(self.sizes)]
        ordered = sorted(took)
        totals = itertools.accumulate(seconds for seconds, _ in ordered)
        fitting = [i for total, (_, i) in zip(totals, ordered, strict=True) if total <= _RUN_SECONDS]
        return [self.sizes[i] for i in fitting or [ordered[0][1]]]

    def _seconds(self, call: _Call, sizes: Sizes) -> float:
        run = _bound(call, self._feeds(sizes))
        try:
            run()
        except Exception as error:  # ONNX Runtime's error classes have no common base
            at = ", ".join(f"{name}={size}" for name, size in sizes.items())
            raise BadInput(f"the model does not run at {at}: {one_line(error)}; give other --shapes") from error
        return elapsed(run)

    def _feeds(self, sizes: Sizes) -> alternatives.Feeds:
        feeds = alternatives.feeds(self.model, sizes)
        assert feeds is not None, "every dimension of the inputs has a size"
        return feeds

    def _against_table(self, kernels: Kernels, config: Config) -> Interval | None:
        """None where the winners are those of the table."""
        models = [self._lowered(_kernels()), self._lowered(kernels)]
        by_table, by_winners = ([n.op_type for n in model.graph] for model in models)
        if by_table == by_winners:
            return None
        return self._whole(*(self._open(model, config) for model in models))

    def _whole(self, before: _Call, after: _Call) -> Interval:
        """The second model against the first, over the sizes for whole models."""
        timings = []
        for sizes in self.quick:
            feeds = self._feeds(sizes)
            seconds = _WHOLE_SECONDS / len(self.quick)
            timings.append(self._timed(_bound(before, feeds), _bound(after, feeds), sizes, seconds))
        return tuned.overall(timings)

    def _timed(self, before: Run, after: Run, sizes: Sizes, seconds: float) -> Timing:
        found = self.measure(before, after, seconds)
        return Timing(sizes, found.a_ms * 1e3, found.b_ms * 1e3, found.median, found.low, found.high)

    def _options(self, model: ir.Model, config: Config, done: int) -> list[Option]:
        """Each entry on top of those that proved faster before it."""
        options: list[Option] = []
        config, current = dict(config), self._open(model, config)
        for i, (key, value) in enumerate(OPTIONS):
            self.progress(done + i, key)
            candidate = self._open(model, {**config, key: value})
            options.append(Option(key, value, self._whole(current, candidate)))
            if options[-1].overall.faster:
                config[key], current = value, candidate
        return options


def _bound(call: _Call, feeds: alternatives.Feeds) -> Run:
    return lambda: call(feeds)
