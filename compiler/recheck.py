"""Verify an artifact anew: independently of the run that made it, on other inputs, part by part and as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxsmith.compiler import inputs as made_up
from onnxsmith.compiler.artifact import sha256
from onnxsmith.compiler.cached import check_cached
from onnxsmith.compiler.certificate import Part, parts
from onnxsmith.compiler.inputs import Case
from onnxsmith.compiler.load import load_model
from onnxsmith.compiler.samples import Given, given_cases
from onnxsmith.compiler.verify import Evidence, Unverifiable, check_whole, running
from onnxsmith.errors import BadInput
from onnxsmith.passes.cache import recorded
from onnxsmith.passes.canonicalize import canonicalize
from onnxsmith.runtime.artifact import CERTIFICATE, Artifact, open_artifact
from onnxsmith.runtime.options import recorded_config


@dataclass(frozen=True)
class Verification:
    """``files`` are the artifact's and the original's whose content is not what the certificate says."""

    parts: list[Part]
    whole: list[Evidence]
    cases: int
    certified: bool
    files: tuple[str, ...]

    @property
    def fine(self) -> bool:
        """The whole decides; a part alone may be beyond the limits where the whole is not."""
        return not self.files and all(e.worst.fine for e in self.whole)

    def to_json(self) -> dict[str, Any]:
        return {
            "fine": self.fine,
            "certified": self.certified,
            "changed_files": list(self.files),
            "cases": self.cases,
            "outputs": [e.to_json() for e in self.whole],
            "parts": [part.to_json() for part in self.parts],
        }


def verify(source: str | Path, *, against: str | Path, inputs: Given | None = None, seed: int = 1) -> Verification:
    """Check an optimized model against its original, in float64, by the parity rule.

    Args:
        source: an artifact folder or an .onnx file that ``optimize`` wrote.
        against: the original.
        inputs: arrays [N, ..] by input name, or texts; otherwise they are made up.
        seed: of those made up. ``optimize`` itself uses 0.

    Raises:
        BadInput: a file cannot be used; the two take different inputs; or the original cannot be evaluated.
    """
    artifact, original = open_artifact(source), load_model(against)
    compiled = load_model(source)
    given = given_cases(inputs, original, artifact) if inputs is not None else _cases(original, artifact, seed)
    if not given:
        raise BadInput(f"{against} runs on none of the verification inputs; give some that it takes with --inputs")
    check = check_cached if recorded(compiled) else check_whole
    certificate = _certificate(artifact)
    try:
        whole = check(original, compiled, given, recorded_config(artifact))
    except Unverifiable as e:
        raise BadInput(f"{against} cannot be compared: {e}") from e
    changed = tuple(_changed(artifact, open_artifact(against), certificate))
    found = parts(canonicalize(original), compiled, given)
    return Verification(found, whole, len(given), bool(certificate), changed)


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


def _changed(artifact: Artifact, original: Artifact, certificate: Mapping[str, Any]) -> list[str]:
    """Files that are not those of the certificate; the original's name may be another."""
    found = []
    for folder, digests in (
        (artifact.model.parent, certificate.get("files", {})),
        (original.model.parent, certificate.get("source", {})),
    ):
        for name, digest in digests.items():
            path = folder / Path(name).name
            if not path.is_file() or sha256(path) != digest:
                found.append(str(path))
    return found
