"""What `optimize` did, as data: the command line prints it, the artifact keeps it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace

from onnxsmith.compiler.closeness import Closeness
from onnxsmith.compiler.sensitivity import Layer
from onnxsmith.compiler.sites import Site
from onnxsmith.compiler.verify import Evidence
from onnxsmith.passes.engine.remark import Remark
from onnxsmith.passes.engine.rewrite import Site as Applied


@dataclass(frozen=True)
class RuleSummary:
    """One rule over the whole model: worst cases over sites and inputs; None when not verified each.

    Ratios are multiples of the original float32 graph's own error; ``worst_relative_rms`` is the RMS error over the
    output's RMS, which is what says something of a lossy rule.
    """

    rule: str
    count: int
    worst_rms_ratio: float | None = None
    worst_max_ratio: float | None = None
    worst_relative_rms: float | None = None
    rolled_back: int = 0


_SHOWN = 3  # outputs in the line that is printed; the JSON has all


@dataclass(frozen=True)
class ParityReport:
    """The whole model against the original in float64, and how close a lossy variant stays to float32."""

    evidence: list[Evidence] = field(default_factory=list)
    closeness: list[Closeness] = field(default_factory=list)
    note: str = ""

    @property
    def fine(self) -> bool:
        return all(e.worst.fine for e in self.evidence)

    def __str__(self) -> str:
        """One line of the worst outputs: a cache has dozens of them."""
        exact = sorted(self.evidence, key=lambda e: (e.worst.fine, -e.worst.rms))
        near = sorted(self.closeness, key=lambda c: c.smallest_cosine)
        shown = [_exact(e) for e in exact[:_SHOWN]] + [_near(c) for c in near[:_SHOWN]]
        hidden = max(len(exact), len(near)) - _SHOWN
        return "; ".join(filter(None, [*shown, f"{hidden} outputs more" if hidden > 0 else "", self.note]))

    def to_json(self) -> dict[str, object]:
        return {
            "fine": self.fine,
            "outputs": [e.to_json() for e in self.evidence],
            "closeness": [c.to_json() for c in self.closeness],
            "note": self.note,
        }


def _exact(e: Evidence) -> str:
    return f"{e.output} {e.worst.rms:.2f}x rms, {e.worst.largest:.2f}x largest over {e.cases} inputs"


def _near(c: Closeness) -> str:
    near = f"{c.output} cosine {c.mean_cosine:.5f}, at worst {c.smallest_cosine:.5f}"
    return near if c.kl is None else f"{near}, KL {c.kl:.4f}, top-1 {c.top1:.1%}"


@dataclass(frozen=True)
class OptimizeReport:
    """Sites, rewrites, remarks and figures of one run. Bytes are those of the model with its weights."""

    sites: list[Site]
    remarks: list[Remark]
    rewrites: list[RuleSummary]
    parity: ParityReport | None
    nodes_before: int
    nodes_after: int
    bytes_before: int
    bytes_after: int
    seconds: dict[str, float]
    layers: list[Layer] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        return {
            "sites": [s.to_json() for s in self.sites],
            "remarks": [r.to_json() for r in self.remarks],
            "rewrites": [asdict(r) for r in self.rewrites],
            "parity": self.parity.to_json() if self.parity else None,
            "nodes": {"before": self.nodes_before, "after": self.nodes_after},
            "bytes": {"before": self.bytes_before, "after": self.bytes_after},
            "seconds": self.seconds,
            "layers": [layer.to_json() for layer in self.layers],
        }


def joined(report: OptimizeReport, other: OptimizeReport, name: str) -> OptimizeReport:
    """One report of two models, of which the outputs of the other are said to be of ``name``."""
    seconds = Counter(report.seconds)
    seconds.update(other.seconds)
    return OptimizeReport(
        report.sites + other.sites,
        list(dict.fromkeys(report.remarks + other.remarks)),
        _merged(report.rewrites + other.rewrites),
        joined_parity(report.parity, other.parity, name),
        report.nodes_before + other.nodes_before,
        report.nodes_after + other.nodes_after,
        report.bytes_before + other.bytes_before,
        report.bytes_after + other.bytes_after,
        dict(seconds),
        report.layers + other.layers,
    )


def joined_parity(parity: ParityReport | None, other: ParityReport | None, name: str) -> ParityReport | None:
    """As :func:`joined`."""
    if parity is None or other is None:
        return parity or other
    evidence = [replace(e, output=f"{e.output} of {name}") for e in other.evidence]
    closeness = [replace(c, output=f"{c.output} of {name}") for c in other.closeness]
    return ParityReport(parity.evidence + evidence, parity.closeness + closeness, parity.note or other.note)


def _merged(rewrites: Sequence[RuleSummary]) -> list[RuleSummary]:
    """One row per rule, with the worst of its rows."""
    rows: dict[str, list[RuleSummary]] = {}
    for row in rewrites:
        rows.setdefault(row.rule, []).append(row)
    return [_worst(rule, same) for rule, same in rows.items()]


def _worst(rule: str, rows: Sequence[RuleSummary]) -> RuleSummary:
    def worst(figures: Iterable[float | None]) -> float | None:
        return max((x for x in figures if x is not None), default=None)

    return RuleSummary(
        rule,
        sum(row.count for row in rows),
        worst(row.worst_rms_ratio for row in rows),
        worst(row.worst_max_ratio for row in rows),
        worst(row.worst_relative_rms for row in rows),
        sum(row.rolled_back for row in rows),
    )


def summarize(applied: Sequence[Applied], evidence: Sequence[Evidence], undone: Sequence[Applied]) -> list[RuleSummary]:
    """One row per rule that fired or was rolled back, in the order of first use."""
    counts = Counter(site.rule for site in applied)
    backed_out = Counter(site.rule for site in undone)
    rows = []
    for rule in dict.fromkeys([*counts, *backed_out]):
        ratios = [e.worst for e in evidence if e.rule == rule]
        rms = max((r.rms for r in ratios), default=None)
        largest = max((r.largest for r in ratios), default=None)
        relative = max((e.relative_rms for e in evidence if e.rule == rule), default=None)
        rows.append(RuleSummary(rule, counts[rule], rms, largest, relative, backed_out[rule]))
    return rows
