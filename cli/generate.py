"""Generated text, as ``onnxsmith run`` prints it: a stream for one prompt, lines for many."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnxsmith.cli import console, files
from onnxsmith.errors import BadInput

if TYPE_CHECKING:
    from onnxsmith.runtime.generation.call import Stream
    from onnxsmith.runtime.generation.result import Generated
    from onnxsmith.runtime.model import LoadedModel

Command = TypeVar("Command", bound=Callable[..., Any])
Settings = Mapping[str, Any]

BATCH = 8  # lines that are generated side by side
# Names of GenerationConfig: the type of its option, and what it is for.
_SETTINGS: dict[str, tuple[type, str]] = {
    "max_new_tokens": (int, "At most so many new tokens."),
    "min_new_tokens": (int, "At least so many new tokens."),
    "temperature": (float, "Sample: above 1 is more varied, below 1 is less."),
    "top_k": (int, "Sample from so many best tokens, 0 is from all; of --fill-mask and --classify, show so many."),
    "top_p": (float, "Sample from the best tokens that have so much of the probability."),
    "min_p": (float, "Sample from tokens with so much of the best one's probability."),
    "seed": (int, "Sample the same each time."),
    "repetition_penalty": (float, "Above 1 makes tokens that occurred less likely."),
    "no_repeat_ngram_size": (int, "No so many tokens in a row occur twice."),
    "num_return_sequences": (int, "So many texts of each prompt."),
    "num_beams": (int, "Search for the best text with so many beams."),
    "length_penalty": (float, "Of beams: above 0 favours longer texts."),
    "prompt_lookup_num_tokens": (int, "Guess so many tokens at a time from the text itself."),
    "decoder_start_token_id": (int, "The token that a target starts with."),
}


def settings(command: Command) -> Command:
    """Give a command the options of generation; without one, what the checkpoint recommends holds."""
    command = click.option("--stop", "stop_strings", multiple=True, help="End before this text; may be repeated.")(
        command
    )
    for name, (kind, text) in reversed(_SETTINGS.items()):
        command = click.option(f"--{name.replace('_', '-')}", type=kind, help=text)(command)
    return command


def given(settings: Settings) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in settings.items() if value is not None and value != ()}


def run_prompt(model: LoadedModel, prompt: str, settings: Settings, as_json: bool) -> None:
    """Print what follows the prompt, as it comes; with ``as_json``, one line of it at the end."""
    config = model.generation.defaults.overridden(given(settings))
    if as_json or config.num_beams > 1 or config.num_return_sequences > 1:
        result = model.generate([prompt], **given(settings))
        _emit_all([prompt], result, as_json)
    else:
        result = show(model.generate(prompt, stream=True, **given(settings)))
    note_times(result)


def show(stream: Stream) -> Generated:
    """Print a text while it is generated. After Ctrl-C what was printed stays, and the command ends with 130."""
    try:
        for piece in stream:
            click.echo(shown(piece), nl=False)
    except KeyboardInterrupt:
        click.echo()
        note_times(stream.result)
        raise
    click.echo()
    return stream.result


def shown(text: str) -> str:
    """Text that a model made, line breaks and tabs kept: an escape sequence in it could rewrite the terminal."""
    return "".join(char for char in text if char.isprintable() or char in "\n\t")


def run_sources(model: LoadedModel, texts: Sequence[str], settings: Settings, as_json: bool) -> None:
    """Print a translation or summary of each text, a line each."""
    results = []
    for batch, result in _in_batches(model, texts, settings):
        _emit_all(batch, result, as_json)
        results.append(result)
    note_times(*results)


def run_lines(model: LoadedModel, path: Path, output: Path | None, settings: Settings) -> None:
    """Generate for every line of a file; to ``output`` when all of them are done, or to stdout as they come."""
    prompts = read_lines(path)
    if output is None:
        for batch, result in _in_batches(model, prompts, settings):
            _emit_all(batch, result, True)
        return
    from onnxsmith.compiler.atomic import replacing

    with replacing(output) as made, made.open("w", encoding="utf-8") as file:
        for batch, result in _in_batches(model, prompts, settings):
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in _records(batch, result))
    console.note(f"wrote {output}")


def _in_batches(
    model: LoadedModel, prompts: Sequence[str], settings: Settings
) -> Iterator[tuple[Sequence[str], Generated]]:
    """Some prompts at a time, with what was generated for them."""
    with console.progress("generating") as move:
        for start in range(0, len(prompts), BATCH):
            move(start, len(prompts), "")
            batch = prompts[start : start + BATCH]
            yield batch, model.generate(batch, **given(settings))


def read_lines(path: Path) -> list[str]:
    """The "prompt" or "text" of each line of JSON. Raises BadInput that names the first line that has none."""
    expected = 'lines such as {"prompt": "Once"}'
    lines = files.read_utf8(path, expected).splitlines()
    prompts = [_prompt(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise BadInput(f"{path}: no line in it; expected {expected}")
    return prompts


def _prompt(line: str, where: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON ({error})") from None
    text = record.get("prompt", record.get("text")) if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise BadInput(f'{where}: expected an object with a "prompt", found {line.strip()[:80]}')
    return text


def _records(prompts: Sequence[str], result: Generated) -> Iterator[dict[str, Any]]:
    """Of each prompt its texts, one or several."""
    repeats = len(result.texts) // len(prompts)
    for n, (text, ids, reason) in enumerate(zip(result.texts, result.sequences, result.reasons, strict=True)):
        yield {"prompt": prompts[n // repeats], "text": text, "tokens": len(ids), "reason": reason}


def _emit_all(prompts: Sequence[str], result: Generated, as_json: bool) -> None:
    for record in _records(prompts, result):
        if as_json:
            console.emit_json(record, indent=None)
        else:
            click.echo(shown(record["text"]))


def note_times(*results: Generated) -> None:
    """How long it took, on stderr."""
    times = [result.timing for result in results]
    prompt, new = (sum(getattr(time, name) for time in times) for name in ("prompt_tokens", "new_tokens"))
    rates = [rate for time in times if (rate := time.tokens_per_second)]
    speed = f" at {sum(rates) / len(rates):.1f} tokens/s" if rates else ""
    first = f"{times[0].first_token * 1e3:.0f} ms to the first token"
    shares = [share for time in times if (share := time.roof_share)]
    roof = f" ({sum(shares) / len(shares):.0%} of the memory roof)" if shares else ""
    cache = f"cache {max(time.bytes for time in times) / 1e6:.1f} MB"
    console.note(f"{prompt} prompt tokens, {first}, {new} new tokens{speed}{roof}, {cache}")
