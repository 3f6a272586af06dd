"""Verify an artifact anew: independently of the run that made it, on other inputs, part by part and as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.passes.cache import recorded
from onnxsmith.runtime.artifact import CERTIFICATE, DECODER, ENCODER, Artifact, open_artifact
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
            model has no budget and its manifest tells no error. BadUsage: a budget that cannot be read, or inputs for
            an encoder and a decoder that both come apart.
    """
    artifact, first = open_artifact(source), open_artifact(against)
    limits = parse_budget(budget) if budget is not None else _promised(artifact)
    if artifact.source is None or first.source is None:
        return _verified(artifact, first, inputs, limits, seed)
    if inputs is not None:
        raise BadUsage(f"inputs are for one model, and {source} is two; verify {DECODER}/ and {ENCODER}/ apart")
    alone = replace(artifact, source=None), replace(first, source=None)
    decoder, encoder = (_verified(*two, None, limits, seed) for two in (alone, (artifact.source, first.source)))
    return Verification(
        decoder.parts + encoder.parts,
        decoder.whole + encoder.whole,
        decoder.closeness + encoder.closeness,
        limits,
        decoder.cases + encoder.cases,
        decoder.certified and encoder.certified,
        decoder.files + encoder.files,
    )


def _verified(
    artifact: Artifact, first: Artifact, inputs: Given | None, limits: Budget | None, seed: int
) -> Verification:
    against, original = first.model, load_model(first.model)
    made = [artifact] if artifact.source is None else [artifact, artifact.source]
    compiled, config = [load_model(one.model) for one in made], recorded_config(artifact)
    original = with_past_recorded(original) if recorded(compiled[0]) else original
    _check_complete(original, compiled, artifact)
    reads = text_model(original)
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


def _check_complete(original: ir.Model, compiled: Sequence[ir.Model], artifact: Artifact) -> None:
    """An original that is a decoder itself has what an encoder gives among its inputs."""
    cache = recorded(compiled[0])
    if cache is not None and cache.cross is not None and len(compiled) == 1 and recorded(original) is None:
        raise BadInput(f"{artifact.model} is a decoder without its encoder; give the folder that holds both")


def _promised(artifact: Artifact) -> Budget | None:
    """What a lossy model's manifest says that it cost, with room for other inputs; None for any other model."""
    if not _lossy(artifact.manifest):
        return None
    try:
        manifests = [one.manifest for one in (artifact, artifact.source) if one is not None]
        told = [float(entry["relative_rms"]) for one in manifests for entry in one["parity"]["closeness"]]
        return Budget((Limit("rms", _ALLOWED * max(told)),))
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"{artifact.model} is lossy, and nothing says what that cost; give a --budget") from None


def _lossy(manifest: Mapping[str, Any]) -> bool:
    precisions = manifest.get("precision", "fp32"), (manifest.get("cache") or {}).get("dtype", "float32")
    return precisions != ("fp32", "float32")


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


def _changed(artifact: Artifact, certificate: Mapping[str, Any], original: Path) -> Iterator[str]:
    """Files that are not those of the certificate; the original's folder may be another."""
    folders = {"files": artifact.model.parent, "source": original.parent}
    for key, folder in folders.items():
        for name, digest in certificate.get(key, {}).items():
            path = folder / Path(name).name
            if not path.is_file() or sha256(path) != digest:
                yield str(path)
