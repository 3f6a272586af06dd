"""Gaps, labels and answers, as ``onnxsmith run`` prints them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onnxsmith.cli import console, files
from onnxsmith.errors import BadInput, BadUsage

if TYPE_CHECKING:
    from onnxsmith.runtime.model import LoadedModel

Command = TypeVar("Command", bound=Callable[..., Any])
Record = dict[str, Any]

BATCH = 16  # lines at a time
# What is asked for each task: the keys of a line of JSON, those that may be left out in brackets.
ASKED = {
    "fill-mask": ("text",),
    "classify": ("text", "[text_pair]"),
    "answer-span": ("question", "context"),
}
OPTIONS = {
    "fill_mask": "Fill the gap in a text, such as 'Paris is the [MASK] of France.'; may be repeated.",
    "classify": "Label a text; may be repeated.",
    "pair": "With --classify: the second text of a pair.",
    "question": "Find the answer to this in --context.",
    "context": "The text that has the answer to --question.",
}
_REPEATED = ("fill_mask", "classify")


def options(command: Command) -> Command:
    """Give a command the options that ask something of a BERT."""
    for name, text in reversed(OPTIONS.items()):
        command = click.option(f"--{name.replace('_', '-')}", name, multiple=name in _REPEATED, help=text)(command)
    return command


def asked(given: Mapping[str, Any]) -> tuple[str, list[Record]] | None:
    """The task that the options name, and its records; None without any. Raises BadUsage for half of a request."""
    pair, question, context = given["pair"], given["question"], given["context"]
    if pair is not None and len(given["classify"]) != 1:
        raise BadUsage("--pair is the second text beside one --classify; give both")
    if (question is None) != (context is None):
        raise BadUsage("--question and --context belong together; give both")
    found = {
        "fill-mask": [{"text": text} for text in given["fill_mask"]],
        "classify": [{"text": text, **({"text_pair": pair} if pair is not None else {})} for text in given["classify"]],
        "answer-span": [] if question is None else [{"question": question, "context": context}],
    }
    tasks = [task for task, records in found.items() if records]
    if len(tasks) > 1:
        raise BadUsage("give one of --fill-mask, --classify, and --question with --context")
    return (tasks[0], found[tasks[0]]) if tasks else None


def run(model: LoadedModel, task: str, records: Sequence[Record], top_k: int | None, as_json: bool) -> None:
    """Answer these records, and print them: a table each, or a line of JSON."""
    for record, result in zip(records, _answers(model, task, records, top_k), strict=True):
        if as_json:
            console.emit_json({**record, **result}, indent=None)
        else:
            _show(record, result)


def run_lines(model: LoadedModel, path: Path, output: Path | None, top_k: int | None) -> None:
    """Answer every line of a file, as the model's task asks; to ``output`` when all are done, or to stdout."""
    task = str(model.manifest["task"])
    records = read_records(path, task)
    answered = _in_batches(model, task, records, top_k)
    if output is None:
        for record in answered:
            console.emit_json(record, indent=None)
        return
    from onnxsmith.compiler.atomic import replacing

    with replacing(output) as made, made.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in answered)
    console.note(f"wrote {output}")


def read_records(path: Path, task: str) -> list[Record]:
    """The lines of JSON of a file, each with the keys that the task asks for. Raises BadInput for the first without."""
    expected = "lines such as " + json.dumps({key.strip("[]"): "..." for key in ASKED[task]})
    lines = files.read_utf8(path, expected).splitlines()
    found = [_record(line, task, f"{path}, line {n}", expected) for n, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise BadInput(f"{path}: no line in it; expected {expected}")
    return found


def _record(line: str, task: str, where: str, expected: str) -> Record:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not JSON ({error}); expected {expected}") from None
    keys = [key.strip("[]") for key in ASKED[task]]
    needed = [key for key in ASKED[task] if not key.startswith("[")]
    fine = isinstance(record, dict) and all(isinstance(record.get(key), str) for key in needed)
    if not fine or any(not isinstance(record[key], str) for key in keys if key in record):
        raise BadInput(f"{where}: expected {expected}, found {line.strip()[:80]}")
    return dict(record)


def _in_batches(model: LoadedModel, task: str, records: Sequence[Record], top_k: int | None) -> Iterator[Record]:
    with console.progress(task) as move:
        for start in range(0, len(records), BATCH):
            move(start, len(records), "")
            batch = records[start : start + BATCH]
            results = _answers(model, task, batch, top_k)
            yield from ({**record, **result} for record, result in zip(batch, results, strict=True))


def _answers(model: LoadedModel, task: str, records: Sequence[Record], top_k: int | None) -> list[Record]:
    """What the model says of each record, under the names of transformers' pipelines."""
    if task == "fill-mask":
        found = model.fill_mask([one["text"] for one in records], top_k=5 if top_k is None else top_k)
        return [{"fillings": [[asdict(one) for one in gap] for gap in gaps]} for gaps in found]
    if task == "classify":
        pairs = [(one["text"], one["text_pair"]) if "text_pair" in one else one["text"] for one in records]
        return [{"labels": [asdict(one) for one in labels[:top_k]]} for labels in model.classify(pairs)]
    return [asdict(model.answer(one["question"], one["context"])) for one in records]


def _show(record: Record, result: Record) -> None:
    if "fillings" in result:
        for gap in result["fillings"]:
            fillings = [(f"{one['score']:.4f}", one["token_str"], one["sequence"]) for one in gap]
            console.table(record["text"], (">probability", "token", "text"), fillings)
    elif "labels" in result:
        labels = [(f"{one['score']:.4f}", one["label"]) for one in result["labels"]]
        console.table(" | ".join(record.values()), (">score", "label"), labels)
    else:
        console.table(record["question"], (">probability", "answer"), [(f"{result['score']:.4f}", result["answer"])])
