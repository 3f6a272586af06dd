"""Recipes, a TOML file each, and the problems that they set: data that is made here, and what is asked of it."""

from __future__ import annotations

# Where each problem stands, by the name that a recipe calls it.
PROBLEMS = {
    "denoising": "retelling:Denoising",
    "masked-words": "masked_words:MaskedWords",
    "multiple-choice": "understanding:Choices",
    "reports": "retelling:Reports",
    "sentence-pairs": "understanding:Pairs",
    "span-answers": "understanding:Answers",
    "own-text": "own_text:OwnText",
    "support-messages": "support:Support",
    "translation": "translation:Translation",
    "word-vectors": "word_vectors:WordVectors",
}
