"""What the commands show of a report: tables on stdout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from onnxsmith.cli import console

if TYPE_CHECKING:
    from onnxsmith.compiler.report import OptimizeReport, RuleSummary
    from onnxsmith.compiler.sensitivity import Layer
    from onnxsmith.compiler.sites import Site
    from onnxsmith.passes.engine.remark import Remark

STATUSES = ("fused", "already fused", "missed", "inexpressible")


def print_sites(sites: Sequence[Site]) -> None:
    """One row per site, if there are any: what it is, where, and which rule fused it or why none did."""
    if not sites:
        return
    columns = ("site", "where", "status", "rule", "detail", "why not")
    rows = [(s.kind, s.where, s.status, s.rule or "", s.detail, s.reason or "") for s in sites]
    console.table("sites", columns, rows)


def print_coverage(sites: Sequence[Site]) -> None:
    """One row per kind of site: how many are fused, were fused before, are missed, or are in no operator's reach."""
    if not sites:
        console.emit("no attention, norm or feed-forward site found: is this a Transformer?")
        return
    counts = Counter((site.kind, site.status) for site in sites)
    kinds = dict.fromkeys(site.kind for site in sites)
    statuses = [s for s in STATUSES if s != "inexpressible" or any(site.status == s for site in sites)]
    rows = []
    for kind in kinds:
        numbers = [counts[kind, status] for status in statuses]
        rows.append((kind, sum(numbers), *numbers))
    console.table("coverage", ("kind", ">sites", *(f">{status}" for status in statuses)), rows)


def print_report(report: OptimizeReport) -> None:
    """What `optimize` did: coverage, the parity of each rewrite, the missed sites and the sizes."""
    print_coverage(report.sites)
    _print_rewrites(report.rewrites)
    _print_islands(report.remarks)
    for remark in report.remarks:
        if not remark.node:  # about the whole model
            console.emit(f"{remark.rule}{' not done' if remark.kind == 'missed' else ''}: {remark.reason}")
    _print_layers(report.layers)
    left = [site for site in report.sites if site.status in ("missed", "inexpressible")]
    print_sites(left)
    if report.sites and all(site.status != "missed" for site in left):
        console.emit("no site missed")
    console.emit(f"nodes {report.nodes_before} -> {report.nodes_after}")
    console.emit(f"size {megabytes(report.bytes_before)} -> {megabytes(report.bytes_after)}")
    if report.parity:
        console.emit(f"parity {report.parity}")


def _print_rewrites(rewrites: Sequence[RuleSummary]) -> None:
    """One row per rule that fired, with its errors where each rewrite was verified."""
    if not rewrites:
        return
    if all(r.worst_relative_rms is None for r in rewrites):
        console.table("rewrites", ("rewrite", ">sites"), [(r.rule, r.count) for r in rewrites])
        return
    columns = ("rewrite", ">sites", ">rms error", ">largest error", ">relative rms", ">rolled back")
    rows = [
        (
            r.rule,
            r.count,
            times(r.worst_rms_ratio),
            times(r.worst_max_ratio),
            "" if r.worst_relative_rms is None else f"{r.worst_relative_rms:.1e}",
            r.rolled_back or "",
        )
        for r in rewrites
    ]
    console.table("rewrites (errors as multiples of the original float32 graph's own)", columns, rows)


def _print_islands(remarks: Sequence[Remark]) -> None:
    """One row per reason why nodes of a 16-bit model stay in float32; --json has each of them."""
    islands = Counter(r.reason for r in remarks if r.rule.endswith("-island"))
    if islands:
        console.table("left in float32", (">nodes", "reason"), [(n, reason) for reason, n in islands.items()])


def _print_layers(layers: Sequence[Layer]) -> None:
    """One row per layer, costliest first: what quantizing it alone costs, and whether the budget let it be."""
    if not layers:
        return
    of_logits = any(c.kl is not None for layer in layers for c in layer.closeness)
    columns = ("layer", "precision", "quantized", ">cosine", ">relative rms", *((">KL", ">top-1") if of_logits else ()))
    rows = [
        (layer.name, layer.precision, "yes" if layer.taken else "no", *_worst(layer, of_logits)) for layer in layers
    ]
    console.table("what each layer alone costs", columns, rows)


def _worst(layer: Layer, of_logits: bool) -> Iterator[str]:
    """The figures of the worst output."""
    yield f"{min(c.mean_cosine for c in layer.closeness):.6f}"
    yield f"{max(c.relative_rms for c in layer.closeness):.1e}"
    if of_logits:
        yield f"{max(c.kl for c in layer.closeness if c.kl is not None):.1e}"
        yield f"{min(c.top1 for c in layer.closeness if c.top1 is not None):.2%}"


def times(ratio: float | None) -> str:
    """A ratio such as ``1.04x``; empty when nothing was measured, or where it says nothing (a lossy rewrite)."""
    return "" if ratio is None or ratio > 1000 else f"{ratio:.2f}x"


def megabytes(size: int) -> str:
    """A number of bytes in units of 10^6 bytes."""
    return f"{size / 1e6:.1f} MB"
