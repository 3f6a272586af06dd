"""The Transformer beside PyTorch's, and encoder-decoders by name: their sizes, and the small ones compiled."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from onnxsmith.compiler.export import export
from onnxsmith.compiler.optimize import optimize
from onnxsmith.models import registry
from onnxsmith.models.blocks import DecoderLayer, Layer
from onnxsmith.models.layers import Attention
from onnxsmith.models.transformer import Transformer, TransformerConfig
from tests.parity import LIMIT, batches, randomized, relative_rms

SIZES = {"d_model": 24, "layers": 2, "heads": 4, "d_ff": 40}


def attention(ours: Attention) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(ours.query.in_features, ours.heads, batch_first=True)
    inputs = (ours.query, ours.key, ours.value)
    theirs.in_proj_weight = nn.Parameter(torch.cat([linear.weight for linear in inputs]))
    theirs.in_proj_bias = nn.Parameter(torch.cat([linear.bias for linear in inputs]))
    theirs.out_proj.load_state_dict(ours.output.state_dict())
    return theirs


def torch_layer(ours: Layer, heads: int) -> nn.Module:
    """PyTorch's layer with the same weights."""
    width, inner = ours.feed_forward.up.in_features, ours.feed_forward.up.out_features
    decodes = isinstance(ours, DecoderLayer)
    make = nn.TransformerDecoderLayer if decodes else nn.TransformerEncoderLayer
    theirs = make(width, heads, inner, dropout=0, batch_first=True, norm_first=ours.pre_norm)
    theirs.self_attn = attention(ours.attention)
    theirs.linear1, theirs.linear2 = ours.feed_forward.up, ours.feed_forward.down
    theirs.norm1, theirs.norm2 = ours.attention_norm, ours.feed_forward_norm
    if isinstance(ours, DecoderLayer):
        theirs.multihead_attn = attention(ours.cross_attention)
        theirs.norm2, theirs.norm3 = ours.cross_norm, ours.feed_forward_norm
    return theirs


def torch_transformer(ours: Transformer) -> nn.Transformer:
    heads = ours.config.heads
    made = nn.Transformer(ours.config.d_model, heads, 1, 1, batch_first=True)
    for theirs, stack in ((made.encoder, ours.encoder), (made.decoder, ours.decoder)):
        theirs.layers = nn.ModuleList(torch_layer(layer, heads) for layer in stack.layers)
        theirs.norm = stack.norm  # which PyTorch's own has after post-norm layers too
    return made.eval()


def embedded(ours: Transformer, ids: Tensor) -> Tensor:
    """Section 3.4 and 3.5 of the paper: [1, S] -> [1, S, E]"""
    width = ours.config.d_model
    table = torch.zeros(ids.shape[1], width)
    for place in range(ids.shape[1]):
        for i in range(0, width, 2):
            table[place, i] = math.sin(place / 10000 ** (i / width))
            table[place, i + 1] = math.cos(place / 10000 ** (i / width))
    return ours.token(ids) * math.sqrt(width) + table


@pytest.mark.parametrize("pre_norm", [False, True])
def test_logits(pre_norm: bool) -> None:
    ours = randomized(Transformer(TransformerConfig(vocab_size=64, pre_norm=pre_norm, **SIZES)))
    theirs = torch_transformer(ours)
    pairs = zip(batches(64, lengths=(9, 5, 1)), batches(64, lengths=(7, 1, 4)), strict=True)
    for source, target in pairs:
        with torch.no_grad():
            logits = ours(source.input_ids, source.attention_mask, target.input_ids, target.attention_mask)
            for i, found in enumerate(logits):
                ids = source.input_ids[i][source.attention_mask[i] == 1][None]
                target_ids = target.input_ids[i][target.attention_mask[i] == 1][None]
                ahead = nn.Transformer.generate_square_subsequent_mask(target_ids.shape[1])
                hidden = theirs(embedded(ours, ids), embedded(ours, target_ids), tgt_mask=ahead)
                expected = hidden[0] @ ours.token.weight.T
                assert relative_rms(found[target.attention_mask[i] == 1], expected) < LIMIT


# The paper rounds to 65M and 213M. With its 37000 tokens in one table for both sides and the head, the layers have
# 44.1M and 176.4M, the table 18.9M and 37.9M. The others are as counted on the published checkpoints.
PUBLISHED = {
    "transformer-base": 63_082_496,
    "transformer-big": 214_245_376,
    "bart-base": 139_420_416,
    "bart-large": 406_291_456,
    "t5-small": 60_506_624,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "t5-v1.1-small": 76_961_152,
    "t5-v1.1-base": 247_577_856,
    "t5-v1.1-large": 783_150_080,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters(name: str) -> None:
    assert sum(p.numel() for p in registry.sketch(name)[0].parameters()) == PUBLISHED[name]


@pytest.mark.parametrize("name, millions", [("transformer-base", 65), ("transformer-big", 213)])
def test_parameters_of_the_paper(name: str, millions: int) -> None:
    """Vaswani et al. 2017, table 3."""
    assert PUBLISHED[name] == pytest.approx(millions * 1e6, rel=0.03)


# Norms beside the five of one encoder's and one decoder's layer: on the embeddings, or at the end of both stacks.
OTHER_NORMS = {
    "transformer-tiny": 0,
    "transformer-tiny-pre-norm": 2,
    "bart-tiny": 2,
    "marian-tiny": 0,
    "t5-tiny": 2,
    "t5-v1.1-tiny": 2,
}
QUICK = ("transformer-tiny", "bart-tiny", "t5-v1.1-tiny")


def assert_same(module: nn.Module, exported: Path) -> None:
    """The export gives what PyTorch gives, at lengths other than those it was traced with."""
    session = ort.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    for source, target in zip(batches(128), batches(128, lengths=(13, 1, 6)), strict=True):
        given = (source.input_ids, source.attention_mask, target.input_ids, target.attention_mask)
        (found,) = session.run(None, {name: x.numpy() for name, x in zip(names, given, strict=True)})
        with torch.no_grad():
            assert relative_rms(torch.from_numpy(found), module(*given)) < LIMIT


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in OTHER_NORMS]
)
def test_every_site_of_a_small_one_is_fused(tmp_path: Path, name: str) -> None:
    exported = export(name, tmp_path / "model")
    assert_same(registry.build(name).module, exported)
    report = optimize(exported, None, verify="final")
    assert [site for site in report.sites if site.status == "missed"] == []
    expected = {"attention": 3, "norm": 5 + OTHER_NORMS[name], "activation": 2}
    assert Counter(site.kind for site in report.sites) == expected
    assert report.parity is not None and report.parity.fine and not report.parity.note
