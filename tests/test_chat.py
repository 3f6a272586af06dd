"""Chat templates: the prompts are those of transformers, and a template cannot do harm."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from onnxsmith.errors import BadInput
from onnxsmith.runtime.chat import render
from onnxsmith.runtime.model import load
from tests.embedder import write_embedder

LLAMA3 = (
    "{{- bos_token }}\n{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system_message = '' %}{%- endif %}\n"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\n' + system_message + '<|eot_id|>' }}\n"
    "{%- for message in messages %}\n"
    "    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{- message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN2 = """{%- if tools %}
    {{- '<|im_start|>system\\n# Tools' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}
    {%- if message.role == "user" %}
        {%- set ns.last = loop.index0 %}
    {%- endif %}
    {%- if loop.first and message.role == 'system' %}
        {%- continue %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- generation %}{{- message.content }}{% endgeneration %}
    {{- '<|im_end|>\\n' }}
    {%- if message.extra is defined %}{{- message.extra | tojson(indent=2) }}{%- endif %}
{%- endfor %}
{{- ns.last }}
"""
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}{% endif %}{% endfor %}"
)
BLOCKS = """
{% macro line(message) %}
    {{ message.role }}: {{ message.content | upper }}
{% endmacro %}
{% for message in messages %}
  {% if not message.content %}{% break %}{% endif %}
    {{ line(message) }}
{% endfor %}
{{ messages | length }} {{ pad_token is defined }} {{ tools is none }}
"""
USER = {"role": "user", "content": "Is 1 < 2 & 'é' == \"é\"?  "}
TALKS: tuple[list[dict[str, Any]], ...] = (
    [USER],
    [USER, {"role": "assistant", "content": " Yes\n", "tool_calls": None}, USER],
)
SYSTEM: list[dict[str, Any]] = [
    {"role": "system", "content": "Be 短い"},
    USER | {"extra": {"b": ["<ü>", 1.5, None], "a": True}},
]
TOKENS = {"bos": "<s>", "eos": "</s>"}


@pytest.mark.parametrize("prompted", [False, True])
@pytest.mark.parametrize(
    ("template", "talk"),
    [
        *product((LLAMA3, CHATML, QWEN2, BLOCKS), (*TALKS, SYSTEM)),
        *product((MISTRAL,), TALKS),  # which has no system role; see the templates that fail
    ],
)
def test_prompts_are_those_of_transformers(template: str, talk: list[dict[str, Any]], prompted: bool) -> None:
    reference = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({"<s>": 0, "</s>": 1}, unk_token="<s>")), bos_token="<s>", eos_token="</s>"
    )
    theirs = reference.apply_chat_template(talk, chat_template=template, tokenize=False, add_generation_prompt=prompted)
    ours = render(template, talk, special_tokens=TOKENS, add_generation_prompt=prompted)
    assert ours == theirs and len(ours) > 20


@pytest.mark.parametrize(
    ("template", "match"),
    [
        (MISTRAL, "cannot take these messages: Conversation roles must alternate"),
        ("{% for %}", "cannot take these messages: "),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        ("{{ ''.__class__.__base__.__subclasses__() }}", "unsafe"),
        ("{{ messages.append(3) }}", "'append' of 'list' object is unsafe"),
        ("{{ render.__globals__ }}", "'render' is undefined"),
        ("{{ messages[0].content + 3 }}", "TypeError"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ 'x' | tojson(nothing=1) }}", "TypeError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{% for i in range(1000000) %}{% endfor %}", "Range too big"),
        ("{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}", "makes more than 10000000 characters"),
    ],
)
def test_templates_that_fail(template: str, match: str) -> None:
    with pytest.raises(BadInput, match=match) as error:
        render(template, SYSTEM, special_tokens=TOKENS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ([], "at least one message"),
        ("Hello", "at least one message"),
        (["Hello"], "found a str"),
        ([{"role": "user", "content": Path()}], "what JSON has no value for"),
    ],
)
def test_messages_that_are_none(messages: Any, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        render(CHATML, messages, special_tokens=TOKENS)


def test_time() -> None:
    assert render("{{ strftime_now('%Y') | int > 2000 }}", [USER], special_tokens={}) == "True"


def test_an_artifact_renders_its_own_template(tmp_path: Path) -> None:
    entries = {"chat_template": "chat_template.jinja", "special_tokens": {"cls": 2, "sep": 3}}
    folder = write_embedder(tmp_path / "a", **entries)
    (folder / "chat_template.jinja").write_text("{{ cls_token }}{{ messages[0].content }}{{ sep_token }}")
    assert load(folder).prompt([{"role": "user", "content": "red"}]) == "[CLS]red[SEP]"
    with pytest.raises(BadInput, match="no chat template beside this model"):
        load(write_embedder(tmp_path / "b")).prompt([USER])
