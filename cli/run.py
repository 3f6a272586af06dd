"""``onnxsmith run``: a model on texts, prompts or tensors."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import onnxsmith
from onnxsmith.cli import console, files, generate, run_task, run_text
from onnxsmith.errors import BadUsage

if TYPE_CHECKING:
    import numpy as np

    from onnxsmith.runtime.model import LoadedModel


@click.command("run")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--text", "texts", multiple=True, help="A text to embed, translate or summarise; may be repeated.")
@click.option("--file", "file", type=click.Path(path_type=Path), help="A UTF-8 file with one text a line.")
@click.option("--input", "tensors", type=click.Path(path_type=Path), help="An .npz of tensors, one per input.")
@click.option("--prompt", help="A text to go on from; what follows is printed as it is generated.")
@click.option("--chat", is_flag=True, help="Talk with the model, by its chat template.")
@click.option("--jsonl", type=click.Path(path_type=Path), help='A file of lines such as {"prompt": "Once"}.')
@click.option("--output", type=click.Path(path_type=Path), help="An .npz, or for --jsonl a file of lines, to write.")
@click.option(
    "--attention", type=click.Path(path_type=Path), help="Draw the attention weights of one --text: a .png, .svg, .pdf."
)
@click.option(
    "--cuda-graph", is_flag=True, help="On CUDA, replay each token's step as a CUDA graph (not measured yet)."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines on stdout.")
@run_task.options
@generate.settings
def command(
    path: Path,
    texts: tuple[str, ...],
    file: Path | None,
    tensors: Path | None,
    prompt: str | None,
    chat: bool,
    jsonl: Path | None,
    output: Path | None,
    attention: Path | None,
    cuda_graph: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Run a model on texts, prompts or tensors.

    PATH is a folder that onnxsmith wrote, or any .onnx file. Texts come from --text, --file or standard
    input, one a line; raw tensors from --input. A model with a cache goes on from --prompt, answers in
    --chat, or works through a --jsonl file; an encoder-decoder takes texts. A BERT fills gaps, labels texts
    or finds answers, whichever it was exported for.
    """
    asked = run_task.asked({name: settings.pop(name) for name in run_task.OPTIONS})
    chosen = (texts, file is not None, tensors is not None, prompt is not None, chat, jsonl is not None, asked)
    if sum(map(bool, chosen)) > 1:
        raise BadUsage("give one of --text, --file, --input, --prompt, --chat, --jsonl and what asks a BERT")
    if output and (chat or prompt is not None or asked):
        raise BadUsage("--output holds embeddings, tensors or the lines of --jsonl; anything else goes to stdout")
    if attention is not None:
        if output or as_json or cuda_graph or sum(map(bool, chosen)) > bool(texts):
            raise BadUsage("--attention draws a picture of one --text, and nothing else; leave out the other options")
        from onnxsmith.cli import attention as picture

        return picture.run(path, texts, attention, settings)
    if output:
        files.check_writable(output)
    load = partial(onnxsmith.load, cuda_graph=cuda_graph)
    if chat:
        from onnxsmith.cli.chat import talk

        return talk(load(path), settings)
    if prompt is not None:
        return generate.run_prompt(load(path), prompt, settings, as_json)
    if asked:
        return run_task.run(load(path), *asked, settings["top_k"], as_json)
    if jsonl:
        return _run_lines(load(path), jsonl, output, settings)
    if tensors:
        feeds = files.read_tensors(tensors)
        return _write(output, run_text.run_tensors(load(path), feeds, as_json))
    given = list(texts) or _read(file)
    model = load(path)
    if model.source is not None and output:
        raise BadUsage("this model makes texts of texts: use --jsonl with --output, or take stdout")
    if model.source is not None:
        return generate.run_sources(model, given, settings, as_json)
    return _write(output, run_text.run_texts(model, given, as_json))


def _run_lines(model: LoadedModel, jsonl: Path, output: Path | None, settings: Mapping[str, Any]) -> None:
    """By the model's task: what a BERT is asked, or what a decoder goes on from."""
    if model.manifest.get("task") in run_task.ASKED:
        return run_task.run_lines(model, jsonl, output, settings["top_k"])
    return generate.run_lines(model, jsonl, output, settings)


def _write(output: Path | None, results: Mapping[str, np.ndarray]) -> None:
    if output:
        from onnxsmith.compiler.arrays import write_npz

        write_npz(output, results)
        console.note(f"wrote {output}")


def _read(file: Path | None) -> list[str]:
    """The texts of ``file``, or of standard input when something is piped into it."""
    if file:
        return files.read_texts(file)
    if sys.stdin.isatty():
        raise BadUsage("nothing to run on: give --text, --file, --input or --prompt, or pipe texts in, one a line")
    texts = files.split_texts(sys.stdin.read())
    if not texts:
        raise BadUsage("nothing to run on: standard input holds no text; give --text, --file, --input or --prompt")
    return texts
