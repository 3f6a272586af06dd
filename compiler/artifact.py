"""Writing an artifact or a model so that the output is either the old one, or the new one whole, or absent.

Everything is written into a temporary directory beside the target, synced, and renamed into place. What stood there
is moved aside first and removed last.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxsmith.errors import BadInput
from onnxsmith.runtime.artifact import MANIFEST, MODEL

_INLINE_LIMIT = 32_000_000  # beyond it protobuf's copies of the weights would cost more memory than the model
_EXTERNAL_FROM = 1_000_000  # smaller models stay one file even in a folder
_SMALL_BYTES = 1024  # shapes and scalars stay in the model
_PAGE, _PAGE_FROM, _LINE = 4096, 1 << 20, 64


def check_writable(target: Path) -> None:
    """Fail before any work is done when the target could not be written at its end.

    Raises:
        BadInput: the parent cannot be made or written, or a folder that is no artifact stands in the way.
    """
    if target.is_dir() and target.suffix == ".onnx":
        raise BadInput(f"{target} is a folder; give another name for the .onnx file")
    if target.is_file() and target.suffix != ".onnx":
        raise BadInput(f"{target} is a file; give a folder, or a name that ends with .onnx")
    if target.is_dir() and any(target.iterdir()) and not (target / MANIFEST).is_file():
        raise BadInput(f"{target} holds other files; give a new folder, or one that onnxsmith wrote")
    existing = next((p for p in [target.absolute().parent, *target.absolute().parents] if p.exists()), Path("/"))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise BadInput(f"cannot write to {target}: {existing} is not a writable folder")


def write_artifact(
    target: str | Path, model: ir.Model, manifest: Mapping[str, Any], sidecars: Sequence[Path] = ()
) -> None:
    """Write a folder (model, weights, manifest, sidecars) or, when the target ends with .onnx, the model alone.

    Raises BadInput as :func:`check_writable` does, when the target is a file that the model's own weights are read
    from, and when the disk refuses.
    """
    target = Path(target)
    check_writable(target)
    _refuse_own_source(target, model)
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".onnx":
            _write_plain(target, model)
        else:
            with _replacing(target) as folder:
                _write_model(folder / MODEL, model, _EXTERNAL_FROM)
                for path in sidecars:
                    shutil.copyfile(path, folder / path.name)
                text = json.dumps(dict(manifest), indent=2, sort_keys=True, ensure_ascii=False)
                (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
    except OSError as e:
        raise BadInput(f"cannot write {target}: {e.strerror or e}") from e


def _refuse_own_source(target: Path, model: ir.Model) -> None:
    paths = {v.const_value.path for v in model.graph.initializers.values() if _is_external(v.const_value)}
    inside = target.resolve()
    for path in map(Path, paths):
        own = (inside, inside.with_name(inside.name + ".data"))
        if path.resolve() in own or inside in path.resolve().parents:
            raise BadInput(f"{target} holds the weights that are being read; give another output")


def _is_external(tensor: ir.TensorProtocol | None) -> bool:
    return isinstance(tensor, ir.ExternalTensor)


def _write_plain(target: Path, model: ir.Model) -> None:
    """A single file, with a second one beside it only where protobuf needs it. The model is renamed last."""
    with tempfile.TemporaryDirectory(prefix=".onnxsmith-", suffix=".tmp", dir=target.absolute().parent) as folder:
        made = Path(folder, target.name)
        _write_model(made, model, _INLINE_LIMIT)
        _sync_tree(Path(folder))
        weights = made.with_name(made.name + ".data")
        if weights.exists():
            if target.exists():
                os.replace(target, Path(folder, "old"))  # the old model must never meet the new weights
            os.replace(weights, target.with_name(weights.name))
        os.replace(made, target)
        _sync(target.absolute().parent)


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A folder to fill that takes the target's place when the block ends well."""
    parent = target.absolute().parent
    with tempfile.TemporaryDirectory(prefix=".onnxsmith-", suffix=".tmp", dir=parent) as work:
        made, old = Path(work, "new"), Path(work, "old")
        made.mkdir()
        yield made
        _sync_tree(made)
        if target.exists():
            os.rename(target, old)
        try:
            os.rename(made, target)
        except OSError:
            if old.exists():
                os.rename(old, target)
            raise
        _sync(parent)


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_model(path: Path, model: ir.Model, external_from: int) -> None:
    """The model, its larger tensors streamed one by one into ``<name>.data`` when all of them exceed the limit."""
    clone = model.clone()
    tensors = {v: v.const_value for v in clone.graph.initializers.values() if v.const_value is not None}
    external = sum(tensor.nbytes for tensor in tensors.values()) > external_from
    with open(path.with_name(path.name + ".data"), "wb") if external else nullcontext() as file:
        for v, tensor in tensors.items():
            if file is not None and tensor.nbytes > _SMALL_BYTES:
                v.const_value = _append(file, path, tensor)
            elif isinstance(tensor, ir.ExternalTensor):  # in the source's weights file, which stays behind
                v.const_value = ir.tensor(tensor.numpy(), name=v.name)
    path.write_bytes(ir.to_proto(clone).SerializeToString())


def _append(file: Any, path: Path, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
    alignment = _PAGE if tensor.nbytes >= _PAGE_FROM else _LINE
    file.write(b"\0" * (-file.tell() % alignment))
    offset = file.tell()
    data = tensor.numpy()
    if data.nbytes == tensor.nbytes:
        file.write(memoryview(np.ascontiguousarray(data)).cast("B"))  # no second copy of the weight
    else:
        file.write(tensor.tobytes())  # packed types, two elements a byte
    return ir.ExternalTensor(
        path.name + ".data", offset, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.shape), name=tensor.name or ""
    )
