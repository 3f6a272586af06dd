"""The two ways to reduce: around the first value that differs from the original's, or by leaving nodes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxsmith.compiler.artifact import check_writable
from onnxsmith.compiler.inputs import cases
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.reduce.differing import first_difference
from onnxsmith.compiler.reduce.parts import capture, first_outputs, inputs_of, part, typed
from onnxsmith.compiler.reduce.smallest import smallest
from onnxsmith.compiler.reduce.trial import Failure, Values, against_itself, attempt, broken, different, truth_of, wrong
from onnxsmith.compiler.reduce.write import Reduced, write
from onnxsmith.compiler.reference import Reference
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.passes.engine.provenance import module_of, origins, rule_of
from onnxsmith.runtime.artifact import Artifact, open_artifact
from onnxsmith.runtime.child import Setup
from onnxsmith.runtime.feeds import Feeds
from onnxsmith.runtime.options import recorded_config

TRIALS = 400


@dataclass(frozen=True)
class Suspect:
    """A node of the reduced model; ``origins`` are the original's nodes that it stands for, where that is recorded."""

    operator: str
    name: str
    rule: str | None
    origins: tuple[str, ...]
    module: str


@dataclass(frozen=True)
class Reduction:
    """What was found. ``case`` are the inputs that showed the failure first, ``trials`` the parts that were tried."""

    failure: Failure
    case: str
    nodes_before: int
    suspects: tuple[Suspect, ...]
    trials: int
    folder: str

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "nodes": len(self.suspects)}


def reduce(
    source: str | Path,
    output: str | Path,
    *,
    against: str | Path | None = None,
    inputs: Feeds | None = None,
    trials: int = TRIALS,
) -> Reduction:
    """Shrink a model that fails to the few nodes that do, and write them with inputs and a script that shows it.

    A failure is that ONNX Runtime crashes on the model, hangs, refuses it, raises, or gives other results: than
    ``against`` does in float64, or without an original, than the graph itself does. Every run is a process of its own.

    Args:
        source: an artifact folder or an .onnx file; its recorded session options are used.
        output: a folder to make: model.onnx, inputs.npz, expected.npz, reproduce.py, and original.onnx where there is
            one to compare with.
        against: the model that it should be equal to, with the same names of inputs and outputs.
        inputs: arrays by input name that show the failure; otherwise made-up ones are tried.
        trials: parts to try at most.

    Raises:
        BadInput: a file cannot be used, or nothing fails. BadUsage: the output exists, or ``trials`` is less than 1.
    """
    if trials < 1:
        raise BadUsage(f"trials must be at least 1, found {trials}")
    folder = Path(output)
    if folder.exists() or folder.suffix == ".onnx":
        raise BadUsage(f"{folder}: give the name of a new folder")
    check_writable(folder)
    artifact = open_artifact(source)
    setup = Setup(True, recorded_config(artifact))
    variant, original = load_model(source), load_model(against) if against is not None else None
    case, feeds, failure = _first_failure(variant, original, _given(inputs, original or variant, artifact), setup)
    found, asked = _reduced(variant, original, feeds, failure, setup, trials)
    write(folder, found, setup)
    suspects = tuple(_suspect(node) for node in found.model.graph)
    return Reduction(found.failure, case, variant.graph.num_nodes(), suspects, asked, str(folder))


def _given(inputs: Feeds | None, model: ir.Model, artifact: Artifact) -> Iterator[tuple[str, Values]]:
    if inputs is not None:
        yield "the inputs given", inputs
        return
    bounds = artifact.manifest.get("bounds", {})
    single, *longer = cases(model, bounds)  # of one token, many values are equal that are not the same
    yield from ((case.name, case.feeds) for case in (*longer, single))


def _first_failure(
    variant: ir.Model, original: ir.Model | None, given: Iterator[tuple[str, Values]], setup: Setup
) -> tuple[str, Values, Failure]:
    opened = attempt(variant, None, setup)
    if failure := broken(opened):
        name, feeds = next(given)
        return name, feeds, failure
    tried = 0
    for name, feeds in given:
        tried += 1
        if failure := _failure(variant, original, feeds, setup):
            return name, feeds, failure
    raise BadInput(f"nothing fails on {tried} sets of inputs: give the ones that show the failure")


def _failure(variant: ir.Model, original: ir.Model | None, feeds: Values, setup: Setup) -> Failure | None:
    if original is None:
        return against_itself(variant, feeds, setup)
    own = attempt(original, feeds)
    if broken(own):
        return None  # inputs that the original does not take show nothing
    ran = attempt(variant, feeds, setup)
    if failure := broken(ran):
        return failure
    off = wrong(ran.outputs, own.outputs, Reference(original).run(feeds))
    return different(*off) if off else None


def _reduced(
    variant: ir.Model, original: ir.Model | None, feeds: Values, failure: Failure, setup: Setup, trials: int
) -> tuple[Reduced, int]:
    """The part that fails, and how many were tried."""
    if failure.kind == "different" and original is not None:
        found = first_difference(variant, original, feeds, setup)
        if found is not None:
            return found, 1
        own = against_itself(variant, feeds, setup)
        if own is None or own.kind != "different":  # the errors of many places add up
            return Reduced(variant, feeds, failure, original, Reference(original).run(feeds)), 1
    return _without_nodes(variant, feeds, failure, setup, trials)


def _without_nodes(
    variant: ir.Model, feeds: Values, failure: Failure, setup: Setup, trials: int
) -> tuple[Reduced, int]:
    """Leave out what is not needed for the same failure; inner values that this cuts off become inputs."""
    values = capture(variant, feeds)
    whole = typed(variant, values)

    def again(names: Sequence[str]) -> Failure | None:
        model = part(whole, names)
        if failure.kind == "refused":
            return broken(attempt(model, None, setup))
        taken = _feeds_of(model, values)
        if taken is None:
            return None
        if failure.kind == "different":
            return against_itself(model, taken, setup)
        return broken(attempt(model, taken, setup))

    def same(names: Sequence[str]) -> bool:
        found = again(names)
        return found is not None and found.likeness == failure.likeness

    names, asked = smallest(first_outputs(whole), same, trials)
    model = part(whole, names)
    taken = _feeds_of(model, values) or {}
    truth = truth_of(model, taken, attempt(model, taken).outputs) if failure.kind == "different" else {}
    return Reduced(model, taken, again(names) or failure, truth=truth), asked


def _feeds_of(model: ir.Model, values: Values) -> Values | None:
    names = inputs_of(model)
    return {name: values[name] for name in names} if all(name in values for name in names) else None


def _suspect(node: ir.Node) -> Suspect:
    operator = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return Suspect(operator, str(node.name), rule_of(node), tuple(origins(node)), module_of(node))
