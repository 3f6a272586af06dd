"""Tokenizers from SentencePiece models of the Unigram kind: T5's spiece.model, Marian's source.spm with vocab.json.

The file is a protocol buffer, of which only the fields below are read; their numbers are those of
https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram

from onnxsmith.errors import BadInput

_FIELDS: Mapping[str, tuple[tuple[str, int, str], ...]] = {
    "Piece": (("piece", 1, "STRING"), ("score", 2, "FLOAT"), ("type", 3, "INT32")),
    "Trainer": (("model_type", 3, "INT32"), ("unk_id", 40, "INT32")),
    "Normalizer": (("precompiled_charsmap", 2, "BYTES"),),
    "Model": (("pieces", 1, "Piece"), ("trainer", 2, "Trainer"), ("normalizer", 3, "Normalizer")),
}
_UNIGRAM, _BYTE = 1, 6
_MAX_SENTINELS = 10_000
_NEVER = -1e6  # the score of a piece that is taken only where nothing else fits


def t5_tokenizer(path: Path, eos: str, extra_ids: object) -> Tokenizer:
    """T5's: the pieces, then ``extra_ids`` sentinels of which <extra_id_0> is the last; texts end with ``eos``.

    Raises BadInput when the file cannot be read, is no Unigram model, or lacks ``eos``; or ``extra_ids`` is no number.
    """
    if type(extra_ids) is not int or not 0 <= extra_ids <= _MAX_SENTINELS:
        raise BadInput(f"extra_ids is {extra_ids!r}; a number of sentinels up to {_MAX_SENTINELS} was expected")
    model = _read(path)
    pieces = [(one.piece, one.score) for one in model.pieces]
    sentinels = [f"<extra_id_{i}>" for i in reversed(range(extra_ids))]
    pieces += [(sentinel, 0.0) for sentinel in sentinels]
    tokenizer = _unigram(path, pieces, model.trainer.unk_id, model.normalizer.precompiled_charsmap)
    tokenizer.post_processor = _template(path, tokenizer, eos, ["$A", eos, "$B", eos])
    tokenizer.add_special_tokens([AddedToken(sentinel, normalized=False) for sentinel in sentinels])
    return tokenizer


def marian_tokenizer(path: Path, vocabulary: Mapping[str, int], eos: str, unk: str) -> Tokenizer:
    """Marian's: text is cut as source.spm says, and ids are those of vocab.json, which holds both languages' pieces.

    Language codes such as ``>>de<<`` are tokens. Texts end with ``eos``. Raises BadInput as ``t5_tokenizer`` does, or
    when the ids have gaps.
    """
    model = _read(path)
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    if unk not in vocabulary or vocabulary[tokens[-1]] != len(tokens) - 1:
        raise BadInput(f"{path.parent / 'vocab.json'} lacks {unk!r} or has gaps between its ids; fetch it again")
    scores = {one.piece: one.score for one in model.pieces}
    pieces = [(token, scores.get(token, _NEVER)) for token in tokens]
    tokenizer = _unigram(path, pieces, vocabulary[unk], model.normalizer.precompiled_charsmap)
    tokenizer.post_processor = _template(path, tokenizer, eos, ["$A", "$B", eos])
    codes = [token for token in tokens if token.startswith(">>") and token.endswith("<<")]
    tokenizer.add_tokens([AddedToken(code, normalized=False) for code in codes])
    return tokenizer


def _unigram(path: Path, pieces: list[tuple[str, float]], unk_id: int, charsmap: bytes) -> Tokenizer:
    try:
        tokenizer = Tokenizer(Unigram(pieces, unk_id))
        if charsmap:
            tokenizer.normalizer = normalizers.Precompiled(charsmap)
    except Exception as e:  # the library raises plain Exception
        raise BadInput(f"{path} is damaged ({e}); fetch it again") from None
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return tokenizer


def _template(path: Path, tokenizer: Tokenizer, eos: str, pair: list[str]) -> processors.TemplateProcessing:
    id = tokenizer.token_to_id(eos)
    if id is None:
        raise BadInput(f"{path} lacks the eos token {eos!r}; fetch it again")
    return processors.TemplateProcessing(single=["$A", eos], pair=pair, special_tokens=[(eos, id)])


def _read(path: Path) -> Any:
    """The file as a message "Model" of the fields above."""
    model = _message()()
    try:
        model.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as e:
        raise BadInput(f"{path} is no SentencePiece model that can be read ({e}); fetch it again") from None
    if not model.pieces:
        raise BadInput(f"{path} is no SentencePiece model, it has no pieces; fetch it again")
    if model.trainer.model_type not in (0, _UNIGRAM) or any(one.type == _BYTE for one in model.pieces):
        raise BadInput(f"{path} is no plain Unigram model; give the checkpoint a tokenizer.json")
    return model


@lru_cache(1)
def _message() -> Any:
    """The class of the message "Model"."""
    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="onnxsmith/sentencepiece.proto", package="onnxsmith")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            entry = message.field.add(name=field, number=number, label=field_type.LABEL_OPTIONAL)
            if kind in _FIELDS:
                entry.type, entry.type_name = field_type.TYPE_MESSAGE, f".onnxsmith.{kind}"
            else:
                entry.type = field_type.Type.Value(f"TYPE_{kind}")
    file.message_type[-1].field[0].label = field_type.LABEL_REPEATED  # the pieces
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("onnxsmith.Model"))
