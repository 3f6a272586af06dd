"""Verify an artifact anew: independently of the run that made it, on other inputs, part by part and as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxsmith.compiler import inputs as made_up
from onnxsmith.compiler.artifact import sha256
from onnxsmith.compiler.budget import Budget, Limit
from onnxsmith.compiler.budget import parse as parse_budget
from onnxsmith.compiler.cached import check_model, closeness_of
from onnxsmith.compiler.certificate import Part, parts
from onnxsmith.compiler.closeness import Closeness
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.past import plain, text_model, with_past_recorded
from onnxsmith.compiler.samples import Given, given_cases
from onnxsmith.compiler.verify import Evidence, Unverifiable, running
from onnxsmith.errors import BadInput
from onnxsmith.passes.cache import recorded
from onnxsmith.runtime.artifact import CERTIFICATE, Artifact, open_artifact
from onnxsmith.runtime.options import recorded_config

_ALLOWED = 2  # times the error that a lossy model's manifest tells, for the inputs are others


@dataclass(frozen=True)
class Verification:
    """``files`` are the artifact's and the original's whose content is not what the certificate says.

    A lossy model has a ``budget``, and its ``closeness`` is judged by it; any other by the parity rule.
    """

    parts: list[Part]
    whole: list[Evidence]
    closeness: list[Closeness]
    budget: Budget | None
    cases: int
    certified: bool
    files: tuple[str, ...]

    @property
    def fine(self) -> bool:
        """The whole decides; a part alone may be beyond the limits where the whole is not."""
        right = all(e.worst.fine for e in self.whole) if self.budget is None else self.budget.holds(self.closeness)
        return right and not self.files

    def to_json(self) -> dict[str, Any]:
        return {
            "fine": self.fine,
            "certified": self.certified,
            "changed_files": list(self.files),
            "cases": self.cases,
            "outputs": [e.to_json() for e in self.whole],
            "closeness": [c.to_json() for c in self.closeness],
            "budget": None if self.budget is None else str(self.budget),
            "parts": [part.to_json() for part in self.parts],
        }


def verify(
    source: str | Path,
    *,
    against: str | Path,
    inputs: Given | None = None,
    budget: str | None = None,
    seed: int = 1,
) -> Verification:
    """Check an optimized model against its original: by the parity rule, in float64, or a lossy one by a budget.

    Args:
        source: an artifact folder or an .onnx file that ``optimize`` wrote.
        against: the original.
        inputs: arrays [N, ..] by input name, or texts; otherwise they are made up.
        budget: what it may have cost, as for ``optimize``. Without, a lossy model may be off by twice the RMS error
            that its manifest tells.
        seed: of the inputs made up. ``optimize`` itself uses 0.

    Raises:
        BadInput: a file cannot be used; the two take different inputs; the original cannot be evaluated; or a lossy
            model has no budget and its manifest tells no error. BadUsage: a budget that cannot be read.
    """
    artifact, original = open_artifact(source), load_model(against)
    made = [artifact] if artifact.source is None else [artifact, artifact.source]
    compiled, config = [load_model(one.model) for one in made], recorded_config(artifact)
    _check_complete(compiled, artifact)
    original = with_past_recorded(original) if recorded(compiled[0]) else original
    reads = text_model(original)
    limits = parse_budget(budget) if budget is not None else _promised(artifact)
    certificates = [_certificate(one) for one in made]
    given = given_cases(inputs, reads, artifact) if inputs is not None else _cases(reads, artifact, seed)
    if not given:
        raise BadInput(f"{against} runs on none of the verification inputs; give some that it takes with --inputs")
    near = closeness_of(original, compiled, given, config) if limits else []
    try:
        whole = check_model(original, compiled, given, config) if limits is None else []
    except Unverifiable as e:
        raise BadInput(f"{against} cannot be compared: {e}") from e
    before = plain(original)
    found = [part for model in compiled for part in parts(before, model, given)]
    foreign = [name for one, told in zip(made, certificates, strict=True) for name in _changed(one, told, against)]
    return Verification(found, whole, near, limits, len(given), all(certificates), tuple(dict.fromkeys(foreign)))


def _check_complete(compiled: Sequence[ir.Model], artifact: Artifact) -> None:
    cache = recorded(compiled[0])
    if cache is not None and cache.cross is not None and len(compiled) == 1:
        raise BadInput(f"{artifact.model} is a decoder without its encoder; give the folder that holds both")


def _promised(artifact: Artifact) -> Budget | None:
    """What a lossy model's manifest says that it cost, with room for other inputs; None for any other model."""
    if artifact.manifest.get("precision", "fp32") == "fp32":
        return None
    try:
        told = [float(entry["relative_rms"]) for entry in artifact.manifest["parity"]["closeness"]]
        return Budget((Limit("rms", _ALLOWED * max(told)),))
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"{artifact.model} is lossy, and nothing says what that cost; give a --budget") from None


def _cases(original: ir.Model, artifact: Artifact, seed: int) -> list[Case]:
    return running(original, made_up.cases(original, artifact.manifest.get("bounds", {}), seed))


def _certificate(artifact: Artifact) -> Mapping[str, Any]:
    path = artifact.model.parent / CERTIFICATE
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except ValueError as e:
        raise BadInput(f"{path}: no JSON ({e}); optimize the model again") from e


def _changed(artifact: Artifact, certificate: Mapping[str, Any], original: str | Path) -> Iterator[str]:
    """Files that are not those of the certificate; the original's folder may be another."""
    folders = {"files": artifact.model.parent, "source": open_artifact(original).model.parent}
    for key, folder in folders.items():
        for name, digest in certificate.get(key, {}).items():
            path = folder / Path(name).name
            if not path.is_file() or sha256(path) != digest:
                yield str(path)
