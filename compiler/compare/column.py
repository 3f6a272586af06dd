"""One column of a comparison: everything about one variant beside the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxsmith.compiler.budget import Budget
from onnxsmith.compiler.compare.accuracy import Known, accuracy, worst
from onnxsmith.compiler.compare.inputs import mask_names
from onnxsmith.compiler.compare.latency import cost, race, shown, together
from onnxsmith.compiler.compare.layers import Layer, first_diverging, layers
from onnxsmith.compiler.compare.numerics import OutputParity, output_parity, search_agreement
from onnxsmith.compiler.compare.profile import profile
from onnxsmith.compiler.compare.report import Variant
from onnxsmith.compiler.compare.structure import Changes, changes, structure
from onnxsmith.compiler.compare.through import prepared
from onnxsmith.compiler.compare.variants import Opened
from onnxsmith.compiler.compare.verdict import Verdict, verdict
from onnxsmith.errors import BadInput
from onnxsmith.runtime.feeds import Feeds
from onnxsmith.runtime.model import LoadedModel
from onnxsmith.runtime.session import Provider


@dataclass(frozen=True)
class Limits:
    """What a lossy variant may cost: the relative RMS error of each output, and a budget."""

    max_error: float | None = None
    budget: Budget | None = None


@dataclass(frozen=True)
class Setting:
    """How variants are measured; ``quick`` leaves out layers, operators, and runs in fresh processes."""

    pairs: int
    provider: Provider
    threads: int | None
    limits: Limits
    quick: bool


@dataclass(frozen=True)
class Beside:
    """The reference, and what it makes of the inputs.

    ``host`` is the model that reads texts, ``graph`` the one that inputs are made from: those of the reference, or
    of the first variant that has one. ``feeds`` are timed, one for each set of shapes; ``known`` are judged.
    """

    reference: Opened
    host: LoadedModel
    graph: ir.Model
    feeds: Sequence[Feeds]
    known: Sequence[Known]
    logits: set[str]
    texts: Sequence[str]
    setting: Setting

    def column(self, found: Opened) -> Variant:
        """Everything about one variant."""
        parity = self._parity(found)
        races = [
            race(partial(self.reference.run, f), partial(found.run, f), self.setting.pairs, shown(f))
            for f in self.feeds
        ]
        speeds = tuple(speed for _, speed in races)
        variant = replace(
            self.alone(found),
            parity=parity,
            search=search_agreement(self._embed(found), self._embeddings) if self.texts else None,
            speeds=speeds,
            latency_ms=speeds[0].median_ms,
            latency=speeds[0].ratio,
            raced=tuple(own for own, _ in races),
        )
        return self._judged(found, variant) if self.known else variant

    def own(self, others: Sequence[Variant]) -> Variant:
        """The reference's column: its errors against float64, and its times beside all others."""
        variant = self.alone(self.reference)
        found = accuracy(self.reference, self.graph, self.known, self.logits)[0] if self.known else []
        speeds = tuple(map(together, zip(*(other.raced for other in others), strict=True)))
        return replace(variant, accuracy=tuple(found), speeds=speeds, latency_ms=speeds[0].median_ms)

    def alone(self, found: Opened) -> Variant:
        """What can be said of a variant without the reference."""
        variant = Variant(found.name, found.session, load_seconds=found.seconds)
        if found.graph is None or found.model is None:
            return variant
        precision = found.model.manifest.get("precision")
        variant = replace(variant, precision=precision, structure=structure(found.graph, found.model.artifact.model))
        if self.setting.quick:
            return variant
        spent = cost(found, self.feeds[0], self.setting.threads) if self.setting.provider == "cpu" else None
        operators = profile(found, self.feeds[0], self.setting.provider, self.setting.threads)
        return replace(variant, cost=spent, operators=operators)

    @cached_property
    def _outputs(self) -> Mapping[str, NDArray[Any]]:
        return self.reference.run(self.feeds[0])

    @cached_property
    def _embeddings(self) -> NDArray[np.float32]:
        return self._embed(self.reference)

    @cached_property
    def _original(self) -> ir.Model | None:
        return prepared(self.reference.graph.clone()) if self.reference.graph is not None else None

    def _embed(self, found: Opened) -> NDArray[np.float32]:
        return self.host.embed(self.texts, run=found.run)

    def _parity(self, found: Opened) -> tuple[OutputParity, ...]:
        outputs, feeds = found.run(self.feeds[0]), self.feeds[0]
        common = [name for name in self._outputs if name in outputs]
        if not common:
            names = ", ".join(sorted(self._outputs))
            raise BadInput(f"{found.name}: no output {names}, which the reference has; rename its outputs")
        mask = next((feeds[name] for name in mask_names(self.graph) if name in feeds), None)
        return tuple(output_parity(name, np.asarray(outputs[name]), self._outputs[name], mask) for name in common)

    def _judged(self, found: Opened, variant: Variant) -> Variant:
        """The variant with its accuracy, a verdict, and what the rewrites did."""
        figures, near = accuracy(found, self.graph, self.known, self.logits)
        limits = self.setting.limits
        judged = verdict(figures, near, limits.max_error, limits.budget)
        variant = replace(variant, verdict=judged, accuracy=tuple(figures), closeness=tuple(near))
        if found.graph is None or self._original is None:
            return variant
        changed = changes(self._original, prepared(found.graph.clone()), self.known[0].case)
        variant = replace(variant, changes=changed)
        if found.padding is not None or (self.setting.quick and judged.word != "different"):
            return variant  # with a cache in place, inner values stand at other positions
        return self._layered(found, changed, variant, judged, worst(figures).case)

    def _layered(self, found: Opened, changed: Changes, variant: Variant, judged: Verdict, case: str) -> Variant:
        """The errors of inner values on the variant's worst input, and the first that verification would reject."""
        seen = self._layers(found, changed, case)
        diverging = None if judged.word in ("identical", "equivalent") else first_diverging(seen)
        return replace(variant, layers=tuple(seen), verdict=replace(judged, diverging=diverging))

    def _layers(self, found: Opened, changed: Changes, name: str) -> list[Layer]:
        assert found.graph is not None and found.model is not None and self.reference.graph is not None
        case = next(k.case for k in self.known if k.case.name == name)
        try:
            return layers(self.reference.graph, found.graph, case, found.model.config, changed.twins)
        except Exception:  # an operator that the evaluator lacks, or a type that no output can have
            return []
