"""Optimize: from any ONNX Transformer to a faster one, verified against the original."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir

from onnxsmith.compiler import pipeline, sites
from onnxsmith.compiler.artifact import check_writable, sha256, write_artifact, write_parts
from onnxsmith.compiler.budget import Budget
from onnxsmith.compiler.budget import parse as parse_budget
from onnxsmith.compiler.cache_precision import check_made, check_wanted
from onnxsmith.compiler.choices import Choices, choose
from onnxsmith.compiler.closeness import Closeness
from onnxsmith.compiler.dims import Dims, name_dims
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.machine import onnxruntime_version
from onnxsmith.compiler.manifest import cache_entry, part_entry, specs
from onnxsmith.compiler.pair import each_part
from onnxsmith.compiler.parts import Compilation, Compiled, Given
from onnxsmith.compiler.past import bounds_of_text, check_original, plain, text_model, usable_past
from onnxsmith.compiler.pipeline import Logits
from onnxsmith.compiler.report import OptimizeReport, ParityReport, summarize
from onnxsmith.compiler.samples import Given as Inputs
from onnxsmith.compiler.samples import Samples, split
from onnxsmith.compiler.sensitivity import Search, both
from onnxsmith.compiler.source import open_source
from onnxsmith.compiler.target import QUANTIZED, Target
from onnxsmith.compiler.target import target as find_target
from onnxsmith.compiler.verify import Evidence
from onnxsmith.errors import BadInput, BadUsage, CheckFailed
from onnxsmith.passes.cache import Cache, Refused, recorded
from onnxsmith.passes.cache.record import record
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.optimize.last_token import LAST_TOKEN
from onnxsmith.passes.optimize.unpad import CONTRACT, UNPADDED
from onnxsmith.runtime.artifact import DECODER, ENCODER, Artifact
from onnxsmith.runtime.options import METADATA_KEY, encode_config

Verify = Literal["final", "each", "off"]
_PROVIDERS = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider"], "onnx": []}
_RECORDED = ("sites", "rewrites", "parity", "layers")
_NOT_RUN = {"cuda": "run with the CPU provider's kernels, 16-bit results rounded from float32: not on CUDA"}


@each_part
def optimize(
    source: str | Path,
    output: str | Path | None,
    *,
    target: str = "cpu",
    precision: str = "fp32",
    verify: Verify = "final",
    strict: bool = False,
    dims: Dims | None = None,
    half_io: bool = False,
    unpad: bool = False,
    calibrate: Inputs | None = None,
    budget: str | None = None,
    tuned: bool = True,
    threads: int | None = None,
    cache: bool = False,
    cache_precision: str = "fp32",
    all_logits: bool = False,
    last_token: bool = False,
) -> OptimizeReport:
    """Optimize the model at ``source`` and write it to ``output`` (None: only report).

    Args:
        source: an artifact folder, a folder that optimum exported, or an .onnx file; it is never changed.
        output: a folder to make, or a file that ends with .onnx.
        target: "cpu", "cuda", or "onnx" for a portable model of standard operators. No GPU is needed to compile.
        precision: "fp32"; for cuda also "fp16" or "bf16"; for cpu also "int8" (products in integers, weights per
            channel), "int8-weights" or "int4" (weights in blocks, activations stay float).
        verify: "final" checks the whole, "each" every rewrite as well, rolling back what breaks parity.
        strict: fail instead of rolling back.
        dims: names or sizes of an input's dimensions, where the file leaves them open; equal names are equal sizes.
        half_io: with fp16 or bf16, inputs and outputs are 16-bit floats too; otherwise they stay float32.
        unpad: compute no padded positions: outputs are the same at allowed positions and zero at padded ones, save the
            first of each row, which is computed. A model where that cannot be is left as it is, with a remark. With a
            cache, of an encoder-decoder's encoder.
        calibrate: samples for a lossy precision, as arrays [N, ..] by input name or as texts: half of them calibrate
            it, the others judge it. Without, both are done on made-up inputs.
        budget: what a lossy precision may cost, as in "cosine=0.995" or "kl=0.01,top1=0.97": the layers that cost the
            most stay in a higher precision until it holds.
        tuned: let what `tune` measured on this machine go before the shipped table of costs.
        threads: use what was measured with that many threads inside an operator; None is what ONNX Runtime takes.
        cache: give a causal decoder a cache of keys and values, and let it give logits of each row's last token alone.
            An encoder-decoder becomes a folder of two models, encoder/ and decoder/, as it may come with past. The
            manifest's entry ``cache`` says how it is run. A model where that cannot be is left as it is, with a remark.
        cache_precision: with a cache on cpu, "int8" keeps keys and values in a quarter of the bytes, with scales from
            what ``calibrate`` gives.
        all_logits: with a cache, give logits of all tokens.
        last_token: let a causal model without a cache give logits of each row's last token alone, [B, 1, V].

    Raises:
        BadInput: the model or the output cannot be used, or last_token or a cache in int8 cannot be had. BadUsage: no
            such target, precision or verification, or options that do not go together.
        CheckFailed: parity does not hold, or no layer keeps the budget (and nothing is written).
    """
    if verify not in ("final", "each", "off"):
        raise BadUsage(f"no verification {verify!r}; choose one of final, each, off")
    if precision == cache_precision == "fp32" and (calibrate is not None or budget is not None):
        raise BadUsage("calibrate and budget are for lossy precisions, and fp32 is none; choose one, such as int8")
    _check_outputs(cache, all_logits, last_token, unpad)
    check_wanted(cache_precision, target, cache=cache, calibrated=calibrate is not None)
    where, artifact = find_target(target, precision), open_source(source)
    _check_files(artifact, source, output, precision)
    made = _logits(cache, all_logits), cache_precision
    job = _Job(artifact, where, precision, strict, dims or {}, half_io, unpad, last_token, *made)
    job.keep_past()
    if tuned:
        job.tune(threads)
    job.judge(calibrate, parse_budget(budget) if budget is not None else None)
    report, compiled = job.run(verify)
    if output is not None:
        with job.timed("write"):
            job.write(Path(output), compiled, report, verify)
    return report


def _check_outputs(cache: bool, all_logits: bool, last_token: bool, unpad: bool) -> None:
    if all_logits and not cache:
        raise BadUsage("all_logits is for a model with a cache, any other gives all it gave; add cache")
    if last_token and (cache or unpad):
        raise BadUsage("last_token is for models with their padding, and a cache implies it; choose one of the three")


def _check_files(artifact: Artifact, source: str | Path, output: str | Path | None, precision: str) -> None:
    """Before any work is done: the output can be written and is not the source, which has the weights it needs."""
    if output is not None:
        check_writable(Path(output), absent=artifact.is_structure)
    if artifact.is_structure and precision in QUANTIZED:
        raise BadInput(
            f"{source} is a structure, its weights are absent; {precision} needs them: export it with its weights"
        )
    given = [path.resolve() for path in artifact.files]
    if output is not None and Path(output).resolve() in (*given, given[0].parent):
        raise BadInput(f"{output} is the model to optimize, which is never changed; give another output")


@dataclass
class _Job:
    """One optimization: the source, what to make of it, how it is judged, and how long each step took."""

    source: Artifact
    target: Target
    precision: str
    strict: bool
    dims: Dims
    half_io: bool
    unpad: bool
    last_token: bool
    cache: Logits | None = None
    cache_precision: str = "fp32"
    choices: Choices | None = None
    samples: Samples = field(default_factory=Samples)
    budget: Budget = field(default_factory=lambda: Budget(()))
    seconds: dict[str, float] = field(default_factory=dict)
    digests: dict[str, Future[str]] = field(default_factory=dict)
    past: Cache | None = None
    told: list[Remark] = field(default_factory=list)

    def keep_past(self) -> None:
        """Leave a decoder the past that it has where it cannot be given a better one, and say why."""
        check_original(self.load(), self.source.model)
        try:
            self.past = usable_past(self.load()) if self.cache else None
        except Refused as refused:
            self.cache, self.told = None, [Remark("missed", "kv-cache", "", reason=str(refused))]

    def judge(self, given: Inputs | None, budget: Budget | None) -> None:
        """Take the user's samples and budget. Raises BadInput for samples that do not fit the model."""
        self.samples = split(given, text_model(self.load()), self.source) if given is not None else self.samples
        self.budget = budget or self.budget

    def tune(self, threads: int | None) -> None:
        """Choose kernels by what was measured on this machine."""
        self.choices = choose(self.target, self.load, self.precision, threads)
        self.target = self.choices.target

    def load(self) -> ir.Model:
        """The original; of a decoder with a past that is to be given a better one, that is recorded."""
        model = name_dims(load_model(self.source.model), self.dims)
        if self.past is not None:
            record(model, self.past)
        return model

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[step] = round(self.seconds.get(step, 0) + time.perf_counter() - start, 3)

    def run(self, verify: Verify) -> tuple[OptimizeReport, Compiled]:
        report, compiled = self._attempt(verify)
        if report.parity is None or report.parity.fine:
            return report, compiled
        if verify == "final" and not self.strict:
            return self.run("each")  # something broke parity: find it and go on without it
        raise CheckFailed(f"the result differs from the original ({report.parity}); nothing was written")

    def _attempt(self, verify: Verify) -> tuple[OptimizeReport, Compiled]:
        with self.timed("load"):
            original = self.load()
        self.digests = self.digests or _digests({*self.source.files, *_weights_files(original)})
        nodes, size = original.graph.num_nodes(), _bytes(original)
        evidence: list[Evidence] | None = [] if verify == "each" and not self.source.is_structure else None
        search = Search(self.budget, self.samples.judging or self._cases) if self.budget.limits else None
        compilation = Compilation(
            self._steps,
            lambda given: both(search, self._observer(given, evidence)),
            budgeted=search is not None,
            unpadded=self.unpad,
        )
        with self.timed("compile"):
            model = plain(original)
            anchors = sites.find(model)
            compiled = compilation.parts(model) if self.cache else compilation.whole(model, cache=False)
        outcome = compiled.outcome
        self._check_last_token(outcome)
        check_made(self.cache_precision, outcome.model, outcome.remarks + self.told, self.source.model)
        if outcome.undone and self.strict:
            worst = outcome.undone[0]
            raise CheckFailed(f"rule {worst.rule} breaks parity at {worst.output}; run without --strict to go on")
        with self.timed("verify"):
            closeness = self._closeness(compiled) if verify != "off" or search else []
            if search:
                search.check(closeness)
            parity = self._parity(compiled, closeness) if verify != "off" else _unchecked(closeness)
        report = OptimizeReport(
            sites.settle(anchors, compiled.models, outcome.remarks),
            outcome.remarks + self.told + (self.choices.remarks() if self.choices else []),
            summarize(outcome.applied, evidence or [], outcome.undone),
            parity,
            nodes,
            sum(model.graph.num_nodes() for model in compiled.models),
            size,
            sum(map(_bytes, compiled.models)),
            self.seconds,
            search.layers if search else [],
        )
        return report, compiled

    def _check_last_token(self, outcome: pipeline.Outcome) -> None:
        """Who asks for other outputs must not be given the old ones."""
        if refused := next((r for r in outcome.remarks if r.rule == "last-token" and r.kind == "missed"), None):
            raise BadInput(f"{self.source.model}: no logits of the last token: {refused.reason}; leave last_token out")

    def _steps(self, given: Given, cache: bool) -> list[pipeline.Pass]:
        return pipeline.passes(
            self.target,
            self.precision,
            self._bounds,
            keep_io=not self.half_io,
            samples=given(self.samples.calibrating),
            without_padding=self.unpad,
            cache=self.cache if cache else None,
            int8_cache=self.cache_precision == "int8",
            only_last=self.last_token,
        )

    @cached_property
    def _bounds(self) -> dict[str, int]:
        return bounds_of_text(self.load(), self.source.manifest.get("bounds", {}))

    @cached_property
    def _cases(self) -> list[Case]:
        """Found once: it opens the original and runs it on every input."""
        from onnxsmith.compiler.verify import runnable

        return runnable(text_model(self.load()), self._bounds)

    def _observer(self, given: Given, evidence: list[Evidence] | None) -> pipeline.Observer | None:
        """Adds to the evidence; none where none is wanted."""
        from onnxsmith.compiler.verify import EachPass

        return None if evidence is None else EachPass(given(self._cases), evidence)

    def _closeness(self, compiled: Compiled) -> list[Closeness]:
        """What lossy passes cost, on the samples that calibrated nothing."""
        from onnxsmith.compiler.cached import closeness_of

        if self.source.is_structure or compiled.outcome.exact is None:
            return []
        return closeness_of(self.load(), compiled.models, self.samples.judging or self._cases, self.target.session)

    def _parity(self, compiled: Compiled, closeness: list[Closeness]) -> ParityReport:
        """Everything up to the first lossy pass is held to the parity rule; what a lossy one gives is told."""
        from onnxsmith.compiler.cached import check_model
        from onnxsmith.compiler.verify import Unverifiable

        if self.source.is_structure:
            return self._unverified("weights are absent")
        try:
            exact = check_model(self.load(), compiled.exact, self._cases, self.target.session)
            return ParityReport(exact, closeness, _NOT_RUN.get(self.target.name, ""))
        except Unverifiable as e:
            return self._unverified(str(e), closeness)

    def _certificates(
        self, compiled: Compiled, parity: ParityReport | None, verify: Verify
    ) -> Sequence[dict[str, Any] | None]:
        """One for each model; none of what was not verified."""
        from onnxsmith.compiler.certificate import certificate

        if parity is None or not parity.evidence:
            return [None] * len(compiled.models)
        before = plain(self.load())
        facts = {
            "source": {name: digest.result() for name, digest in self.digests.items()},
            "precision": self.precision,
            "target": self.target.name,
            "verify": verify,
            "versions": {"onnxruntime": onnxruntime_version(), **_versions("onnxsmith", "onnx", "onnx-ir")},
        }
        return [certificate(before, model, self._cases, parity.evidence, **facts) for model in compiled.exact]

    def _unverified(self, reason: str, closeness: Sequence[Closeness] = ()) -> ParityReport:
        if self.strict:
            raise CheckFailed(f"cannot verify: {reason}; run without --strict to go on unverified")
        return ParityReport(closeness=list(closeness), note=f"not verified: {reason}")

    def write(self, output: Path, compiled: Compiled, report: OptimizeReport, verify: Verify) -> None:
        """Raises BadUsage where two models are to go into one file."""
        if compiled.encoder is not None and output.suffix == ".onnx":
            raise BadUsage(f"an encoder-decoder with a cache is two models; give a folder, and not {output}")
        for model in compiled.models if self.target.session else ():
            model.metadata_props[METADATA_KEY] = encode_config(self.target.session)
        manifests = [self._manifest(report, model) for model in compiled.models]
        certificates = [None] if output.suffix == ".onnx" else self._certificates(compiled, report.parity, verify)
        if compiled.encoder is None:
            write_artifact(output, compiled.models[0], manifests[0], self.source.sidecars(), certificates[0])
            return
        written = zip(compiled.models, manifests, certificates, strict=True)
        told = [(model, manifest | part_entry(model), certificate) for model, manifest, certificate in written]
        write_parts(output, dict(zip((DECODER, ENCODER), told, strict=True)), self.source.sidecars())

    def _manifest(self, report: OptimizeReport, model: ir.Model) -> dict[str, Any]:
        return {
            "format": 1,
            **self.source.manifest,
            "onnxsmith": version("onnxsmith"),
            "source": {
                "name": self.source.model.name,
                "sha256": {name: d.result() for name, d in self.digests.items()},
            },
            "versions": _versions("onnx", "onnx-ir", "onnxscript"),
            "target": self.target.name,
            "precision": self.precision,
            "session": {"config": self.target.session, "providers": _PROVIDERS[self.target.name]},
            "passes": [step.name for step in self._steps(list, recorded(model) is not None)],
            **cache_entry(model),
            **({"padded_positions": CONTRACT} if UNPADDED in model.metadata_props else {}),
            **({"outputs": specs(model.graph.outputs)} if LAST_TOKEN in model.metadata_props else {}),
            **({"tuned": told} if self.choices and (told := self.choices.to_json()) else {}),
            **{key: value for key, value in report.to_json().items() if key in _RECORDED},
            "missed": [r.to_json() for r in report.remarks if r.kind == "missed"],
        }


def _versions(*packages: str) -> dict[str, str]:
    return {name: version(name) for name in packages}


def _logits(cache: bool, all_logits: bool) -> Logits | None:
    if not cache:
        return None
    return "all" if all_logits else "last"


def _unchecked(closeness: list[Closeness]) -> ParityReport | None:
    return ParityReport(closeness=closeness, note="not verified: off") if closeness else None


def _bytes(model: ir.Model) -> int:
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def _weights_files(model: ir.Model) -> Iterator[Path]:
    tensors = (v.const_value for v in model.graph.initializers.values())
    return (Path(t.path) for t in tensors if isinstance(t, ir.ExternalTensor))


def _digests(paths: Iterable[Path]) -> dict[str, Future[str]]:
    """Digests by file name, computed beside the compilation: hashing gigabytes takes seconds and no lock."""
    pool = ThreadPoolExecutor(1)
    found = {path.name: pool.submit(sha256, path) for path in sorted(paths)}
    pool.shutdown(wait=False)
    return found
