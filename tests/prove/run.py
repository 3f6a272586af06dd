"""``make prove``: every rule on its golden cases, exactly, in finite fields; what they cannot express is listed.

    python -m tests.prove.run [CASE ...]

Writes docs/proofs.md. Exits with 1 where a rewrite is no identity.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxsmith.compiler.reference import Reference
from onnxsmith.compiler.session import run_model
from onnxsmith.passes.engine.values import dims
from onnxsmith.runtime.parity import error_ratio
from tests import golden
from tests.prove import field
from tests.prove.evaluate import Value, evaluate
from tests.prove.field import Unproved

POINTS = 4
LOSSY = frozenset({"int8", "int4", "int8-weights", "fp16", "bf16"})
TRIALS = 10_000
MARK = "<!-- make prove writes from here -->"
DOCS = Path(__file__).parents[2] / "docs" / "proofs.md"


@dataclass(frozen=True)
class Proof:
    """``verdict`` is "proved", "refuted", or why the fields do not reach."""

    case: str
    rules: tuple[str, ...]
    verdict: str


def prove(path: Path, points: int = POINTS) -> Proof | None:
    """One case, at random points and sizes; None where no rule fires, or one that loses precision by intent."""
    case = golden.read(path)
    if not LOSSY.isdisjoint(case.steps):
        return None
    model = whole_weights(case.model(), np.random.default_rng(0))
    outcome = golden.rewrite(model, case.steps)
    rules = tuple(dict.fromkeys(site.rule for site in outcome.applied))
    if not rules:
        return None
    verdict = "proved"
    try:
        for seed in range(points):
            feeds = dict(random_feeds(model, np.random.default_rng(seed)))
            before, after = evaluate(model, feeds), evaluate(outcome.model, feeds)
            if not all(_same(before[name], after[name]) for name in before):
                verdict = "refuted"
    except (Unproved, ValueError) as e:
        verdict = " ".join(str(e).split())[:80]
    return Proof(f"{path.parent.name}/{path.stem}", rules, verdict)


def _same(a: Value, b: Value) -> bool:
    return a == b if isinstance(a, field.Element) else np.array_equal(a, b)


def whole_weights(model: ir.Model, rng: np.random.Generator) -> ir.Model:
    """Small whole numbers as weights: what is folded of them in float32 is exact."""
    for v in model.graph.initializers.values():
        array = v.const_value.numpy() if v.const_value is not None else None
        random = array is not None and array.dtype == np.float32 and array.size > 3 and np.any(array % 1)
        if array is not None and random and not v.is_graph_input():
            v.const_value = ir.tensor(rng.integers(1, 9, array.shape).astype(np.float32), name=v.name)
    return model


def random_feeds(model: ir.Model, rng: np.random.Generator) -> Iterator[tuple[str, Value]]:
    """Random points; free dimensions have random sizes, and no row of a mask is blocked whole."""
    sizes = {name: int(rng.integers(2, 6)) for name in golden.LENGTHS} | {"D": golden.LENGTHS["D"]}
    sizes["U"] = sizes["T"]  # two names of one length
    for v in model.graph.inputs:
        if v.is_initializer():
            continue
        shape = tuple(d if isinstance(d, int) else sizes[d] for d in dims(v) or [])
        if v.dtype is not None and v.dtype.is_floating_point():
            yield str(v.name), field.random(shape, rng)
            continue
        flags = rng.integers(0, 2, shape)
        if flags.ndim and shape[-1] > 1:
            flags[..., 0], flags[..., 1] = 1, 0
        yield str(v.name), flags.astype(v.dtype.numpy() if v.dtype is not None else np.int64)


def tested(path: Path, times: int) -> bool:
    """Whether the case holds on so many random inputs by the parity rule, for what the fields do not express."""
    case = golden.read(path)
    model = case.model()
    after = golden.rewrite(model, case.steps).model
    reference, own, ours = Reference(model), run_model(model), run_model(after)
    for seed in range(times):
        feeds = golden.random_feeds(model, seed)
        truth, baseline, found = reference.run(feeds), own(feeds), ours(feeds)
        if not all(error_ratio(found[name], baseline[name], truth[name]).fine for name in truth):
            return False
    return True


def page(proofs: list[Proof], trials: dict[str, bool]) -> str:
    """docs/proofs.md between its marks: every rule with its proofs."""
    rules = dict.fromkeys(rule for proof in proofs for rule in proof.rules)
    lines = ["| rule | cases proved | not expressible, tested instead |", "|---|---|---|"]
    for rule in sorted(rules):
        own = [proof for proof in proofs if rule in proof.rules]
        proved = sum(proof.verdict == "proved" for proof in own)
        rest = [f"{p.case}: {p.verdict}" for p in own if p.case in trials]
        lines.append(f"| {rule} | {proved} | {'; '.join(rest)} |")
    return "\n".join(lines) + "\n"


def main(names: list[str]) -> int:
    paths = [golden.CASES / f"{name}.txt" for name in names] or sorted(golden.CASES.glob("*/*.txt"))
    proofs = [proof for path in paths if (proof := prove(path)) is not None]
    left = [proof for proof in proofs if proof.verdict not in ("proved", "refuted")]
    trials = {p.case: tested(golden.CASES / f"{p.case}.txt", TRIALS // len(left) + 1) for p in left}
    for proof in proofs:
        if proof.verdict != "proved" or names:
            outcome = {True: "; tested", False: "; FAILED", None: ""}[trials.get(proof.case)]
            print(f"{proof.case}: {proof.verdict}{outcome} ({', '.join(proof.rules)})")
    wrong = [p.case for p in proofs if p.verdict == "refuted"] + [case for case, fine in trials.items() if not fine]
    proved = sum(p.verdict == "proved" for p in proofs)
    print(f"{proved} of {len(proofs)} cases proved, {len(left)} tested, {len(wrong)} wrong")
    if not names:
        before, _, _ = DOCS.read_text(encoding="utf-8").partition(MARK)
        DOCS.write_text(f"{before}{MARK}\n\n{page(proofs, trials)}", encoding="utf-8")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
