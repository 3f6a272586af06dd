"""The tasks of language models and encoder-decoders: the whole, and the parts that a runtime calls with a cache.

Shapes: B batch, H heads, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from onnxsmith.models.task import ExportTask, TensorSpec, decoder_task, token_inputs

PAST, _ALL, _SOURCE = "past_sequence", "past_sequence + sequence", "encoder_sequence"
_SOURCE_MASK = TensorSpec("encoder_attention_mask", "int64", ("batch", _SOURCE))


@dataclass(frozen=True)
class CacheShape:
    """What a decoder keeps of a text: keys and values of so many layers, heads and features of a head."""

    layers: int
    heads: int
    head_size: int

    def specs(self, prefix: str, length: str, *, side: str = "") -> tuple[TensorSpec, ...]:
        """Keys and values [B, H, ``length``, D] of each layer in turn, named as Hugging Face's optimum does.

        ``prefix`` is "past_key_values" or "present", ``side`` ".decoder" or ".encoder" where there are two.
        """
        dims = ("batch", self.heads, length, self.head_size)
        names = (f"{prefix}.{i}{side}.{part}" for i in range(self.layers) for part in ("key", "value"))
        return tuple(TensorSpec(name, "float32", dims) for name in names)


def language_tasks(vocab_size: int, positions: int, cache: CacheShape) -> tuple[ExportTask, ...]:
    """A language model without its cache ("causal-lm"), and with it ("causal-lm-with-past")."""
    plain = decoder_task("causal-lm", vocab_size, positions)
    with_past = ExportTask(
        "causal-lm-with-past",
        (*_step_inputs(), *cache.specs("past_key_values", PAST)),
        (*plain.outputs, *cache.specs("present", _ALL)),
        _bounds(positions, "sequence", _ALL),
        "step",
    )
    return plain, with_past


def _step_inputs() -> tuple[TensorSpec, ...]:
    """Ids of the new tokens, and a mask over the earlier ones too."""
    ids, mask = token_inputs()
    return ids, replace(mask, dims=("batch", _ALL))


def seq2seq_tasks(
    vocab_size: int, hidden_size: int, cache: CacheShape, positions: int | None = None
) -> tuple[ExportTask, ...]:
    """An encoder-decoder: the whole ("seq2seq"), and its parts.

    "encoder" gives hidden states, from which "decoder" gives logits without a cache. For a runtime,
    "encoder-with-present" gives keys and values of the source once, which "decoder-with-past" reads at every step.
    ``positions`` limits the tokens of either side.
    """
    return (
        _whole_task(vocab_size, positions),
        text_encoder_task(hidden_size, positions),
        _decoder_task(vocab_size, hidden_size, positions),
        _source_task(cache, positions),
        _step_task(vocab_size, cache, positions),
    )


def _whole_task(vocab_size: int, positions: int | None) -> ExportTask:
    target = ("batch", "decoder_sequence")
    decoder = tuple(TensorSpec(f"decoder_{spec.name}", spec.dtype, target) for spec in token_inputs())
    logits = TensorSpec("logits", "float32", (*target, vocab_size))
    return ExportTask(
        "seq2seq", (*token_inputs(), *decoder), (logits,), _bounds(positions, "sequence", "decoder_sequence")
    )


def text_encoder_task(hidden_size: int, positions: int | None) -> ExportTask:
    """The encoder alone: source ids to hidden states [B, S, hidden_size]."""
    hidden = TensorSpec("last_hidden_state", "float32", ("batch", "sequence", hidden_size))
    return ExportTask("encoder", token_inputs(), (hidden,), _bounds(positions, "sequence"), "encode")


def _decoder_task(vocab_size: int, hidden_size: int, positions: int | None) -> ExportTask:
    memory = TensorSpec("encoder_hidden_states", "float32", ("batch", _SOURCE, hidden_size))
    inputs = (*token_inputs(), _SOURCE_MASK, memory)
    return ExportTask("decoder", inputs, (_logits(vocab_size),), _bounds(positions, "sequence", _SOURCE), "read")


def _source_task(cache: CacheShape, positions: int | None) -> ExportTask:
    outputs = cache.specs("present", "sequence", side=".encoder")
    return ExportTask("encoder-with-present", token_inputs(), outputs, _bounds(positions, "sequence"), "source")


def _step_task(vocab_size: int, cache: CacheShape, positions: int | None) -> ExportTask:
    own = cache.specs("past_key_values", PAST, side=".decoder")
    cross = cache.specs("past_key_values", _SOURCE, side=".encoder")
    outputs = (_logits(vocab_size), *cache.specs("present", _ALL, side=".decoder"))
    bounds = _bounds(positions, "sequence", _ALL, _SOURCE)
    return ExportTask("decoder-with-past", (*_step_inputs(), _SOURCE_MASK, *own, *cross), outputs, bounds, "step")


def _logits(vocab_size: int) -> TensorSpec:
    return TensorSpec("logits", "float32", ("batch", "sequence", vocab_size))


def _bounds(positions: int | None, *names: str) -> dict[str, int]:
    return dict.fromkeys(names, positions) if positions else {}
