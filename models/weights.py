"""The weights of a Hugging Face folder: one safetensors file or shards with an index; pickles only when allowed."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from onnxsmith.errors import BadInput
from onnxsmith.models.json_file import read_json
from onnxsmith.models.names import NameTable, Source

WEIGHTS = "model.safetensors"
_PICKLE = "pytorch_model.bin"
_PICKLES = (_PICKLE, f"{_PICKLE}.index.json", "model.pt", "model.pth")


def find_weights(folder: Path, *, allow_pickle: bool = False) -> tuple[Path, ...]:
    """The files that hold the weights.

    Raises BadInput when there are none, an index is broken or names a missing shard, or there are only pickles and
    ``allow_pickle`` is off.
    """
    for name in (WEIGHTS, _PICKLE) if allow_pickle else (WEIGHTS,):
        if (folder / name).exists():
            return (folder / name,)
        if (folder / f"{name}.index.json").exists():
            return _shards(folder / f"{name}.index.json")
    pickled = next((name for name in _PICKLES if (folder / name).exists()), None)
    hint = f"{pickled} is a pickle, which can run code: convert it to safetensors, or pass --allow-pickle"
    raise BadInput(f"{folder} has no {WEIGHTS}; {hint if pickled else 'fetch it'}")


def _shards(index: Path) -> tuple[Path, ...]:
    names = read_json(index, dict).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(n, str) and Path(n).name == n for n in names.values()):
        raise BadInput(f"{index} has no weight_map of file names; fetch it again")
    paths = [index.parent / name for name in sorted(set(names.values()))]
    if missing := [path.name for path in paths if not path.exists()]:
        raise BadInput(f"{index} names {len(missing)} missing shards, first {missing[0]}; fetch them")
    if not paths:
        raise BadInput(f"{index} names no shard; fetch it again")
    return tuple(paths)


def load_weights(module: nn.Module, paths: tuple[Path, ...], table: NameTable) -> None:
    """Fill a module that lives on the meta device with memory-mapped tensors.

    Raises BadInput for a damaged file, and for a tensor that is missing, extra, repeated or of another shape.
    """
    tensors: dict[str, Tensor] = {}
    for path in paths:
        found = _read(path)
        if repeated := tensors.keys() & found.keys():
            raise BadInput(f"{path} repeats tensor {min(repeated)!r} of another shard; fetch it again")
        tensors |= found
    module.load_state_dict(_matched(module.state_dict(), tensors, table), assign=True)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (SafetensorError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as e:
        reason = next(iter(str(e).splitlines()), type(e).__name__)
        raise BadInput(f"{path} is damaged or cut short ({reason}); fetch it again") from None
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise BadInput(f"{path} holds no table of tensors; save the model's state_dict()")
    return found


def _matched(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], table: NameTable) -> dict[str, Tensor]:
    sources = table.ours(tensors)
    missing = sorted(expected.keys() - sources.keys())
    extra = sorted(sources.keys() - expected.keys())
    if missing:
        raise BadInput(f"the checkpoint lacks {len(missing)} tensors, first {missing[0]!r}; check config.json")
    if extra:
        first = sources[extra[0]].name
        raise BadInput(f"the checkpoint has {len(extra)} tensors too many, first {first!r}; check config.json")
    return {name: _fitting(expected[name], source, tensors) for name, source in sources.items()}


def _fitting(expected: Tensor, source: Source, tensors: Mapping[str, Tensor]) -> Tensor:
    whole = list(tensors[source.name].shape)
    found = source.of(tensors) if not source.transposed or len(whole) == 2 else tensors[source.name]
    if found.shape != expected.shape:
        wanted = list(expected.shape)
        part = f", part {source.index + 1} of {source.parts}" if source.parts > 1 else ""
        raise BadInput(f"tensor {source.name!r}{part} has shape {list(found.shape)}; config.json asks for {wanted}")
    return found.to(expected.dtype)
