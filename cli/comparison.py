"""What ``compare`` shows in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from onnxsmith.cli import console
from onnxsmith.cli.tables import megabytes

if TYPE_CHECKING:
    from onnxsmith.compiler.compare import Comparison, Variant

_LONGEST = 120  # characters of a name; models may hold any
_SHOWN = 12  # operators, blocks and points


def print_comparison(comparison: Comparison) -> None:
    """Tables: the variants, their errors and structure, what rewrites did, times by operator, and what is dominated."""
    _print_variants(comparison)
    _print_accuracy(comparison)
    _print_structure(comparison)
    for variant in comparison.variants:
        _print_changes(variant)
        _print_operators(variant, comparison)
    _print_pareto(comparison)
    for variant in comparison.variants[1:]:
        if variant.verdict:
            console.emit(f"{short(variant.name)}: {variant.verdict.word} ({short(variant.verdict.reason)})")
            for line in _diverging(variant):
                console.emit(f"  {line}")
    if comparison.note:
        console.emit(short(comparison.note))


def short(text: object) -> str:
    """A name of at most so many characters, its middle left out."""
    line = console.plain(text)
    half = _LONGEST // 2
    return line if len(line) <= _LONGEST else f"{line[:half]}...{line[-half:]}"


def _print_variants(comparison: Comparison) -> None:
    """One row per variant: size and nodes, latency against the first one, and how far the outputs differ."""
    shapes = ", ".join(f"{short(name)} {list(shape)}" for name, shape in comparison.shapes.items())
    columns = (
        "variant",
        ">size",
        ">nodes",
        ">ms",
        ">p90",
        ">time / first",
        ">95% interval",
        ">rms error",
        ">least cosine",
    )
    searched = any(variant.search for variant in comparison.variants)
    spent = any(variant.cost for variant in comparison.variants)
    texts = (">texts: least cosine", ">texts: same nearest") if searched else ()
    costs = (">open, ms", ">first run", ">peak memory") if spent else ()
    rows = [(*_variant_row(variant), *_costs(variant, spent)) for variant in comparison.variants]
    console.table(f"variants at {shapes}", (*columns, *texts, *costs), rows)
    noise = [variant.latency for variant in comparison.variants if variant.latency]
    low, high = min(ratio.aa_low for ratio in noise), max(ratio.aa_high for ratio in noise)
    console.emit(f"the first variant timed against itself: {low:.3f}-{high:.3f}")


def _variant_row(variant: Variant) -> tuple[str, ...]:
    found, ratio, search = variant.structure, variant.latency, variant.search
    return (
        short(variant.name),
        megabytes(found.size) if found else "",
        str(found.nodes) if found else "",
        f"{variant.latency_ms:.2f}" if variant.latency_ms is not None else "",
        f"{variant.speeds[0].p90_ms:.2f}" if variant.speeds else "",
        f"{ratio.median:.3f}{'' if ratio.differs else ' ~'}" if ratio else "",
        f"{ratio.low:.3f}-{ratio.high:.3f}" if ratio else "",
        f"{max(p.relative_rms for p in variant.parity):.1e}" if variant.parity else "",
        f"{min(p.min_cosine for p in variant.parity):.7f}" if variant.parity else "",
        *((f"{search.min_cosine:.7f}", f"{search.top1:.1%}") if search else ()),
    )


def _costs(variant: Variant, spent: bool) -> tuple[str, ...]:
    if not spent:
        return ()
    cost = variant.cost
    if cost is None:
        return "", "", ""
    peak = megabytes(cost.peak_bytes) if cost.peak_bytes is not None else ""
    return f"{cost.open_seconds * 1e3:.0f}", f"{cost.first_seconds * 1e3:.2f}", peak


def _print_accuracy(comparison: Comparison) -> None:
    """One row per variant and output against the reference in float64, over the adversarial inputs."""
    found = [(variant, a) for variant in comparison.variants for a in variant.accuracy]
    if not found:
        return
    of_logits = any(a.kl is not None for _, a in found)
    rows = [
        (
            short(variant.name),
            short(a.output),
            f"{a.rms_ratio:.3g}x",
            f"{a.largest_ratio:.3g}x",
            f"{a.relative_rms:.1e}",
            f"{a.ulp:.3g}",
            "" if a.least_cosine is None else f"{a.least_cosine:.7f}",
            *((_maybe(a.kl, ".1e"), _maybe(a.top1, ".1%"), _maybe(a.top5, ".1%")) if of_logits else ()),
            a.case,
        )
        for variant, a in found
    ]
    columns = ("variant", "output", ">rms error", ">largest", ">relative rms", ">ulp", ">least cosine")
    more = (">KL", ">top-1", ">top-5") if of_logits else ()
    cases = max(a.cases for _, a in found)
    title = f"against float64 over {cases} inputs (errors as multiples of the reference's own in float32)"
    console.table(title, (*columns, *more, "worst input"), rows)


def _maybe(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _print_structure(comparison: Comparison) -> None:
    """One row per operator, one column per variant; weights by type and sites below."""
    known = [variant for variant in comparison.variants if variant.structure]
    tables = [variant.structure for variant in known if variant.structure]
    if not tables:
        return
    totals = {op: max(t.operators.get(op, 0) for t in tables) for t in tables for op in t.operators}
    names = sorted(totals, key=lambda op: -totals[op])
    rows = [(short(op), *(t.operators.get(op, "") for t in tables)) for op in names[:_SHOWN]]
    if len(names) > _SHOWN:
        rows.append(
            (f"{len(names) - _SHOWN} more", *(sum(t.operators.get(n, 0) for n in names[_SHOWN:]) for t in tables))
        )
    types = dict.fromkeys(dtype for t in tables for dtype in t.weights)
    rows += [(f"weights, {dtype}", *(megabytes(t.weights.get(dtype, 0)) for t in tables)) for dtype in types]
    kinds = dict.fromkeys(kind for t in tables for kind in t.sites)
    rows += [(f"{kind} sites, fused", *(_fused(t.sites.get(kind, (0, 0))) for t in tables)) for kind in kinds]
    console.table("structure", ("operator", *(f">{short(v.name)}" for v in known)), rows)


def _fused(site: tuple[int, int]) -> str:
    return f"{site[0]} of {sum(site)}"


def _print_changes(variant: Variant) -> None:
    """One row per block: its nodes, and what stands for them."""
    if variant.changes is None:
        return
    fates = ", ".join(f"{n} {fate}" for fate, n in sorted(variant.changes.fates.items()))
    how = "as recorded" if variant.changes.account.exact else "matched by names, shapes and values"
    rows = [(b.times, short(b), short(", ".join(b.rules))) for b in variant.changes.blocks]
    console.table(f"{short(variant.name)}: {fates} ({how})", (">times", "block", "rules"), rows)


def _print_operators(variant: Variant, comparison: Comparison) -> None:
    """One row per operator: its share of a run, and what it reaches."""
    if not variant.operators:
        return
    total = sum(o.ms for o in variant.operators)
    rows = [
        (
            short(o.operator),
            o.nodes,
            f"{o.ms:.3f}",
            f"{o.ms / total:.1%}" if total else "",
            f"{o.gflop / o.ms * 1e3:.1f}" if o.gflop and o.ms else "",
            f"{o.megabytes / o.ms:.1f}" if o.ms else "",
        )
        for o in variant.operators[:_SHOWN]
    ]
    columns = ("operator", ">nodes", ">ms", ">share", ">GFLOP/s", ">GB/s")
    share = variant.share_of_roof(comparison.roofs) if comparison.roofs else None
    roof = (
        f", {share:.0%} of the products' roof of {comparison.roofs.gflop_s:.0f} GFLOP/s"
        if share is not None and comparison.roofs
        else ""
    )
    console.table(f"{short(variant.name)}: time by operator{roof}", columns, rows)


def _print_pareto(comparison: Comparison) -> None:
    """One row per variant and shapes, dominated ones marked."""
    rows = [
        (
            p.at,
            short(p.variant),
            f"{p.ms:.2f}",
            _maybe(p.error, ".1e"),
            "" if p.size is None else megabytes(p.size),
            f"no: {short(p.by)} is nowhere worse" if p.by else "yes",
        )
        for p in comparison.pareto
    ]
    console.table("worth having", ("shapes", "variant", ">ms", ">relative rms", ">size", "worth having"), rows)


def _diverging(variant: Variant) -> Iterator[str]:
    layer = variant.verdict.diverging if variant.verdict else None
    if layer is None:
        return
    where = f" in {short(layer.module)}" if layer.module else ""
    by = f" by {', '.join(layer.rules)}" if layer.rules else ""
    yield f"first at {short(layer.value)} ({layer.operator}{where}{by}): relative RMS {layer.relative_rms:.1e}"
