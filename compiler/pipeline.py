"""The pass manager: passes in order, and one observer that sees the model before and after each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import onnx_ir as ir

from onnxsmith.compiler.calibrate import Moments, activations, magnitudes, sizes, stored
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.saturation import saturates
from onnxsmith.compiler.target import QUANTIZED, Target
from onnxsmith.passes import lift, lower
from onnxsmith.passes.cache import kv_cache, recorded
from onnxsmith.passes.cache.last import at_every_token
from onnxsmith.passes.canonicalize import follow, shorten, sweep
from onnxsmith.passes.engine.provenance import module_of, origins
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.engine.rewrite import Rewriter, Site
from onnxsmith.passes.engine.rule import Rule
from onnxsmith.passes.lift import masks
from onnxsmith.passes.lower import Kernels
from onnxsmith.passes.lower.candidates import ranked_tokens
from onnxsmith.passes.lower.greedy import screen_head
from onnxsmith.passes.lower.in_place import in_place
from onnxsmith.passes.lower.packed import packed_gates, packed_qkv
from onnxsmith.passes.lower.sinks import sinks
from onnxsmith.passes.lower.sources import shared_sources
from onnxsmith.passes.optimize import attention_biases, distances, mask_floor, position_tables
from onnxsmith.passes.optimize.last_token import last_token
from onnxsmith.passes.optimize.unpad import unpad
from onnxsmith.passes.precision.formats import FORMATS, Format
from onnxsmith.passes.precision.narrow import narrow
from onnxsmith.passes.quantize import int8, weight_only
from onnxsmith.passes.quantize.cache import NAME as INT8_CACHE
from onnxsmith.passes.quantize.cache import SCALES, cache_scales
from onnxsmith.passes.quantize.cache import int8_cache as to_int8
from onnxsmith.passes.quantize.even import even_channels
from onnxsmith.passes.quantize.scales import scales_told
from onnxsmith.passes.quantize.tied import tied


@dataclass(frozen=True)
class Pass:
    """One step: its rules run to a fixed point, then views are shortened and leftovers swept away.

    ``prepare`` makes further rules from the model as it stands, for steps that measure before they rewrite.
    ``transform`` changes the model, in place and before the rules, where that is no matter of single places.
    ``lossy`` steps change results by intent, within a budget; they are not held to the parity rule.
    """

    name: str
    rules: tuple[Rule, ...] = ()
    prepare: Callable[[ir.Model], tuple[Rule, ...]] | None = None
    transform: Callable[[ir.Model], list[Remark]] | None = None
    lossy: bool = False

    def run(self, model: ir.Model, denied: Collection[Site] = ()) -> Outcome:
        told = self.transform(model) if self.transform else []
        prepared = self.prepare(model) if self.prepare else ()
        rewriter = Rewriter(self.rules + prepared, denied)
        while rewriter(model):  # again, since shapes that become known may let another rule hold
            follow(model)
            if shorten(model):
                follow(model)
            sweep(model)
        return Outcome(model, told + rewriter.remarks + rewriter.missed(model), rewriter.applied)


@dataclass(frozen=True)
class Outcome:
    """What passes left behind: the model, what they said, and where they changed something.

    ``undone`` are the sites that verification had rolled back. ``exact`` is the model as it stood before the first
    lossy pass, and None where there was none.
    """

    model: ir.Model
    remarks: list[Remark] = field(default_factory=list)
    applied: list[Site] = field(default_factory=list)
    undone: list[Site] = field(default_factory=list)
    exact: ir.Model | None = None


Logits = Literal["last", "all"]
Observer = Callable[[Pass, ir.Model, Outcome], Mapping[Site, str]]  # the sites to undo, and why


def passes(
    target: Target,
    precision: str,
    bounds: Mapping[str, int] | None = None,
    *,
    keep_io: bool = True,
    samples: Sequence[Case] = (),
    without_padding: bool = False,
    cache: Logits | None = None,
    int8_cache: bool = False,
    only_last: bool = False,
) -> list[Pass]:
    """The passes for a target and a precision, in order; they expect a canonical model.

    ``bounds`` gives the largest size of a named dimension, for steps that run the model. ``keep_io`` leaves the
    inputs and outputs of a 16-bit model float32. ``samples`` are inputs to calibrate on, in place of made-up ones.
    ``without_padding`` computes no padded positions; with a cache there are none. ``cache`` gives a decoder past and
    present, and logits of the last token or of all; with ``int8_cache``, where that is appended to in place, in int8
    with scales from the ``samples``. ``only_last`` gives a decoder without a cache logits of last tokens.
    """
    form = FORMATS.get(precision)
    kernels = replace(target.kernels, narrow=form.dtype if form is not None else None) if target.kernels else None
    steps = lifting()
    if cache is not None:
        steps += _caching(kernels, cache, bounds or {})
        steps += [Pass(SCALES, transform=partial(_scaled, samples=samples))] if int8_cache else []
    if kernels is not None or without_padding or only_last:
        steps.append(Pass("mask-meanings", transform=masks.annotate))
    if only_last:
        steps.append(Pass("last-token", transform=last_token))
    if kernels is not None:
        steps += _savings()
    if without_padding and cache is None:
        share = target.name != "cuda"  # a loop over rows starts too many small kernels there: unmeasured
        steps.append(Pass("unpad", transform=partial(unpad, share=share)))
    if kernels is not None:
        steps.append(Pass(f"lower-{target.name}", tuple(lower.rules(kernels))))
        steps += [Pass("shared-sources", transform=shared_sources)] if cache is not None else []
        steps += [_narrow(form, kernels, bounds or {}, keep_io)] if form is not None else []
        steps += _evened(precision, bounds or {}, samples)
        if cache is not None and precision in weight_only.FORMATS:  # in float32 two products are as fast
            steps.append(Pass("packed-gate", transform=packed_gates))
        steps += _lossy(precision, kernels, bounds or {}, samples)
        if cache is not None and kernels.target == "cpu":  # CUDA replays no graph that branches
            steps.append(Pass("ranked-tokens", transform=ranked_tokens))
            steps.append(Pass("screened-head", transform=partial(screen_head, kernels=kernels)))
    if cache is not None and int8_cache:
        steps.append(Pass(INT8_CACHE, transform=to_int8, lossy=True))
    return steps


def lifting() -> list[Pass]:
    """The passes that find standard operators."""
    return [
        Pass("lift-arithmetic", tuple(lift.ARITHMETIC)),
        Pass("lift-products", tuple(lift.PRODUCTS)),
        Pass("lift-norms-and-activations", tuple(lift.NORMS_AND_ACTIVATIONS)),
        Pass("lift-scales", tuple(lift.SCALES)),
        Pass("lift-attention", tuple(lift.ATTENTION)),
        Pass("lift-heads", tuple(lift.HEADS)),
    ]


def _caching(kernels: Kernels | None, logits: Logits, bounds: Mapping[str, int]) -> list[Pass]:
    """A cache, in the layout that the target's attention kernels append to where they can."""

    def give(model: ir.Model) -> list[Remark]:
        return kv_cache(model, all_logits=logits == "all", bounds=bounds)

    steps = [Pass("kv-cache", transform=give)]
    if kernels is not None:
        steps.append(Pass("in-place-cache", transform=partial(in_place, kernels=kernels)))
        steps.append(Pass("packed-qkv", transform=packed_qkv))
    if kernels is not None and kernels.target == "cpu":  # what the plain kernel saves was measured there
        steps.append(Pass("plain-attention", transform=sinks))
    return steps


def _scaled(model: ir.Model, samples: Sequence[Case]) -> list[Remark]:
    """Scales for an int8 cache, where keys and values are appended in place."""
    cache = recorded(model)
    if cache is None or cache.layout != "in-place":
        return []
    return cache_scales(model, stored(model, samples))


def _savings() -> list[Pass]:
    """Work that no output needs, left out on every target with kernels."""
    return [
        Pass("attention-biases", tuple(attention_biases.RULES)),
        Pass("mask-floor", tuple(mask_floor.RULES)),
        Pass("distances", tuple(distances.RULES)),
        Pass("position-tables", tuple(position_tables.RULES)),
    ]


def before_lowering() -> list[Pass]:
    """The passes that a target with kernels begins with: what they leave is what lowering chooses for."""
    return [*lifting(), Pass("mask-meanings", transform=masks.annotate), *_savings()]


def _narrow(form: Format, kernels: Kernels, bounds: Mapping[str, int], keep_io: bool) -> Pass:
    """Sixteen bits, except where the model's own activations leave their range."""

    def convert(model: ir.Model) -> list[Remark]:
        return narrow(model, form, kernels, magnitudes(model, bounds), keep_io)

    return Pass(form.name, transform=convert, lossy=True)


def _evened(precision: str, bounds: Mapping[str, int], samples: Sequence[Case]) -> list[Pass]:
    """Channels of even size, before anything is rounded.

    Not where samples round 4-bit codes: there each block's largest element costs more than small channels gain.
    """
    forms = weight_only.FORMATS.get(precision, ())
    compensated = samples and any(form.bits < weight_only.INT8.bits for form in forms)
    heads = not any(form.exact_heads for form in forms)
    if precision not in QUANTIZED or compensated:
        return []

    def even(model: ir.Model) -> list[Remark]:
        return even_channels(model, sizes(model, bounds, samples), heads=heads)

    return [Pass("even-channels", transform=even, lossy=True)]


def _lossy(precision: str, kernels: Kernels, bounds: Mapping[str, int], samples: Sequence[Case]) -> list[Pass]:
    """The passes of a precision that the target has in quantized products; what one leaves the next may take."""
    if precision == "int8":
        return [_int8(kernels, bounds, samples), Pass("int8-scales", transform=scales_told)]
    blocks = [_blocks(form, kernels, samples) for form in weight_only.FORMATS.get(precision, ())]
    return [*blocks, Pass("tied-codes", transform=tied, lossy=True)] if blocks else []


def _blocks(form: weight_only.Format, kernels: Kernels, samples: Sequence[Case]) -> Pass:
    """Weights in blocks; of 4 bits rounded by how activations move together, where samples tell that.

    Made-up inputs tell a part of it, but the work takes longer than all other passes together.
    """
    if form.bits == 8 or not samples:
        return Pass(form.name, weight_only.rules(kernels, form), lossy=True)

    def rules(model: ir.Model) -> tuple[Rule, ...]:
        return weight_only.rules(kernels, form, Moments(at_every_token(model.clone()), samples).of)

    return Pass(form.name, prepare=rules, lossy=True)


def _int8(kernels: Kernels, bounds: Mapping[str, int], samples: Sequence[Case]) -> Pass:
    """Integer products, with weights of 7 bits where this machine's sums of 8-bit ones are wrong."""
    narrow = saturates()
    largest_code = int8.LARGEST_7_BIT_CODE if narrow else int8.LARGEST_CODE

    def rules(model: ir.Model) -> tuple[Rule, ...]:
        return int8.rules(kernels, activations(model, bounds, samples), largest_code)

    def told(model: ir.Model) -> list[Remark]:
        reason = "weights of 7 bits, since products of 8 bits saturate on this machine"
        return [Remark("analysis", "int8-product", "", reason=reason)] if narrow else []

    return Pass("int8", prepare=rules, transform=told, lossy=True)


def run(model: ir.Model, steps: list[Pass], observer: Observer | None = None) -> Outcome:
    """Run the passes on a canonical model. The observer may name sites to undo: their pass is run again without.

    The given model must not be used afterwards.
    """
    remarks: list[Remark] = []
    applied: list[Site] = []
    undone: list[Site] = []
    exact: ir.Model | None = None
    for step in steps:
        if step.lossy and exact is None:
            exact = model.clone()
        outcome = _observed(step, model, observer)
        remarks += outcome.remarks
        applied += outcome.applied
        undone += outcome.undone
        model = outcome.model
    told = _settled(remarks, model)
    told += [remark for remark in masks.annotate(model) if remark not in told]  # lowering may have asked before
    return Outcome(model, told, applied, undone, exact)


def _observed(step: Pass, model: ir.Model, observer: Observer | None) -> Outcome:
    if observer is None:
        return step.run(model)
    denied: set[Site] = set()
    rejected: set[Site] = set()
    undone: dict[Site, Remark] = {}
    while True:
        outcome = step.run(model.clone(), denied)
        found = {site: why for site, why in observer(step, model, outcome).items() if site not in denied}
        if not found:
            break
        undone |= {site: _undone(site, why, step, model, outcome) for site, why in found.items()}
        rejected = set(found)
        denied |= rejected
    for spared in () if step.lossy else _perhaps_sound(denied, rejected):
        left = denied - spared
        if not left or left == denied:
            continue
        again = step.run(model.clone(), left)
        if not observer(step, model, again):
            outcome, denied = again, left
    if step.lossy:
        return replace(outcome, remarks=outcome.remarks + [_spared(site) for site in denied])
    remarks = outcome.remarks + [undone[site] for site in denied]
    return replace(outcome, remarks=remarks, undone=list(denied))


def _perhaps_sound(denied: set[Site], rejected: set[Site]) -> Iterator[set[Site]]:
    """Denied sites that may hold after all, to be tried in turn.

    Rewrites that build on a broken one fail before it does: the one ``rejected`` last is to blame. Rules that change
    the body of one node are only seen to fail together, whichever of them is broken.
    """
    yield denied - rejected
    for rule in sorted({site.rule for site in denied}):
        yield {site for site in denied if site.rule == rule}


def _undone(site: Site, why: str, step: Pass, before: ir.Model, outcome: Outcome) -> Remark:
    """Told at the anchor that stays, where a reader looks for the reason; where there is none, at the output."""
    anchors = {rule.anchor for rule in step.rules if rule.name == site.rule and rule.anchor}
    made = [n for n in outcome.model.graph.all_nodes() if any(v.name == site.output for v in n.outputs)]
    replaced = {name for n in made for name in origins(n)}
    left = (n for n in before.graph.all_nodes() if n.op_type in anchors and replaced.intersection(origins(n)))
    node = next(left, None)
    where = (site.output, "") if node is None else (str(node.name), module_of(node))
    return Remark("missed", site.rule, *where, code="parity", reason=f"parity: verification rolled it back: {why}")


def _spared(site: Site) -> Remark:
    return Remark("missed", site.rule, site.output, code="budget", reason="budget: left in a higher precision")


def _weight(remark: Remark) -> tuple[bool, int]:
    return remark.code in ("parity", "budget"), remark.matched


def _settled(remarks: list[Remark], model: ir.Model) -> list[Remark]:
    """Drop misses whose anchor a later pass took away, and keep the furthest of several for one anchor.

    That a rewrite was rolled back goes before why no other fits.
    """
    left = {str(n.name) for n in model.graph.all_nodes()} | {""}
    best: dict[str, Remark] = {}
    for remark in remarks:
        if remark.kind != "missed" or (remark.code not in ("parity", "budget") and remark.node not in left):
            continue
        known = best.get(remark.node)
        if known is None or _weight(remark) > _weight(known):
            best[remark.node] = remark
    return [r for r in remarks if r.kind != "missed"] + list(best.values())
