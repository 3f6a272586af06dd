"""How a checkpoint recommends to generate: what its generation_config.json, or an older config.json, says of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxsmith.models.json_file import read_json

# Names of Hugging Face's GenerationConfig that a runtime follows; lengths count the prompt, as they do there.
_SETTINGS = (
    *("max_new_tokens", "min_new_tokens", "max_length", "min_length"),
    *("do_sample", "temperature", "top_k", "top_p", "min_p"),
    *("num_beams", "length_penalty", "early_stopping", "num_return_sequences"),
    *("repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens"),
    *("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id"),
    *("forced_bos_token_id", "forced_eos_token_id"),
)


def read_generation(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by name, as they stand in the files; a name that neither file gives a value is left out.

    Raises BadInput for a generation_config.json that cannot be read.
    """
    path = folder / "generation_config.json"
    given = read_json(path, dict) if path.exists() else {}
    return {name: value for name in _SETTINGS if (value := given.get(name, config.get(name))) is not None}
