"""Rotary positions, with the ways to stretch them over longer texts.

Shapes: B batch, S sequence, H heads, D head size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from onnxsmith.errors import BadInput
from onnxsmith.models.positions.base import Positions


@dataclass(frozen=True)
class Rotary(Positions):
    """Rotates pairs of a head's features by an angle that grows with position. Su et al. 2021, arXiv:2104.09864.

    Features i and i + D/2 make a pair, as Hugging Face stores Llama's weights. ``scaling`` holds the keys of
    ``rope_scaling`` in config.json: none ("default"); "linear", Chen et al. 2023, arXiv:2306.15595; "dynamic" and
    "yarn", Peng et al. 2023, arXiv:2309.00071; "llama3", Llama Team 2024, arXiv:2407.21783.
    ``length`` is the largest length that the config names.
    """

    head_size: int
    theta: float
    length: int
    scaling: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.head_size % 2:
            raise BadInput(f"rotary positions need an even head size, not {self.head_size}")
        if self.kind not in _SCALINGS:
            raise BadInput(f"config.json asks for rope_type {self.kind!r}; known are {', '.join(_SCALINGS)}")
        for name in _SCALINGS[self.kind]:
            self._number(name)

    @property
    def kind(self) -> str:
        """The kind of scaling; older configs call the key "type"."""
        return str(self.scaling.get("rope_type") or self.scaling.get("type") or "default")

    def tables(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """[B, S] -> cosines and sines, float32 [B, 1, S, D] each, for ``rotate``"""
        frequencies = self._dynamic(places) if self.kind == "dynamic" else self._fixed(places.device)
        angles = places[:, None, :, None].float() * frequencies  # [B, 1, S, D/2]
        angles = torch.cat((angles, angles), -1)  # [B, 1, S, D]
        scale = self._attention_factor()
        return (angles.cos(), angles.sin()) if scale == 1 else (angles.cos() * scale, angles.sin() * scale)

    def _fixed(self, device: torch.device) -> Tensor:
        plain = [self.theta ** (-i / self.head_size) for i in range(0, self.head_size, 2)]
        if self.kind == "linear":
            plain = [f / self._number("factor") for f in plain]
        elif self.kind == "llama3":
            plain = [self._by_wavelength(f) for f in plain]
        elif self.kind == "yarn":
            plain = self._by_dimension(plain)
        return torch.tensor(plain, device=device)

    def _dynamic(self, places: Tensor) -> Tensor:
        """The base grows once a batch is longer than what the model was trained on."""
        longest = (places.amax() + 1).clamp(min=self.length).float()
        factor, size = self._number("factor"), self.head_size
        theta = self.theta * (factor * longest / self.length - (factor - 1)) ** (size / (size - 2))
        exponents = torch.tensor([-i / size for i in range(0, size, 2)], device=places.device)
        return torch.pow(theta, exponents)

    def _by_wavelength(self, frequency: float) -> float:
        """llama3: long waves are stretched, short ones kept, those between blended."""
        factor, trained = self._number("factor"), self._number("original_max_position_embeddings")
        low, high = self._number("low_freq_factor"), self._number("high_freq_factor")
        waves = trained * frequency / (2 * math.pi)  # in the trained length
        kept = min(max((waves - low) / (high - low), 0), 1)
        return kept * frequency + (1 - kept) * frequency / factor

    def _by_dimension(self, plain: list[float]) -> list[float]:
        """yarn: dimensions that turn often are kept, those that turn seldom interpolated, with a ramp between."""
        factor, trained = self._number("factor"), self._number("original_max_position_embeddings")

        def dimension(turns: float) -> float:
            return self.head_size * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(self.theta))

        low: float = dimension(self._number("beta_fast", 32))
        high: float = dimension(self._number("beta_slow", 1))
        if self.scaling.get("truncate", True):
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, self.head_size - 1)
        ramp = [min(max((i - low) / (high - low or 0.001), 0), 1) for i in range(len(plain))]
        return [f * (1 - r) + f / factor * r for f, r in zip(plain, ramp, strict=True)]

    def _attention_factor(self) -> float:
        """yarn makes attention sharper as the context grows."""
        if self.kind != "yarn":
            return 1.0
        if self.scaling.get("attention_factor") is not None:
            return self._number("attention_factor")
        stretch = math.log(max(self._number("factor"), 1))
        if self.scaling.get("mscale") and self.scaling.get("mscale_all_dim"):
            return (0.1 * self._number("mscale") * stretch + 1) / (0.1 * self._number("mscale_all_dim") * stretch + 1)
        return 0.1 * stretch + 1

    def _number(self, name: str, default: float | None = None) -> float:
        value: Any = self.scaling.get(name) or default
        if type(value) not in (int, float) or value <= 0:
            raise BadInput(f"config.json has {name} = {value!r} in its rope scaling; a positive number was expected")
        return float(value)


_SCALINGS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor", "original_max_position_embeddings"),
    "llama3": ("factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
}


def rotate(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    """x [B, H, S, D], tables of ``Rotary.tables`` -> [B, H, S, D]"""
    cosines, sines = tables
    first, second = x.chunk(2, -1)
    return x * cosines + torch.cat((-second, first), -1) * sines
