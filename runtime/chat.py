"""Messages to a prompt, by the chat template of a model: a Jinja template as Hugging Face writes them.

A template comes with a model and is not to be trusted: it runs in Jinja's sandbox, without files, on plain data, and
what it makes is bounded; the time and memory that it takes are not.
https://huggingface.co/docs/transformers/chat_templating_writing tells what a template may use.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from onnxsmith.errors import BadInput, first_line

_MAX_LENGTH = 10_000_000  # characters of a prompt


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool = True,
) -> str:
    """The prompt that a model's chat template makes of a conversation.

    Args:
        template: The text of the Jinja template.
        messages: At least one, such as ``{"role": "user", "content": "Hello"}``; plain JSON values.
        special_tokens: Tokens by role, ``{"bos": "<s>"}``, which the template sees as ``bos_token``.
        add_generation_prompt: End with what starts the model's answer.

    Raises:
        BadInput: The messages are not plain data, the template is broken, refuses the messages, or makes too much.
    """
    if isinstance(messages, str) or not messages:
        raise BadInput("expected a list of at least one message; give for instance {'role': 'user', 'content': 'Hi'}")
    plain = _plain(messages)
    tokens = {f"{role}_token": token for role, token in special_tokens.items()}
    given = {"tools": None, "documents": None, "add_generation_prompt": add_generation_prompt, **tokens}
    try:
        return _joined(_environment().from_string(template).generate(messages=plain, **given))
    except TemplateError as error:
        raise BadInput(f"the chat template cannot take these messages: {first_line(error)}") from error
    except Exception as error:  # a template can make Python raise anything
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise BadInput(f"the chat template fails on these messages ({reason}); look at their keys") from error


def _plain(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Copies that hold JSON values only, without methods a template could call; a value of None is left out."""
    for message in messages:
        if not isinstance(message, Mapping):
            raise BadInput(f"expected messages with a role and a content, found a {type(message).__name__}")
    kept = [{key: value for key, value in message.items() if value is not None} for message in messages]
    try:
        plain: list[dict[str, Any]] = json.loads(json.dumps(kept))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(f"the messages hold what JSON has no value for ({error}); give texts and numbers") from None
    return plain


def _joined(pieces: Iterator[str]) -> str:
    made, length = [], 0
    for piece in pieces:
        made.append(piece)
        length += len(piece)
        if length > _MAX_LENGTH:
            raise TemplateError(f"it makes more than {_MAX_LENGTH} characters")
    return "".join(made)


class _Generation(Extension):
    """``{% generation %}`` marks the model's own words for training; their text stays as it is."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(1)
def _environment() -> ImmutableSandboxedEnvironment:
    """What Hugging Face gives to templates; the sandbox limits ``range`` and hides Python's internals."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    return environment


def _to_json(value: object, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    """Jinja's own filter escapes HTML characters, which a prompt must not have."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
