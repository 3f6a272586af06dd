"""Named configurations, built with random weights: for planning, tests and benchmarks."""

from __future__ import annotations

import torch

from onnxsmith.errors import BadInput
from onnxsmith.models.bert import Bert, BertConfig, SentenceEmbedder
from onnxsmith.models.checkpoint import Checkpoint
from onnxsmith.models.task import encoder_task

CONFIGS = {
    "bert-base": BertConfig(),
    "bert-large": BertConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096),
    "bert-tiny": BertConfig(
        vocab_size=128,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    ),
    "minilm-l6": BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
}
ARCHITECTURES = ("bert",)


def build(name: str, seed: int = 0) -> Checkpoint:
    """A sentence embedder of that size with seeded random weights. Raises BadInput for an unknown name."""
    if name not in CONFIGS:
        raise BadInput(f"no model {name!r}; configs are {', '.join(CONFIGS)}, or give package.module:factory")
    config = CONFIGS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = SentenceEmbedder(Bert(config)).eval()
    task = encoder_task(config.hidden_size, config.max_position_embeddings, pooled=True)
    return Checkpoint(module, task, vars(config), max_length=config.max_position_embeddings)
