"""Writing an artifact folder or a plain model file."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import onnx_ir as ir

from onnxsmith.compiler.atomic import replacing
from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.passes.engine.absent import AbsentTensor
from onnxsmith.runtime.artifact import CERTIFICATE, MANIFEST, MODEL, PARTS, SIDECARS

_INLINE_LIMIT = 32_000_000  # beyond it protobuf's copies of the weights would cost more memory than the model
_EXTERNAL_FROM = 1_000_000  # smaller models stay one file even in a folder
_SMALL_BYTES = 1024  # shapes and scalars stay in the model
_PAGE, _PAGE_FROM, _LINE = 4096, 1 << 20, 64
_DATA = ".data"


def check_writable(target: Path, *, absent: bool = False) -> None:
    """Fail before any work is done when the target could not be written at its end.

    Raises:
        BadInput: the parent cannot be made or written, or what stands in the way is not ours.
        BadUsage: a plain file for a model whose weights are ``absent``, which only a manifest can say.
    """
    if absent and target.suffix == ".onnx":
        raise BadUsage(f"{target} cannot say that its weights are absent; give a folder for a structure")
    if target.suffix == ".onnx":
        if target.is_dir():
            raise BadInput(f"{target} is a folder; give another name for the .onnx file")
    elif target.is_dir():
        _refuse_foreign(target)
    elif target.exists():
        raise BadInput(f"{target} is a file; give a folder, or a name that ends with .onnx")
    existing = next(parent for parent in target.absolute().parents if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise BadInput(f"cannot write to {target}: {existing} is not a writable folder")


def _refuse_foreign(folder: Path) -> None:
    """The folder will be replaced: everything in it must be what an earlier run of ours wrote."""
    parts = [folder / name for name in PARTS if (folder / name / MANIFEST).is_file()]
    for part in parts:
        _refuse_foreign(part)
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        manifest = {}
    sidecars = [str(manifest.get(key)) for key in SIDECARS] if isinstance(manifest, dict) else []
    ours = {MODEL, MODEL + _DATA, MANIFEST, CERTIFICATE, *sidecars} if (folder / MANIFEST).is_file() else set()
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in ours and path not in parts)
    if foreign:
        raise BadInput(f"{folder} holds other files ({foreign[0]}); give a new folder, or one that onnxsmith wrote")


def write_artifact(
    target: str | Path,
    model: ir.Model,
    manifest: Mapping[str, Any],
    sidecars: Mapping[str, bytes] | None = None,
    certificate: Mapping[str, Any] | None = None,
) -> None:
    """Write a folder (model, weights, manifest, sidecars), or the model alone if the target ends with .onnx.

    ``sidecars`` are contents by file name; ``manifest`` names them under the keys SIDECARS. A ``certificate`` goes
    beside them, with the digests of the model's files. What stood there is replaced at the end, at one stroke; see
    :func:`replacing`.

    Raises:
        BadInput: as :func:`check_writable`; the model's own weights would be replaced; or the disk refuses.
    """
    target = Path(target)
    with replaced(target, [model]) as made:
        if target.suffix == ".onnx":
            write_model(made, model, _INLINE_LIMIT)
        else:
            _write_folder(made, model, manifest, sidecars or {}, certificate)


def write_parts(
    target: Path,
    parts: Mapping[str, tuple[ir.Model, Mapping[str, Any], Mapping[str, Any] | None]],
    sidecars: Mapping[str, bytes],
) -> None:
    """Write a folder of artifacts by name: models, manifests and certificates, each with the sidecars.

    Raises as the above.
    """
    with replaced(target, [model for model, _, _ in parts.values()]) as made:
        made.mkdir()
        for name, (model, manifest, certificate) in parts.items():
            _write_folder(made / name, model, manifest, sidecars, certificate)


@contextmanager
def replaced(target: Path, models: Iterable[ir.Model] = ()) -> Iterator[Path]:
    """Where to make what takes the target's place at one stroke, if the block ends well; it is made of these models.

    Raises BadInput as :func:`check_writable` does, where the models' own weights would be replaced, or for the disk.
    """
    check_writable(target)
    for model in models:
        _refuse_own_source(target, model)
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as made:
            yield made
    except OSError as e:
        raise BadInput(f"cannot write {target}: {e.strerror or e}") from e


def _write_folder(
    folder: Path,
    model: ir.Model,
    manifest: Mapping[str, Any],
    sidecars: Mapping[str, bytes],
    certificate: Mapping[str, Any] | None,
) -> None:
    folder.mkdir()
    write_model(folder / MODEL, model, _EXTERNAL_FROM)
    for name, contents in sidecars.items():
        (folder / name).write_bytes(contents)
    _write_json(folder / MANIFEST, manifest)
    if certificate is not None:
        files = {path.name: sha256(path) for path in sorted(folder.glob(f"{MODEL}*"))}
        _write_json(folder / CERTIFICATE, {**certificate, "files": files})


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(dict(content), indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _refuse_own_source(target: Path, model: ir.Model) -> None:
    """Weights may be mapped from the files that would be replaced."""
    inside = target.resolve()
    replaced = (inside, inside.with_name(inside.name + _DATA))
    sources = {Path(v.const_value.path) for v in _weights(model) if isinstance(v.const_value, ir.ExternalTensor)}
    for path in (source.resolve() for source in sources):
        if path in replaced or inside in path.parents:
            raise BadInput(f"{target} holds the weights that are being read; give another output")


def _weights(model: ir.Model) -> Iterator[ir.Value]:
    """Every initializer that holds numbers, those of subgraphs included."""
    for graph in model.graphs():
        for v in graph.initializers.values():
            if v.const_value is not None and v.const_value.dtype != ir.DataType.STRING:
                yield v


def write_model(path: Path, model: ir.Model, external_from: int = _EXTERNAL_FROM) -> None:
    """The model; its larger tensors go one by one into ``<name>.data`` when all of them exceed the limit.

    Absent tensors name that file too, which is then not written, and the others stay in the model.
    """
    clone = model.clone()
    tensors = {v: v.const_value for v in _weights(clone) if v.const_value is not None}
    structure = _place_absent(path, tensors)
    external = not structure and sum(tensor.nbytes for tensor in tensors.values()) > external_from
    with open(path.with_name(path.name + _DATA), "wb") if external else nullcontext() as file:
        for v, tensor in tensors.items():
            if file is not None and tensor.nbytes > _SMALL_BYTES:
                v.const_value = _append(file, path, tensor)
            elif isinstance(tensor, ir.ExternalTensor):  # in the source's weights file, which stays behind
                v.const_value = ir.tensor(tensor.numpy(), name=v.name)
    path.write_bytes(ir.to_proto(clone).SerializeToString())


def _place_absent(path: Path, tensors: Mapping[ir.Value, ir.TensorProtocol]) -> bool:
    """Give absent tensors the places that their numbers would have; returns whether there were any."""
    absent = {v: tensor for v, tensor in tensors.items() if isinstance(tensor, AbsentTensor)}
    end = 0
    for v, tensor in absent.items():
        offset = end + _padding(end, tensor)
        v.const_value = _external(path, offset, tensor)
        end = offset + tensor.nbytes
    return bool(absent)


def _append(file: BinaryIO, path: Path, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
    file.write(b"\0" * _padding(file.tell(), tensor))
    offset = file.tell()
    tensor.tofile(file)  # type: ignore[attr-defined]  # the protocol omits what all of its classes have
    return _external(path, offset, tensor)


def _padding(end: int, tensor: ir.TensorProtocol) -> int:
    """Bytes between the end of one tensor and the start of the next, so that both can be mapped."""
    return -end % (_PAGE if tensor.nbytes >= _PAGE_FROM else _LINE)


def _external(path: Path, offset: int, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        path.name + _DATA,
        offset,
        tensor.nbytes,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=tensor.name or "",
    )


def sha256(path: Path) -> str:
    """The hex digest of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
