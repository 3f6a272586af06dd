"""What is learned: a model, examples, a loss, and held-out questions that tell how well it was learned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from tokenizers import Tokenizer
from torch import Generator, Tensor, nn

from onnxsmith.errors import BadInput
from onnxsmith.models.running import RunFeeds, on_arrays
from onnxsmith.models.training.folder import write_folder
from onnxsmith.models.training.model import plan_model


class Problem(ABC):
    """Made with the seed of the run: what it draws from torch's own generator is the same every time.

    ``Settings`` is a frozen dataclass of what a recipe's [problem] may say. ``examples`` are what a run is trained on,
    in an order of its own.
    """

    Settings: ClassVar[type]
    module: nn.Module
    examples: Sequence[Any]

    @abstractmethod
    def __init__(self, model: Mapping[str, Any], settings: Any) -> None:
        """``model`` is the recipe's [model]. Raises BadInput for what does not fit the problem."""

    @abstractmethod
    def collate(self, examples: list[Any]) -> Any:
        """Some of the examples as the batch that ``loss`` takes."""

    @abstractmethod
    def loss(self, batch: Any, generator: Generator) -> Tensor:
        """The loss of a batch, []; whatever is drawn by chance comes from ``generator``."""

    @abstractmethod
    def answers(self, run: RunFeeds) -> list[Any]:
        """What the model says to each held-out question; ``run`` is the model, on whatever runtime."""

    @abstractmethod
    def quality(self, answers: list[Any]) -> dict[str, float]:
        """Figures by name with their unit in it, the one that counts first, from the answers to all questions."""

    def samples(self, run: RunFeeds) -> list[str]:
        """A few lines that let a reader judge for himself."""
        return []

    def validation(self) -> float:
        """How far the model is on data that is neither trained on nor held out: the less, the better."""
        raise NotImplementedError

    @abstractmethod
    def runner(self) -> RunFeeds:
        """The model in PyTorch as it is now."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what was learned, for others to use, into a folder that exists."""


class TextProblem(Problem):
    """A model of ``onnxsmith.models`` with a tokenizer; it is saved as a Hugging Face folder, for ``export``.

    ``figure`` is what its quality is called, with the unit.
    """

    figure: ClassVar[str] = "right, %"

    def __init__(
        self, model: Mapping[str, Any], tokenizer: Tokenizer, special: Mapping[str, str], **config: Any
    ) -> None:
        """``model`` lacks the vocabulary, which the tokenizer has.

        Args:
            special: the tokenizer's special tokens by role: "bos", "eos", "pad", "unk", "cls", "sep" and "mask".
            config: more that config.json is to say.
        """
        ids = {f"{role}_token_id": tokenizer.token_to_id(token) for role, token in special.items()}
        sizes = {"vocab_size": tokenizer.get_vocab_size(), **ids, **config}
        self.plan = plan_model(model, sizes)
        self.module = self.plan.module
        self.config = {**model, **sizes}
        self.tokenizer, self.special = tokenizer, special

    def check_length(self, tokens: int) -> None:
        """Raises BadInput for a model that has no positions for texts of so many tokens."""
        positions = min(self.plan.task.bounds.values(), default=tokens)
        if positions < tokens:
            raise BadInput(
                f"[model] has {positions} positions, and the problem has texts of {tokens} tokens; give more"
            )

    @abstractmethod
    def reads(self, examples: Sequence[Any]) -> dict[str, Tensor]:
        """What the model reads of some of the ``examples``, by input name: samples to calibrate on."""

    @abstractmethod
    def scores(self, answers: list[Any]) -> list[float]:
        """What everything that was asked adds to the figure, which is the mean of them."""

    def quality(self, answers: list[Any]) -> dict[str, float]:
        return {self.figure: fmean(self.scores(answers))}

    def runner(self) -> RunFeeds:
        return on_arrays(self.module, self.plan.task)

    def save(self, folder: Path) -> None:
        write_folder(folder, self.plan, self.config, self.tokenizer, self.special)
