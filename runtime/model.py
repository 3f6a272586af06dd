"""A model ready to run: the session, what it takes and gives, and the task that its manifest names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.artifact import Artifact, open_artifact
from onnxsmith.runtime.embed import RunFeeds, embed_texts
from onnxsmith.runtime.feeds import Feeds, TensorInfo, check_feeds, check_ids
from onnxsmith.runtime.options import recorded_config
from onnxsmith.runtime.session import PROVIDERS, Provider, graph_options, one_line, open_session
from onnxsmith.runtime.tokenize import Padding, Text, TextEncoder, text_encoder

if TYPE_CHECKING:
    from onnxsmith.runtime.generation.call import Stream
    from onnxsmith.runtime.generation.model import GenerativeModel
    from onnxsmith.runtime.generation.prompts import Prompts
    from onnxsmith.runtime.generation.result import Generated
    from onnxsmith.runtime.tasks.answer import Answer
    from onnxsmith.runtime.tasks.attention import AttentionMap
    from onnxsmith.runtime.tasks.classify import Label
    from onnxsmith.runtime.tasks.fill_mask import Filling


@dataclass(frozen=True)
class LoadedModel:
    """An open model. ``config`` holds the session config entries that were recorded with it.

    ``source`` runs an encoder-decoder's encoder, where ``session`` is its decoder with a cache;
    ``prefill`` reads the prompts of a decoder that is split. ``cuda_graph``: steps of generation are captured.
    """

    artifact: Artifact
    session: ort.InferenceSession
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    config: Mapping[str, str]
    source: ort.InferenceSession | None = None
    prefill: ort.InferenceSession | None = None
    cuda_graph: bool = False

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The artifact's onnxsmith.json; empty for a plain .onnx file."""
        return self.artifact.manifest

    @property
    def special_tokens(self) -> Mapping[str, int]:
        """Ids by role: "bos", "eos", "pad", "unk", "cls", "sep", "mask", those that the model has."""
        tokens: Mapping[str, int] = self.manifest.get("special_tokens", {})
        return tokens

    def run(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        """Run on arrays by input name; gives arrays by output name.

        Raises:
            BadInput: An input is missing, unknown, of the wrong dtype or shape, or has an id beyond the vocabulary; or
                ONNX Runtime fails on it.
        """
        arrays = check_feeds(feeds, self.inputs, self.manifest.get("bounds", {}))
        check_ids(arrays, self.manifest.get("vocab_size"))
        names = [info.name for info in self.outputs]
        try:
            options = graph_options() if self.cuda_graph else None  # a graph would keep these arrays' memory
            return dict(zip(names, self.session.run(names, arrays, options), strict=True))
        except Exception as error:  # ONNX Runtime's error classes have no common base
            raise BadInput(f"{self.artifact.model}: ONNX Runtime fails on these inputs: {one_line(error)}") from error

    def embed(
        self,
        texts: Sequence[str],
        *,
        padding: Padding | None = None,
        batch_size: int = 32,
        run: RunFeeds | None = None,
    ) -> NDArray[np.float32]:
        """Embeddings of texts, float32 [N, D], for models whose task is "embed".

        Args:
            texts: At least one text; longer ones are cut at the model's largest length.
            padding: Side on which shorter texts of a batch are filled up; the model's own when None.
            batch_size: Texts per run.
            run: Another implementation to run on the same feeds, such as PyTorch; this model when None.

        Raises:
            BadInput: The model does not embed, has no tokenizer, or a text has no tokens.
        """
        return embed_texts(
            texts,
            run or self.run,
            self._encoder,
            inputs=[info.name for info in self.inputs],
            output=self._embedding.name,
            padding=padding,
            batch_size=batch_size,
        )

    def fill_mask(self, texts: Sequence[str], *, top_k: int = 5) -> list[list[list[Filling]]]:
        """The best tokens for each gap of each text, for models whose task is "fill-mask"; see ``tasks.fill_mask``."""
        from onnxsmith.runtime.tasks.fill_mask import fill_mask

        return fill_mask(self, texts, top_k=top_k)

    def classify(self, texts: Sequence[Text]) -> list[list[Label]]:
        """All labels of each text or pair, for models whose task is "classify"; see ``tasks.classify``."""
        from onnxsmith.runtime.tasks.classify import classify

        return classify(self, texts)

    def answer(self, question: str, context: str, *, max_answer_len: int = 15) -> Answer:
        """The part of the context that answers, for models whose task is "answer-span"; see ``tasks.answer``."""
        from onnxsmith.runtime.tasks.answer import answer

        return answer(self, question, context, max_answer_len=max_answer_len)

    def attention_maps(self, text: str, **settings: Any) -> list[AttentionMap]:
        """The attention weights for a text, of a model that gives them; see ``tasks.attention``."""
        from onnxsmith.runtime.tasks.attention import attention_maps

        return attention_maps(self, text, **settings)

    def prompt(self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = True) -> str:
        """The text that the model's chat template makes of messages; see ``onnxsmith.runtime.chat.render``.

        The template writes the special tokens itself: encode the prompt without adding any.
        """
        from onnxsmith.runtime import chat

        template = self.artifact.sidecar("chat_template")
        if template is None:
            raise BadInput(f"{self.artifact.model}: no chat template beside this model; give it a plain text")
        tokens = {role: self._encoder.text_of(id) for role, id in self.special_tokens.items()}
        text = template.read_text(encoding="utf-8", errors="replace")
        return chat.render(text, messages, special_tokens=tokens, add_generation_prompt=add_generation_prompt)

    @overload
    def generate(self, prompts: Prompts, *, stream: Literal[False] = False, **options: Any) -> Generated: ...
    @overload
    def generate(self, prompts: Prompts, *, stream: Literal[True], **options: Any) -> Stream: ...
    def generate(self, prompts: Prompts, *, stream: bool = False, **options: Any) -> Generated | Stream:
        """Generate text with a model that has a cache; see ``onnxsmith.runtime.generation.model``.

        Args:
            prompts: A text or several, ids of one or several, or padded ids [B, S] with an ``attention_mask``.
            stream: Give the pieces of the text of one prompt as they come; their ``result`` tells the rest.
            options: ``attention_mask``, ``add_special_tokens``, and settings of ``GenerationConfig`` on top of those
                that the checkpoint recommends, such as ``max_new_tokens=32`` or ``num_beams=4``.

        Raises:
            BadInput: The model has no cache, or a prompt does not fit it. BadUsage: Settings that contradict.
        """
        return self.generation.generate(prompts, stream=stream, **options)

    @cached_property
    def generation(self) -> GenerativeModel:
        """The model seen as one that generates. Raises BadInput for one without a cache."""
        from onnxsmith.runtime.generation.model import GenerativeModel

        return GenerativeModel(self)

    @cached_property
    def _encoder(self) -> TextEncoder:
        return text_encoder(self.artifact)

    @cached_property
    def _embedding(self) -> TensorInfo:
        task = self.manifest.get("task")
        if task != "embed":
            raise BadInput(f"{self.artifact.model}: expected a model of task embed, found {task}; run it on arrays")
        rows = [info for info in self.outputs if len(info.dims) == 2]
        if len(rows) != 1:
            found = ", ".join(map(str, self.outputs))
            raise BadInput(f"{self.artifact.model}: expected one output [batch, features], found {found}")
        return rows[0]


def load(
    path: str | Path,
    *,
    provider: Provider | None = None,
    threads: int | None = None,
    config: Mapping[str, str] | None = None,
    cuda_graph: bool = False,
) -> LoadedModel:
    """Open an artifact folder or an .onnx file with the session options recorded in it.

    What `optimize` wrote for the CPU flushes denormal numbers to zero, in the session's threads and, where it is the
    first session of the process, in the calling one: ``config={"session.set_denormal_as_zero": "0"}`` prevents both.

    Args:
        path: The folder or file.
        provider: "cpu" or "cuda"; None is what an artifact was made for, and "cpu" for a plain file.
        threads: Threads inside an operator; None leaves it to ONNX Runtime.
        config: Session config entries on top of the recorded ones.
        cuda_graph: On cuda, let ``generate`` capture a step as a CUDA graph and replay it. Nobody has measured it yet.

    Raises:
        BadInput: There is no usable model at the path, or it does not run on the provider, or its steps cannot be
            captured. BadUsage: A CUDA graph on another provider.
    """
    artifact = open_artifact(path)
    if artifact.is_structure:
        raise BadInput(f"{path} is a structure, its weights are absent, so it cannot run; export it with its weights")
    if Path(path).is_dir() and artifact.exported is not None and artifact.exported.is_decoder:
        made = f"onnxsmith optimize {path} -o OUTPUT --cache"
        raise BadInput(f"{path} has a model in several files, which do not run as one; make one of them: {made}")
    recorded = recorded_config(artifact)
    where = provider or _made_for(artifact)
    if cuda_graph:
        _check_captures(artifact, where)
    entries = {**recorded, **(config or {})}
    session = open_session(artifact.model, provider=where, threads=threads, config=entries, cuda_graph=cuda_graph)
    inputs = tuple(_declared(TensorInfo.from_ort(arg), artifact) for arg in session.get_inputs())
    outputs = tuple(TensorInfo.from_ort(arg) for arg in session.get_outputs())

    def beside(model: Path | None, owner: Artifact | None) -> ort.InferenceSession | None:
        entries = recorded_config(owner or artifact) | dict(config or {})
        return None if model is None else open_session(model, provider=where, threads=threads, config=entries)

    source = beside(artifact.source_model, artifact.source)
    prefill = beside(artifact.prefill.model if artifact.prefill else None, artifact.prefill)
    return LoadedModel(artifact, session, inputs, outputs, recorded, source, prefill, cuda_graph)


def run(path: str | Path, feeds: Feeds, *, provider: Provider | None = None) -> dict[str, NDArray[Any]]:
    """Open a model and run it once on arrays by input name; see ``load`` and ``LoadedModel.run``."""
    return load(path, provider=provider).run(feeds)


def _check_captures(artifact: Artifact, provider: Provider) -> None:
    """A CUDA graph wants CUDA, and steps of fixed shapes."""
    where = artifact.folder or artifact.model
    if provider != "cuda":
        raise BadUsage(f"a CUDA graph is for cuda, and {where} is run on {provider}; leave cuda_graph out")
    cache = artifact.manifest.get("cache")
    if not isinstance(cache, dict) or not cache.get("steady"):
        told = "has no cache in place with steps of fixed shapes, which a CUDA graph needs"
        raise BadInput(f"{where} {told}; leave cuda_graph out")


def _made_for(artifact: Artifact) -> Provider:
    """The provider that the artifact's manifest names first; "cpu" where it names none."""
    wanted = artifact.manifest.get("session", {}).get("providers")
    first = wanted[0] if isinstance(wanted, list) and wanted else None
    return next((name for name, full in PROVIDERS.items() if full == first), "cpu")


def _declared(info: TensorInfo, artifact: Artifact) -> TensorInfo:
    """An input with the manifest's dimension names: a graph may have lost them, and bounds go by name."""
    for entry in artifact.manifest.get("inputs", []):
        if entry.get("name") == info.name and len(entry.get("dims", ())) == len(info.dims):
            return replace(info, dims=tuple(entry["dims"]))
    return info
