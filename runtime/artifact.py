"""What onnxsmith reads from disk: an artifact folder or a plain .onnx file. Nothing heavy is imported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxsmith.errors import BadInput
from onnxsmith.runtime.exported import Exported, find_file, find_folder

MANIFEST = "onnxsmith.json"
MODEL = "model.onnx"
CERTIFICATE = "certificate.json"
FORMAT = 1
ABSENT = "absent"  # of the manifest's "weights", where the model is a structure without them
ENCODER, DECODER = "encoder", "decoder"  # the artifacts that a folder of an encoder-decoder's two parts has
DECODE, PREFILL = "decode", "prefill"  # those of a decoder that is split
PARTS = (ENCODER, DECODER, DECODE, PREFILL)
SIDECARS = ("tokenizer", "chat_template")  # the manifest's keys that name a file beside it

_TYPES = {"inputs": list, "outputs": list, "bounds": dict, "session": dict, "special_tokens": dict, "cache": dict}


@dataclass(frozen=True)
class Artifact:
    """A model on disk and what is recorded about it (``manifest`` is empty for a plain .onnx file).

    ``source`` is the encoder's artifact, where this is the decoder of a folder that has both; ``prefill`` is what reads
    the prompts of a decoder that is split, where this makes the tokens. ``exported`` is what belongs to the model in a
    folder of another tool, and ``texts`` are sidecars by file name that are no files of ours.
    """

    model: Path
    manifest: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    source: Artifact | None = None
    prefill: Artifact | None = None
    exported: Exported | None = None
    texts: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def is_structure(self) -> bool:
        """Whether the manifest says that the weights are absent."""
        return self.manifest.get("weights") == ABSENT

    def sidecar(self, key: str) -> Path | None:
        """The file that the manifest names under ``key`` (such as "tokenizer"); None when it names none.

        Raises:
            BadInput: The file is missing or lies outside the artifact's folder.
        """
        name = self.manifest.get(key)
        return None if name is None or self.folder is None else self._inside(self.folder, key, str(name))

    @property
    def files(self) -> list[Path]:
        """The model's files, weights beside them left out: an encoder may stand in one of its own."""
        return [self.model, *([self.exported.encoder] if self.exported and self.exported.encoder else [])]

    @property
    def source_model(self) -> Path | None:
        """The graph that reads an encoder-decoder's source; None where there is none. Raises BadInput as above."""
        if self.source is not None:
            return self.source.model
        cross = self.manifest.get("cache", {}).get("cross")
        if not isinstance(cross, dict) or self.folder is None or cross.get("model") is None:
            return None
        return self._inside(self.folder, "source model", str(cross.get("model")))

    @staticmethod
    def _inside(folder: Path, what: str, name: str) -> Path:
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise BadInput(f"{folder / MANIFEST}: {what} {name!r} leaves the artifact's folder; move it there")
        if not path.is_file():
            raise BadInput(f"{path}: the {what} that {MANIFEST} names is missing; export the model again")
        return path

    def sidecars(self) -> dict[str, bytes]:
        """The contents of every sidecar by file name. Raises BadInput as ``sidecar`` does."""
        paths = (self.sidecar(key) for key in SIDECARS)
        return {**{path.name: path.read_bytes() for path in paths if path is not None}, **self.texts}


def open_artifact(path: str | Path) -> Artifact:
    """Find the model and manifest at ``path``: an artifact folder, its model file, or any other .onnx file.

    A folder with two artifacts, encoder/ and decoder/, is the decoder with its source; one with decode/ and prefill/ is
    the first with the second. Of a folder without a manifest it is the model that its files' names tell.

    Raises:
        BadInput: There is nothing at the path, no model in the folder, or the manifest cannot be read; or a folder
            without one whose model cannot be told.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise BadInput(f"{path}: no such file or folder; expected an .onnx file or an onnxsmith artifact folder")
    if not path.is_file():
        raise BadInput(f"{path}: not a regular file; expected an .onnx file or an onnxsmith artifact folder")
    if path.name == MODEL and (path.parent / MANIFEST).is_file():
        return _open_folder(path.parent)
    return Artifact(path, exported=find_file(path))


def _open_folder(folder: Path) -> Artifact:
    if not (folder / MANIFEST).is_file() and (folder / DECODER / MANIFEST).is_file():
        return replace(_open_folder(folder / DECODER), source=_open_folder(folder / ENCODER))
    if not (folder / MANIFEST).is_file() and (folder / DECODE / MANIFEST).is_file():
        return _split(_open_folder(folder / DECODE), _open_folder(folder / PREFILL))
    if not (folder / MANIFEST).is_file():
        return _open_exported(folder)
    if not (folder / MODEL).is_file():
        raise BadInput(f"{folder}: no {MODEL} in this artifact; export or optimize the model again")
    return Artifact(folder / MODEL, _read_manifest(folder / MANIFEST), folder)


def _open_exported(folder: Path) -> Artifact:
    found = find_folder(folder)
    if found is None:
        told = "give an onnxsmith artifact, a folder with a model of optimum, or the .onnx file itself"
        raise BadInput(f"{folder}: no {MANIFEST} and no .onnx file in this folder; {told}")
    return Artifact(found[0], exported=found[1])


def _split(decode: Artifact, prefill: Artifact) -> Artifact:
    if decode.manifest.get("cache") != prefill.manifest.get("cache"):
        raise BadInput(f"{decode.folder} and {PREFILL} beside it have two kinds of caches; split the model again")
    return replace(decode, prefill=prefill)


def _read_manifest(path: Path) -> Mapping[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, OSError, RecursionError) as error:
        raise BadInput(f"{path}: not readable as JSON ({error}); export or optimize the model again") from error
    if not isinstance(manifest, dict):
        raise BadInput(f"{path}: expected a JSON object, found {type(manifest).__name__}; write the artifact again")
    if manifest.get("format") != FORMAT:
        found = manifest.get("format")
        raise BadInput(f"{path}: expected format {FORMAT}, found {found!r}; write the artifact with this onnxsmith")
    for key, expected in _TYPES.items():
        if not isinstance(manifest.get(key, expected()), expected):
            raise BadInput(f"{path}: {key!r} must be a JSON {expected.__name__}; write the artifact again")
    counts = {"vocab_size": manifest.get("vocab_size") or 0, **manifest.get("special_tokens", {})}
    if wrong := [key for key, value in counts.items() if type(value) is not int or value < 0]:
        raise BadInput(f"{path}: {wrong[0]!r} must be a whole number; write the artifact again")
    return manifest
