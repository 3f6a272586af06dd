"""The driver: mutate a seed, see that the mutated graph computes the same, and that it lifts to the same graph.

    python -m tests.fuzz.fuzz --graphs 2000                     numbers 0 to 1999
    python -m tests.fuzz.fuzz --graphs 2000 --first 100000      as many others
    python -m tests.fuzz.fuzz --graphs 2000 --near-misses       graphs that must not lift to that of their seed

A case is told by its number alone. One that fails is shrunk to the mutations that it takes, and ``--keep`` writes it
to ``tests/fuzz/cases``, where a test runs it from then on.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler import pipeline
from onnxsmith.compiler.session import run_model
from onnxsmith.compiler.target import target
from onnxsmith.passes.canonicalize import canonicalize, infer
from onnxsmith.passes.engine.values import dims
from tests.fuzz.isomorphic import Graph, difference, evaluated
from tests.fuzz.mutations import KINDS, MUTATIONS
from tests.fuzz.near_misses import NEAR_MISSES
from tests.fuzz.seeds import SEEDS

CASES = Path(__file__).parent / "cases"
LENGTHS = {"B": 2, "S": 5, "T": 7}
MOST_STEPS = 8
_WRONG = {m.name: m for m in NEAR_MISSES}
_ANY = MUTATIONS | _WRONG
Values = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Step:
    """One mutation at one place; ``draw`` seeds the choices that it makes."""

    mutation: str
    site: str
    draw: int


@dataclass(frozen=True)
class Case:
    """A seed graph and what is done to it."""

    seed: str
    steps: tuple[Step, ...] = field(default=())

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> Case:
        read = json.loads(text)
        return Case(read["seed"], tuple(Step(**step) for step in read["steps"]))


class Invalid(Exception):
    """The mutated graph does not compute what the seed does: a fault of a mutation, not of a rule."""


def draw(number: int) -> tuple[Case, ir.Model]:
    """The case of that number, and its mutated graph."""
    rng = Random(number)
    seed = rng.choice(list(SEEDS))
    return _further(Case(seed), seed_graph(seed).clone(), rng.randint(1, MOST_STEPS), rng)


def draw_near_miss(number: int) -> tuple[Case, ir.Model]:
    """The near miss of that number, then spelled in another way, and its graph."""
    rng = Random(number)
    seed = rng.choice(list(SEEDS))
    model = seed_graph(seed).clone()
    name, sites = next((n, found) for n in rng.sample(list(_WRONG), len(_WRONG)) if (found := _WRONG[n].sites(model)))
    wrong = Step(name, rng.choice(sites), rng.randrange(2**16))
    return _further(Case(seed, (wrong,)), _applied(model, wrong), rng.randint(0, MOST_STEPS), rng)


def _further(case: Case, model: ir.Model, count: int, rng: Random) -> tuple[Case, ir.Model]:
    for _ in range(count):
        step = _choose(model, rng)
        model, case = _applied(model, step), Case(case.seed, (*case.steps, step))
    return case, model


def _choose(model: ir.Model, rng: Random) -> Step:
    """A kind first: there are more ways to write a name than to move a scale."""
    names = [name for kind in rng.sample(KINDS, len(KINDS)) for name in rng.sample(kind, len(kind))]
    name, sites = next((n, sites) for n in names if (sites := MUTATIONS[n].sites(model)))
    return Step(name, rng.choice(sites), rng.randrange(2**16))


def mutated(case: Case) -> ir.Model:
    """The seed graph after the case's steps; those whose place is not there (any more) are left out."""
    model = seed_graph(case.seed).clone()
    for step in case.steps:
        if step.site in _ANY[step.mutation].sites(model):
            model = _applied(model, step)
    return model


def _applied(model: ir.Model, step: Step) -> ir.Model:
    model = _ANY[step.mutation].apply(model, step.site, Random(step.draw))
    infer(model)
    return model


@functools.cache
def seed_graph(name: str) -> ir.Model:
    """Not to be changed."""
    return SEEDS[name]().model()


@functools.cache
def expected(name: str) -> tuple[Values, Graph]:
    """What a seed graph computes and what it lifts to; neither to be changed."""
    model = seed_graph(name)
    return run_model(model.clone())(feeds(model)), evaluated(lifted(model.clone()), feeds(model))


def lifted(model: ir.Model) -> ir.Model:
    return pipeline.run(canonicalize(model), pipeline.passes(target("onnx", "fp32"), "fp32")).model


def feeds(model: ir.Model) -> Values:
    """Random inputs. Every query may see the first key: masks that agree on such rows may differ on others."""
    rng = np.random.default_rng(0)
    return {str(v.name): _random(v, [LENGTHS.get(d, d) for d in dims(v) or []], rng) for v in model.graph.inputs}


def _random(v: ir.Value, shape: list[Any], rng: np.random.Generator) -> NDArray[Any]:
    assert v.dtype is not None
    if v.dtype.is_floating_point():
        return rng.standard_normal(shape).astype(v.dtype.numpy())
    bits = rng.integers(0, 2, shape)
    bits[..., 0] = 1
    return bits.astype(v.dtype.numpy())


def failure(case: Case, model: ir.Model | None = None) -> str | None:
    """Why the mutated graph does not lift to what its seed lifts to, or None. Raises Invalid."""
    model = mutated(case) if model is None else model
    values, graph = expected(case.seed)
    given = feeds(seed_graph(case.seed))
    if (name := _differing(run_model(model.clone())(given), values)) is not None:
        raise Invalid(f"{name} differs: {case}")
    return difference(evaluated(lifted(model), given), graph)


def mistaken(case: Case, model: ir.Model | None = None) -> str | None:
    """Why what a near miss lifts to is wrong, or None: the graph of its seed, or other values. Raises Invalid."""
    model = mutated(case) if model is None else model
    given = feeds(seed_graph(case.seed))
    values = run_model(mutated(Case(case.seed, case.steps[:1])))(given)
    if (name := _differing(run_model(model.clone())(given), values)) is not None:
        raise Invalid(f"{name} differs: {case}")
    after = lifted(model)
    if (name := _differing(run_model(after.clone())(given), values)) is not None:
        return f"{name} differs after lifting"
    return None if difference(evaluated(after, given), expected(case.seed)[1]) else "lifts to the graph of its seed"


def _differing(found: Values, values: Values) -> str | None:
    """The first output that is more than rounding away from its values; a near miss may take roots of what it likes."""
    for name, value in values.items():
        largest = float(np.abs(value).max(initial=0, where=np.isfinite(value)))
        if not np.allclose(found[name], value, rtol=1e-3, atol=1e-4 * largest, equal_nan=True):
            return name
    return None


Judge = Callable[[Case], str | None]


def shrunk(case: Case, judge: Judge | None = None) -> Case:
    """The case without the steps that its failure does not need. A near miss keeps its first, which makes it one."""
    judge = judge or failure
    for step in case.steps[judge is mistaken :]:
        smaller = Case(case.seed, tuple(s for s in case.steps if s is not step))
        if _fails(smaller, judge):
            case = smaller
    return case


def _fails(case: Case, judge: Judge) -> bool:
    try:
        return judge(case) is not None
    except Invalid:
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=int, default=2000, help="how many graphs (default 2000)")
    parser.add_argument("--first", type=int, default=0, help="the number of the first one")
    parser.add_argument("--near-misses", action="store_true", help="graphs that compute something else")
    parser.add_argument("--keep", action="store_true", help="write shrunk failing cases to tests/fuzz/cases")
    options = parser.parse_args(arguments)
    make, judge = (draw_near_miss, mistaken) if options.near_misses else (draw, failure)
    causes: Counter[tuple[str, ...]] = Counter()
    for number in range(options.first, options.first + options.graphs):
        case, model = make(number)
        if judge(case, model) is None:
            continue
        small = shrunk(case, judge)
        causes[tuple(sorted({s.mutation for s in small.steps}))] += 1
        print(f"{number} {case.seed}: {', '.join(f'{s.mutation} at {s.site}' for s in small.steps)}: {judge(small)}")
        if options.keep:
            (CASES / f"{number}.json").write_text(small.to_json())
    failed = sum(causes.values())
    told = "are told from their seed" if options.near_misses else "lift to the graph of their seed"
    print(f"{options.graphs - failed} of {options.graphs} graphs {told}")
    for names, times in causes.most_common():
        print(f"{times:5} {' + '.join(names)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
