"""``LoadedModel.generate``: what its artifact recommends, and what the caller asks for on top."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.generation.call import Stream
from onnxsmith.runtime.generation.config import GenerationConfig
from onnxsmith.runtime.generation.decoder import Decoder
from onnxsmith.runtime.generation.defaults import recommended
from onnxsmith.runtime.generation.generator import Generator
from onnxsmith.runtime.generation.interface import Interface, find_interface
from onnxsmith.runtime.generation.prompts import Prompts, read_prompts
from onnxsmith.runtime.generation.result import Generated
from onnxsmith.runtime.generation.source import Source
from onnxsmith.runtime.session import PROVIDERS, Provider
from onnxsmith.runtime.tokenize import TextEncoder, text_encoder

if TYPE_CHECKING:
    from onnxsmith.runtime.model import LoadedModel


class GenerativeModel:
    """A loaded model seen as one that generates. One call at a time: calls share the cache."""

    def __init__(self, model: LoadedModel) -> None:
        """Raises BadInput for a model without a cache, or an encoder-decoder's decoder without its encoder."""
        self._model = model
        self.interface = _interface(model)

    @cached_property
    def encoder(self) -> TextEncoder | None:
        """The tokenizer, where there is one; it cuts no prompt."""
        if self._model.artifact.sidecar("tokenizer") is None:
            return None
        return text_encoder(self._model.artifact, truncate=False)

    @cached_property
    def defaults(self) -> GenerationConfig:
        """The settings that the checkpoint recommends."""
        return recommended(self._model.manifest, source=self.interface.cross is not None)

    def generate(
        self,
        prompts: Prompts,
        *,
        stream: bool = False,
        attention_mask: NDArray[Any] | None = None,
        add_special_tokens: bool = True,
        **settings: Any,
    ) -> Generated | Stream:
        """As ``LoadedModel.generate``."""
        config = self.defaults.overridden(settings)
        vocabulary = self._model.manifest.get("vocab_size")
        ids = read_prompts(
            prompts,
            self.encoder,
            attention_mask=attention_mask,
            add_special_tokens=add_special_tokens,
            vocab_size=vocabulary,
        )
        _check_ids(config, vocabulary)
        call = self._generator.call(ids, config)
        if not stream:
            for _ in call:
                pass
            return call.result()
        if config.num_beams > 1:
            raise BadUsage("beams have no text before their end; leave out stream, or give num_beams=1")
        if (count := len(ids) * config.num_return_sequences) != 1:
            raise BadUsage(f"a stream is of one text, and {count} were asked for; leave out stream, or ask one by one")
        if self.encoder is None:
            raise BadInput(f"{self._model.artifact.model}: no tokenizer beside this model; leave out stream")
        return Stream(call)

    @cached_property
    def _generator(self) -> Generator:
        model = self._model
        device: Provider = "cuda" if model.session.get_providers()[0] == PROVIDERS["cuda"] else "cpu"
        cross = self.interface.cross
        source = None if cross is None or model.source is None else Source(model.source, cross, device=device)
        decoder = Decoder(
            model.session,
            self.interface,
            model.inputs,
            source=source,
            prefill=model.prefill,
            device=device,
            step_bytes=model.manifest.get("step_bytes"),
            greedy_step_bytes=model.manifest.get("greedy_step_bytes"),
            steady=model.cuda_graph,
        )
        return Generator(decoder, self.interface, self.encoder)


def _interface(model: LoadedModel) -> Interface:
    where = model.artifact.folder or model.artifact.model
    found = find_interface(model.manifest, model.inputs, model.outputs)
    if found is None:
        raise BadInput(f"{where}: a model without a cache cannot generate; make one by: onnxsmith optimize --cache")
    if found.cross is not None and model.source is None:
        hint = "give a folder with both, encoder/ and decoder/"
        raise BadInput(f"{where}: an encoder-decoder's decoder alone; {hint}")
    return found


def _check_ids(config: GenerationConfig, vocab_size: int | None) -> None:
    """Ids that the settings put into a text, or look up among the logits, lie in the vocabulary."""
    if vocab_size is None:
        return
    single = ("decoder_start_token_id", "forced_bos_token_id")
    several = ("eos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens")
    named = {name: (getattr(config, name) or 0,) for name in single} | {name: getattr(config, name) for name in several}
    named["bad_words_ids"] = tuple(id for word in config.bad_words_ids for id in word)
    for name, ids in named.items():
        if (largest := max(ids, default=0)) >= vocab_size:
            raise BadUsage(f"{name}: expected token ids from 0 to {vocab_size - 1}, found {largest}")
