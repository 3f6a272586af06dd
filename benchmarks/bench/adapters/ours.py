"""onnxsmith, as its users get it: optimized, then loaded with the session options that the artifact records."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from benchmarks.bench.adapters import Ids, Prepare, Run, feeds_of
from onnxsmith.runtime.artifact import MANIFEST, MODEL


def compiled(folder: Path, variant: str) -> Path:
    """The artifact of a precision, "+calibrate" with samples, optimized again whenever our code has changed."""
    import onnxsmith
    from benchmarks.bench.engines import code
    from benchmarks.bench.worker import samples

    path = folder / f"onnxsmith-{variant}-{code()}"
    if path.exists():
        return path
    for stale in folder.glob(f"onnxsmith-{variant}-{'?' * len(code())}"):
        shutil.rmtree(stale)
    precision, _, calibrates = variant.partition("+")
    given = feeds_of(samples(folder)) if calibrates else None
    onnxsmith.optimize(folder / "raw.onnx", path, precision=precision, calibrate=given, verify="off", tuned=False)
    return path


def content(folder: Path, variant: str) -> str:
    """What is timed: a digest of the artifact's graph without its notes, its weights and its session's options."""
    import onnx

    path = compiled(folder, variant)
    model = onnx.load(path / MODEL, load_external_data=False)
    for noted in (model, model.graph, *model.graph.node, *model.graph.value_info):
        noted.ClearField("metadata_props")
    found = hashlib.sha256(model.SerializeToString(deterministic=True))
    for weights in sorted(path.glob(f"{MODEL}.*")):
        with weights.open("rb") as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    session = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["session"]
    found.update(json.dumps(session, sort_keys=True).encode())
    return found.hexdigest()


def open_engine(folder: Path, variant: str, threads: int) -> Prepare:
    import onnxsmith

    session = onnxsmith.load(compiled(folder, variant), threads=threads).session

    def prepare(ids: Ids) -> Run:
        feeds = feeds_of(ids)
        return lambda: session.run(None, feeds)[0]

    return prepare
