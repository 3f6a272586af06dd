"""BART and Marian checkpoints as Hugging Face names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from onnxsmith.errors import BadInput
from onnxsmith.models.bart import BartClassifier, BartConfig, BartGenerator, BartSpanAnswer
from onnxsmith.models.config import class_name, count_labels, read_config
from onnxsmith.models.families.plan import Plan
from onnxsmith.models.names import NameTable
from onnxsmith.models.parts import seq2seq_tasks
from onnxsmith.models.task import ExportTask, TensorSpec, token_inputs

_SIDE = r"(?:model\.)?(encoder|decoder)\."
_LAYER = _SIDE + r"layers\.(\d+)\."
_KIND = r"\.(weight|bias)"
_TOKENS = r"(?:model\.)?shared\.weight|(?:model\.)?(?:encoder|decoder)\.embed_tokens\.weight|lm_head\.weight"
_PARTS = {
    r"self_attn\.q_proj": "attention.query",
    r"self_attn\.k_proj": "attention.key",
    r"self_attn\.v_proj": "attention.value",
    r"self_attn\.out_proj": "attention.output",
    r"self_attn_layer_norm": "attention_norm",
    r"encoder_attn\.q_proj": "cross_attention.query",
    r"encoder_attn\.k_proj": "cross_attention.key",
    r"encoder_attn\.v_proj": "cross_attention.value",
    r"encoder_attn\.out_proj": "cross_attention.output",
    r"encoder_attn_layer_norm": "cross_norm",
    r"fc1": "feed_forward.up",
    r"fc2": "feed_forward.down",
    r"final_layer_norm": "feed_forward_norm",
}

_ROWS = {
    _TOKENS: "token.weight",
    _SIDE + r"embed_positions\.weight": r"\1_embeddings.position.weight",
    _SIDE + r"layernorm_embedding" + _KIND: r"\1_embeddings.norm.\2",
    **{_LAYER + theirs + _KIND: rf"\1.layers.\2.{ours}.\3" for theirs, ours in _PARTS.items()},
}
BART = NameTable({**_ROWS, r"final_logits_bias": "bias"}, unused=(_SIDE + "version",), tied=(_TOKENS,))
# With a head that reads, the same model stands one level deeper.
READER = replace(
    BART,
    rename={
        **{theirs: f"model.{ours}" for theirs, ours in _ROWS.items()},
        r"classification_head\.dense" + _KIND: r"dense.\1",
        r"(?:classification_head\.out_proj|qa_outputs)" + _KIND: r"output.\1",
    },
)
# Sines and cosines are computed, and some checkpoints have them as well.
MARIAN = replace(BART, unused=(*BART.unused, _SIDE + r"embed_positions\.weight"))

_READERS = ("BartForSequenceClassification", "BartForQuestionAnswering")
# The plain model generates too: its head is the embedding table, and only the bias is missing.
_CLASSES = ("", "BartModel", "BartForConditionalGeneration", *_READERS)
_ONE_TABLE = {"tie_word_embeddings": True, "normalize_before": False, "add_final_layer_norm": False}
_BART = _ONE_TABLE | {"static_position_embeddings": False, "normalize_embedding": True}
_MARIAN = _ONE_TABLE | {
    "share_encoder_decoder_embeddings": True,
    "static_position_embeddings": True,
    "normalize_embedding": False,
}


def plan_bart(config: Mapping[str, Any]) -> Plan:
    """A classifier or a finder of spans where the config names one, else a generator.

    Raises BadInput for a config that is none.
    """
    sizes = read_config(BartConfig, config, only=_BART, positions="learned", embedding_norm=True)
    if (head := class_name(config)) not in _CLASSES:
        raise BadInput(f"config.json asks for the head {head!r}; known are {', '.join(filter(None, _CLASSES))}")
    if head in _READERS:
        return _plan_reader(config, sizes, head)
    return Plan(BartGenerator(sizes, bias=head != "BartModel"), BART, _tasks(sizes))


def _plan_reader(config: Mapping[str, Any], sizes: BartConfig, head: str) -> Plan:
    start, limit = _token(config, "decoder_start_token_id"), {"sequence": sizes.max_position_embeddings}
    if head == "BartForQuestionAnswering":
        spans = (TensorSpec(name, "float32", ("batch", "sequence")) for name in ("start_logits", "end_logits"))
        task = ExportTask("answer-span", token_inputs(), tuple(spans), limit)
        return Plan(BartSpanAnswer(sizes, start=start), READER, (task,))
    labels = count_labels({"num_labels": 3, **config})
    task = ExportTask("classify", token_inputs(), (TensorSpec("logits", "float32", ("batch", labels)),), limit)
    return Plan(BartClassifier(sizes, labels, start=start, end=_token(config, "eos_token_id")), READER, (task,))


def _tasks(sizes: BartConfig) -> tuple[ExportTask, ...]:
    return seq2seq_tasks(sizes.vocab_size, sizes.d_model, sizes.cache, sizes.max_position_embeddings)


def plan_marian(config: Mapping[str, Any]) -> Plan:
    """A translator. Raises BadInput for a config that is none, or has a vocabulary for each side."""
    one = _MARIAN | {"decoder_vocab_size": config.get("vocab_size")}
    sizes = read_config(BartConfig, config, only=one, positions="sinusoidal", interleaved=False, embedding_norm=False)
    return Plan(BartGenerator(sizes), MARIAN, _tasks(sizes))


def _token(config: Mapping[str, Any], name: str) -> int:
    """A token id of a BART config, 2 when it names none."""
    value = config.get(name, 2)
    if type(value) is not int or value < 0:
        raise BadInput(f"config.json has {name} = {value!r}; a token id was expected")
    return value
