"""Modules as people write them by hand: nanoGPT's block, the Annotated Transformer's, and einsum notation."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.coverage.family import HEADS, HIDDEN, INNER, LAYERS, POSITIONS, VOCABULARY


class NanoGpt(nn.Module):
    """A decoder after nanoGPT: packed q/k/v, a registered triangle, pre-norm, no padding mask."""

    def __init__(self, flash: bool) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, HIDDEN)
        self.positions = nn.Embedding(POSITIONS, HIDDEN)
        self.blocks = nn.ModuleList(NanoGptBlock(flash) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(HIDDEN)
        self.head = nn.Linear(HIDDEN, VOCABULARY, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        positions = torch.arange(0, input_ids.size(1), dtype=torch.long)
        x = self.tokens(input_ids) + self.positions(positions)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class NanoGptBlock(nn.Module):
    def __init__(self, flash: bool) -> None:
        super().__init__()
        self.flash = flash
        self.norm_1, self.norm_2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
        self.qkv, self.out = nn.Linear(HIDDEN, 3 * HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.up, self.down = nn.Linear(HIDDEN, INNER), nn.Linear(INNER, HIDDEN)
        self.register_buffer("bias", torch.tril(torch.ones(POSITIONS, POSITIONS)).view(1, 1, POSITIONS, POSITIONS))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.norm_1(x))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))

    def attend(self, x: Tensor) -> Tensor:
        b, s, e = x.size()
        q, k, v = self.qkv(x).split(e, dim=2)
        q, k, v = (t.view(b, s, HEADS, e // HEADS).transpose(1, 2) for t in (q, k, v))  # [B, H, S, D]
        if self.flash:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            scores = scores.masked_fill(self.bias[:, :, :s, :s] == 0, float("-inf"))
            y = F.softmax(scores, dim=-1) @ v
        return self.out(y.transpose(1, 2).contiguous().view(b, s, e))


class AnnotatedNorm(nn.Module):
    """(x - mean) / (std + eps), with the unbiased deviation: no standard LayerNormalization."""

    def __init__(self, eps: float = 1e-6) -> None:
        super().__init__()
        self.a, self.b, self.eps = nn.Parameter(torch.ones(HIDDEN)), nn.Parameter(torch.zeros(HIDDEN)), eps

    def forward(self, x: Tensor) -> Tensor:
        mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return self.a * (x - mean) / (std + self.eps) + self.b


class AnnotatedAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(HIDDEN, HIDDEN) for _ in range(4))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        b, d = query.size(0), HIDDEN // HEADS
        q, k, v = (
            linear(x).view(b, -1, HEADS, d).transpose(1, 2)
            for linear, x in zip(self.linears, (query, key, value), strict=False)
        )
        scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(d)
        p = scores.masked_fill(mask.unsqueeze(1) == 0, -1e9).softmax(dim=-1)
        x = torch.matmul(p, v).transpose(1, 2).contiguous().view(b, -1, HIDDEN)
        return self.linears[-1](x)


class AnnotatedFeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(HIDDEN, INNER), nn.Linear(INNER, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x).relu())


class AnnotatedTransformer(nn.Module):
    """Encoder and decoder after the Annotated Transformer: masks made from the padding token 0."""

    def __init__(self) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(VOCABULARY, HIDDEN), nn.Embedding(VOCABULARY, HIDDEN)
        self.encoder = nn.ModuleList(self._parts(2) for _ in range(LAYERS))
        self.decoder = nn.ModuleList(self._parts(3) for _ in range(LAYERS))
        self.encoded, self.decoded = AnnotatedNorm(), AnnotatedNorm()
        angle = torch.arange(POSITIONS)[:, None] * torch.exp(torch.arange(0, HIDDEN, 2) * -(math.log(1e4) / HIDDEN))
        self.register_buffer("table", torch.stack((angle.sin(), angle.cos()), -1).flatten(1)[None])

    @staticmethod
    def _parts(norms: int) -> nn.ModuleDict:
        attentions = [AnnotatedAttention() for _ in range(norms - 1)]
        parts = {"norms": [AnnotatedNorm() for _ in range(norms)], "attentions": attentions}
        return nn.ModuleDict(
            {**{k: nn.ModuleList(v) for k, v in parts.items()}, "feed_forward": AnnotatedFeedForward()}
        )

    def embed(self, table: nn.Embedding, ids: Tensor) -> Tensor:
        x = table(ids) * math.sqrt(HIDDEN)
        return x + self.table[:, : x.size(1)]

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        source_mask = (source != 0).unsqueeze(-2)  # [B, 1, S]
        size = target.size(-1)
        subsequent = torch.triu(torch.ones((1, size, size)), diagonal=1).type(torch.uint8) == 0
        target_mask = (target != 0).unsqueeze(-2) & subsequent
        memory = self.embed(self.source, source)
        for layer in self.encoder:
            y = layer["norms"][0](memory)
            memory = memory + layer["attentions"][0](y, y, y, source_mask)
            memory = memory + layer["feed_forward"](layer["norms"][1](memory))
        memory = self.encoded(memory)
        x = self.embed(self.target, target)
        for layer in self.decoder:
            y = layer["norms"][0](x)
            x = x + layer["attentions"][0](y, y, y, target_mask)
            x = x + layer["attentions"][1](layer["norms"][1](x), memory, memory, source_mask)
            x = x + layer["feed_forward"](layer["norms"][2](x))
        return self.decoded(x)


class EinsumEncoder(nn.Module):
    """Research code in einsum notation: weights of shape [E, H, D], a bias added where keys are padding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, HIDDEN)
        self.layers = nn.ModuleList(EinsumLayer() for _ in range(LAYERS))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.tokens(input_ids)
        for layer in self.layers:
            x = layer(x, attention_mask)
        return x


class EinsumLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        d = HIDDEN // HEADS
        self.query, self.key, self.value = (nn.Parameter(torch.zeros(HIDDEN, HEADS, d)) for _ in range(3))
        self.out = nn.Parameter(torch.zeros(HEADS, d, HIDDEN))
        self.norm_1, self.norm_2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
        self.up, self.down = nn.Linear(HIDDEN, INNER), nn.Linear(INNER, HIDDEN)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        y = self.norm_1(x)
        q, k, v = (torch.einsum("bse,ehd->bhsd", y, w) for w in (self.query, self.key, self.value))
        scores = torch.einsum("bhsd,bhtd->bhst", q, k) * q.size(-1) ** -0.5
        scores = scores + (1.0 - mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        mixed = torch.einsum("bhst,bhtd->bshd", scores.softmax(-1), v)
        x = x + torch.einsum("bshd,hde->bse", mixed, self.out)
        return x + self.down(F.gelu(self.up(self.norm_2(x)), approximate="tanh"))
