"""Folders as Hugging Face's optimum writes them and transformers.js reads them: what a file is, by its name.

    model.onnx                                              any model in one file
    encoder_model.onnx                                      the encoder of an encoder-decoder
    decoder_model.onnx, or one with the later steps too:    the first step of a decoder, with that encoder or alone
    decoder_model_merged.onnx

What comes after, as in decoder_model_fp16.onnx, is the same for both. The files may stand in a folder onnx/ beside
config.json and the tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from onnxsmith.errors import BadInput

_MODEL, _ENCODER, _LATER = "model.onnx", "encoder_model.onnx", "decoder_with_past_model.onnx"
_DECODERS = ("decoder_model.onnx", "decoder_model_merged.onnx")
_DECODER = re.compile(r"decoder_model(?:_merged)?(_\w+)?\.onnx")
_INSIDE = "onnx"


@dataclass(frozen=True)
class Exported:
    """What belongs to a model file: ``home`` has its config.json and tokenizer.

    ``is_decoder``: the file has a decoder's first step, with what later steps take among its outputs. ``encoder`` is
    the file of its encoder, where there is one.
    """

    home: Path
    is_decoder: bool = False
    encoder: Path | None = None


def find_file(file: Path) -> Exported | None:
    """What belongs to the file of a decoder; None for a file of any other name."""
    name = _DECODER.fullmatch(file.name)
    if name is None:
        return None
    encoder = file.with_name(f"encoder_model{name[1] or ''}.onnx")
    return Exported(_home(file.parent), True, encoder if encoder.is_file() else None)


def find_folder(folder: Path) -> tuple[Path, Exported] | None:
    """The model file of a folder and what belongs to it; None where there is no .onnx file.

    Raises BadInput where the files are not enough, or which one to take cannot be told.
    """
    at = folder if any(folder.glob("*.onnx")) else folder / _INSIDE
    names = sorted(path.name for path in at.glob("*.onnx"))
    if not names:
        return None
    file = at / _chosen(names, at)
    return file, find_file(file) or Exported(_home(at))


def _chosen(names: Collection[str], folder: Path) -> str:
    decoder = next((name for name in _DECODERS if name in names), None)
    parts = [name for name in (_ENCODER, decoder, _LATER) if name in names]
    if decoder is not None and _MODEL not in names:
        return decoder
    if _MODEL in names and not parts:
        return _MODEL
    if _LATER in names and _MODEL not in names:
        raise BadInput(f"{folder} has {_LATER} and no {_DECODERS[0]}, which has the first step; put it beside it")
    if _ENCODER in names and _MODEL not in names:
        raise BadInput(f"{folder} has {_ENCODER} and no {_DECODERS[0]}; put it beside it, or give the encoder's file")
    if len(names) == 1:
        return next(iter(names))
    raise BadInput(f"{folder} has {', '.join(names)}, and which one to take cannot be told; give the file itself")


def _home(folder: Path) -> Path:
    inside = folder.absolute().name == _INSIDE and not (folder / "config.json").is_file()
    return folder.absolute().parent if inside else folder
