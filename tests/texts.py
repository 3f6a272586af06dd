"""Texts of many kinds and small tokenizers trained on them, in the files of each kind of checkpoint."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Tokenizer, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE, WordPiece

TEXTS = (
    "Hello world, hello tokenizers!",
    "The quick brown fox jumps over the lazy dog's back.",
    "  leading, trailing and   repeated spaces  ",
    "Crème brûlée à la façon d'Élodie, naïve coöperation",
    "Ünïcödé in decomposed form: e\u0301 o\u0308",
    "東京で寿司を食べました。 我爱北京",
    "Привет, мир! Γειά σου Κόσμε",
    "3.14159 and 1,000,000 or 0x1F600; 50% of $20",
    "snake_case camelCase SHOUTING don't we'll I've",
    "smile 😀 and family 👨\u200d👩\u200d👧 and flag 🇫🇷",
    "tabs\tand\nnew lines\r\nand a no-break\u00a0space",
    "pneumonoultramicroscopicsilicovolcanoconiosis" * 3,
    "unseen ☃ symbols ⅷ and ﬁ ligatures",
    "a special [MASK] or <mask> or <|endoftext|> within",
    "",
)
PAIRS = tuple(zip(TEXTS[:-2], TEXTS[1:-1], strict=True))  # transformers take a pair with an empty text for one text

BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
GPT2_TOKENS = ("<|endoftext|>",)


def word_piece(folder: Path, *, lower: bool = True) -> Path:
    """A folder with the vocab.txt of a small BERT tokenizer."""
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=list(BERT_TOKENS), show_progress=False)
    tokenizer.train_from_iterator(TEXTS[:12], trainer)
    folder.mkdir()
    tokenizer.model.save(str(folder))
    return folder


def byte_level(folder: Path, special: tuple[str, ...]) -> Path:
    """A folder with the vocab.json and merges.txt of a small byte-level BPE tokenizer."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    folder.mkdir()
    tokenizer.model.save(str(folder))
    return folder


def sentence_pieces(path: Path, **options: Any) -> Path:
    """A small SentencePiece model with characters that it does not know; ``options`` are the trainer's."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text.replace("\n", " ") for text in TEXTS if text] * 3),
        model_writer=made,
        vocab_size=300,
        hard_vocab_limit=False,
        character_coverage=0.98,
        minloglevel=2,
        bos_id=-1,
        **options,
    )
    path.write_bytes(made.getvalue())
    return path
