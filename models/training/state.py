"""Everything that training goes on from, as one safetensors file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from onnxsmith.errors import BadInput
from onnxsmith.models.training.files import replacing

FILE = "training.safetensors"
_MODEL, _MOMENTS, _BEST = "model.", "optimizer.", "best."


@dataclass
class State:
    """The model, its optimizer, torch's random state, and the loss of every step so far.

    How many losses there are is the step, and with the seed that is the position in the data. ``validated`` is what
    validation found by step, ``best`` the weights of its least. ``seconds`` is the time that the steps took.
    """

    module: nn.Module
    optimizer: torch.optim.Optimizer
    losses: list[float] = field(default_factory=list)
    validated: dict[int, float] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    def validate(self, found: float) -> None:
        """Take down what validation finds now, and the weights when nothing before was as good."""
        if found < min(self.validated.values(), default=math.inf):
            self.best = {name: tensor.clone() for name, tensor in self.module.state_dict().items()}
        self.validated[len(self.losses)] = found

    def take_best(self) -> None:
        """Give the model the weights that validation found best, where there are some."""
        if self.best:
            self.module.load_state_dict(self.best)

    def save(self, path: Path, digest: str) -> None:
        """Write the file, whole; ``digest`` says of which run."""
        tensors = {
            **{_MODEL + name: tensor for name, tensor in self.module.state_dict().items()},
            **{f"{_MOMENTS}{i}.{name}": tensor for i, name, tensor in self._moments()},
            **{_BEST + name: tensor for name, tensor in self.best.items()},
            "random": torch.get_rng_state(),
            "losses": torch.tensor(self.losses, dtype=torch.float64),
            "validated": torch.tensor(list(self.validated.items()), dtype=torch.float64).reshape(-1, 2),
            "seconds": torch.tensor(self.seconds, dtype=torch.float64),
        }
        with replacing(path) as new:
            new.write_bytes(save(tensors, {"run": digest}))  # save_file would hide it from other users

    def load(self, path: Path, digest: str) -> None:
        """Go back to what ``save`` wrote. Raises BadInput for a damaged file, and for one of another run."""
        tensors = read_state(path, digest)
        self.module.load_state_dict(_with_prefix(tensors, _MODEL))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _with_prefix(tensors, _MOMENTS).items():
            i, _, kind = name.partition(".")
            moments.setdefault(int(i), {})[kind] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        torch.set_rng_state(tensors["random"])
        self.losses = tensors["losses"].tolist()
        self.validated = {int(step): found for step, found in tensors["validated"].tolist()}
        self.best = _with_prefix(tensors, _BEST)
        self.seconds = tensors["seconds"].item()

    def _moments(self) -> Iterator[tuple[int, str, Tensor]]:
        for i, named in self.optimizer.state_dict()["state"].items():
            yield from ((i, name, tensor) for name, tensor in named.items())


def read_state(path: Path, digest: str) -> dict[str, Tensor]:
    """The tensors of a file that ``State.save`` wrote for the run of that digest. Raises BadInput as ``load`` does."""
    try:
        with safe_open(path, framework="pt") as file:
            found, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as e:
        raise BadInput(f"{path} is no checkpoint that can be read ({e}); train into another folder") from None
    if (found or {}).get("run") != digest:
        raise BadInput(
            f"{path} is of another recipe, or of other settings; resume with those that it was made with, "
            "or train into another folder"
        )
    return tensors


def start_from(module: nn.Module, path: Path, digest: str) -> None:
    """Give a new model the weights of another that has parts in common: those with the same names.

    Raises BadInput when there are none, or one has another shape.
    """
    given = _with_prefix(read_state(path, digest), _MODEL)
    own = module.state_dict()
    common = own.keys() & given.keys()
    if not common:
        raise BadInput(f"{path} has no weight of the names that this model has; start from a run of the same model")
    for name in sorted(common):
        if own[name].shape != given[name].shape:
            shapes = f"{list(given[name].shape)}, and {list(own[name].shape)} is needed"
            raise BadInput(f"{path} has {name} of shape {shapes}; start from a run of the same sizes")
    module.load_state_dict({name: given[name] for name in common}, strict=False)


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
