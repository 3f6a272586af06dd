"""BERT, RoBERTa and DistilBERT checkpoints: one encoder and the same heads, under three sets of names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from onnxsmith.errors import BadInput
from onnxsmith.models import heads
from onnxsmith.models.bert import Bert, BertConfig
from onnxsmith.models.config import class_name, count_labels, read_config
from onnxsmith.models.families.plan import Plan
from onnxsmith.models.names import NameTable
from onnxsmith.models.task import ExportTask, TensorSpec, encoder_task, token_inputs

_Rows = dict[str, str | tuple[str, ...]]
_KIND = r"\.(weight|bias)"
_ROOT = r"(?:bert\.|roberta\.)?"
_LAYER = _ROOT + r"encoder\.layer\.(\d+)\."
_ENCODER: _Rows = {
    _ROOT + r"embeddings\.word_embeddings\.weight": r"embeddings.token.weight",
    _ROOT + r"embeddings\.position_embeddings\.weight": r"embeddings.position.weight",
    _ROOT + r"embeddings\.token_type_embeddings\.weight": r"embeddings.segment.weight",
    _ROOT + r"embeddings\.LayerNorm" + _KIND: r"embeddings.norm.\1",
    _LAYER + r"attention\.self\.(query|key|value)" + _KIND: r"layers.\1.attention.\2.\3",
    _LAYER + r"attention\.output\.dense" + _KIND: r"layers.\1.attention.output.\2",
    _LAYER + r"attention\.output\.LayerNorm" + _KIND: r"layers.\1.attention_norm.\2",
    _LAYER + r"intermediate\.dense" + _KIND: r"layers.\1.feed_forward.up.\2",
    _LAYER + r"output\.dense" + _KIND: r"layers.\1.feed_forward.down.\2",
    _LAYER + r"output\.LayerNorm" + _KIND: r"layers.\1.feed_forward_norm.\2",
}
_DISTIL = r"(?:distilbert\.)?"
_BLOCK = _DISTIL + r"transformer\.layer\.(\d+)\."
_DISTIL_ENCODER: _Rows = {
    _DISTIL + r"embeddings\.word_embeddings\.weight": r"embeddings.token.weight",
    _DISTIL + r"embeddings\.position_embeddings\.weight": r"embeddings.position.weight",
    _DISTIL + r"embeddings\.LayerNorm" + _KIND: r"embeddings.norm.\1",
    _BLOCK + r"attention\.q_lin" + _KIND: r"layers.\1.attention.query.\2",
    _BLOCK + r"attention\.k_lin" + _KIND: r"layers.\1.attention.key.\2",
    _BLOCK + r"attention\.v_lin" + _KIND: r"layers.\1.attention.value.\2",
    _BLOCK + r"attention\.out_lin" + _KIND: r"layers.\1.attention.output.\2",
    _BLOCK + r"sa_layer_norm" + _KIND: r"layers.\1.attention_norm.\2",
    _BLOCK + r"ffn\.lin1" + _KIND: r"layers.\1.feed_forward.up.\2",
    _BLOCK + r"ffn\.lin2" + _KIND: r"layers.\1.feed_forward.down.\2",
    _BLOCK + r"output_layer_norm" + _KIND: r"layers.\1.feed_forward_norm.\2",
}
_POOLED: _Rows = {r"(?:bert|roberta)\.pooler\.dense" + _KIND: r"dense.\1"}
_CLASSIFIER: _Rows = {
    **_POOLED,
    r"(?:classifier\.dense|pre_classifier)" + _KIND: r"dense.\1",
    r"classifier(?:\.out_proj)?" + _KIND: r"output.\1",
}
_HEADS: dict[str, _Rows] = {
    "MaskedLM": {
        r"(?:cls\.predictions\.transform|lm_head)\.dense" + _KIND: r"dense.\1",
        r"vocab_transform" + _KIND: r"dense.\1",
        r"(?:cls\.predictions\.transform\.LayerNorm|lm_head\.layer_norm|vocab_layer_norm)" + _KIND: r"norm.\1",
        r"(?:cls\.predictions|lm_head|vocab_projector)\.bias": r"bias",
    },
    "NextSentencePrediction": {**_POOLED, r"cls\.seq_relationship" + _KIND: r"output.\1"},
    "SequenceClassification": _CLASSIFIER,
    "MultipleChoice": _CLASSIFIER,
    "QuestionAnswering": {r"qa_outputs" + _KIND: r"output.\1"},
}
_TIED = (r"cls\.predictions\.decoder\..*", r"lm_head\.decoder\..*", r"vocab_projector\.weight")
_BUFFER = _ROOT + r"embeddings\.position_ids"  # only 0, 1, 2, ...
_POOLER = _ROOT + r"pooler\..*"


def plan(config: Mapping[str, Any]) -> Plan:
    """The encoder of a BERT, with the head that ``architectures`` names. Raises BadInput for another variant."""
    only = {"position_embedding_type": "absolute", "is_decoder": False}
    return _plan(config, read_config(BertConfig, config, only=only, position_offset=0), _ENCODER, "tanh")


def plan_roberta(config: Mapping[str, Any]) -> Plan:
    """A RoBERTa: Liu et al. 2019, arXiv:1907.11692. Its positions start after the padding token's id."""
    only = {"position_embedding_type": "absolute", "is_decoder": False}
    offset = config.get("pad_token_id", 1)
    if type(offset) is not int or offset < 0:
        raise BadInput(f"config.json has pad_token_id = {offset!r}; a RoBERTa needs one of 0 or more")
    sizes = read_config(BertConfig, config, only=only, position_offset=offset + 1)
    if sizes.length < 1:
        raise BadInput(f"config.json has max_position_embeddings = {sizes.max_position_embeddings}; no place is left")
    return _plan(config, sizes, _ENCODER, "tanh", masked_lm_act="gelu")


def plan_distilbert(config: Mapping[str, Any]) -> Plan:
    """A DistilBERT: Sanh et al. 2019, arXiv:1910.01108. It has no segments."""
    names = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
    }
    sizes = read_config(BertConfig, config, names, type_vocab_size=0, layer_norm_eps=1e-12, position_offset=0)
    return _plan(config, sizes, _DISTIL_ENCODER, "relu")


def _plan(
    config: Mapping[str, Any],
    sizes: BertConfig,
    encoder: _Rows,
    act: str,
    masked_lm_act: str | None = None,
) -> Plan:
    """``act`` stands in classification heads, ``masked_lm_act`` (else the encoder's own) in the masked LM's."""
    head = _head_of(config)
    if head is None:
        task = encoder_task(sizes.hidden_size, sizes.length, segments=sizes.type_vocab_size > 1)
        return Plan(Bert(sizes), NameTable(encoder, _unused({})), (task,))
    if head == "MaskedLM" and config.get("tie_word_embeddings") is False:
        raise BadInput("config.json unties the masked LM's output from the embeddings; only tied ones are supported")
    makers: dict[str, Callable[[Bert], nn.Module]] = {
        "MaskedLM": lambda bert: heads.MaskedLM(bert, masked_lm_act or sizes.hidden_act),
        "NextSentencePrediction": lambda bert: heads.Classifier(bert, 2, act),
        "SequenceClassification": lambda bert: heads.Classifier(bert, count_labels(config), act),
        "MultipleChoice": lambda bert: heads.MultipleChoice(bert, act),
        "QuestionAnswering": heads.SpanAnswer,
    }
    inner = {pattern: f"encoder.{name}" for pattern, name in encoder.items()}
    names = NameTable({**inner, **_HEADS[head]}, _unused(_HEADS[head]))
    return Plan(makers[head](Bert(sizes)), names, (_task(head, config, sizes),))


def _unused(own: _Rows) -> tuple[str, ...]:
    """Other heads that the checkpoint may carry, and what repeats or counts."""
    others = [pattern for rows in _HEADS.values() for pattern in rows if pattern not in own]
    return (_BUFFER, *_TIED, *others, *([] if _POOLED.keys() <= own.keys() else [_POOLER]))


def _head_of(config: Mapping[str, Any]) -> str | None:
    """What comes after "For" in the first of ``architectures``; None for the encoder alone. Raises BadInput."""
    _, found, head = class_name(config).partition("For")
    if not found:
        return None
    head = "MaskedLM" if head == "PreTraining" else head  # which has a next-sentence head besides
    if head not in _HEADS:
        raise BadInput(f"config.json asks for the head {head!r}; known are {', '.join(_HEADS)}")
    return head


def _task(head: str, config: Mapping[str, Any], sizes: BertConfig) -> ExportTask:
    dims = ("batch", "choices", "sequence") if head == "MultipleChoice" else ("batch", "sequence")
    inputs = token_inputs(*(["token_type_ids"] if sizes.type_vocab_size > 1 else []), dims=dims)
    labels = 2 if head == "NextSentencePrediction" else count_labels(config)
    per_text, per_token = ("batch", labels), ("batch", "sequence")
    found: dict[str, tuple[str, dict[str, tuple[str | int, ...]]]] = {
        "MaskedLM": ("fill-mask", {"logits": (*per_token, sizes.vocab_size)}),
        "NextSentencePrediction": ("next-sentence", {"logits": per_text}),
        "SequenceClassification": ("classify", {"logits": per_text}),
        "MultipleChoice": ("multiple-choice", {"logits": ("batch", "choices")}),
        "QuestionAnswering": ("answer-span", {"start_logits": per_token, "end_logits": per_token}),
    }
    name, outputs = found[head]
    specs = tuple(TensorSpec(output, "float32", shape) for output, shape in outputs.items())
    return ExportTask(name, inputs, specs, {"sequence": sizes.length})
