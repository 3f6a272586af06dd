"""Text while it arrives: whole characters, stop texts, and the same as decoding all of it at once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tokenizers import Tokenizer, decoders, models

from onnxsmith.errors import BadInput, BadUsage
from onnxsmith.runtime.generation.text import Detokenizer, StopTexts
from tests.generation import folders, ours, rows_of

TEXT = "Größe 短い 🙂!"


def byte_tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(folders("gpt2")[1] / "tokenizer.json"))


def pieces_of(tokenizer: Tokenizer, ids: Sequence[int], prompt: Sequence[int] = ()) -> list[str]:
    words = Detokenizer(lambda ids: tokenizer.decode(list(ids)), prompt)
    return [*(words.add(id) for id in ids), words.rest]


def test_pieces_are_whole_characters() -> None:
    tokenizer = byte_tokenizer()
    pieces = pieces_of(tokenizer, tokenizer.encode(TEXT).ids)
    assert "".join(pieces) == TEXT
    assert sorted(piece for piece in pieces if piece) == sorted(TEXT)


@pytest.mark.parametrize("cut", range(1, 25))
def test_text_that_ends_within_a_character(cut: int) -> None:
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode(TEXT).ids[:cut]
    assert "".join(pieces_of(tokenizer, ids)) == tokenizer.decode(ids)


def test_the_prompt_says_whether_a_space_comes_first() -> None:
    tokenizer = Tokenizer(models.WordLevel({"▁Hello": 0, "▁world": 1, "ly": 2, "[UNK]": 3}, unk_token="[UNK]"))
    tokenizer.decoder = decoders.Metaspace()
    assert pieces_of(tokenizer, [1, 2, 0], prompt=[0]) == [" world", "ly", " Hello", ""]
    assert pieces_of(tokenizer, [1, 2, 0]) == ["world", "ly", " Hello", ""]


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (["ab", "c", "d"], ["ab", "c", "d"]),
        (["a E", "N", "D b"], ["a ", "", ""]),
        (["a E", "N", "X"], ["a ", "", "ENX"]),
        (["aEEND"], ["aE"]),
        (["x##", "#y"], ["x", ""]),
        (["now END and ###"], ["now "]),
    ],
)
def test_stop_texts(pieces: list[str], shown: list[str]) -> None:
    stops = StopTexts(("END", "###"))
    assert [stops.add(piece) for piece in pieces] == shown


def test_what_was_held_back_for_nothing_is_shown_at_the_end() -> None:
    stops = StopTexts(("END",))
    assert (stops.add("the EN"), stops.held, stops.found) == ("the ", "EN", False)


@pytest.mark.parametrize("seed", range(3))
def test_a_stream_gives_the_text(seed: int) -> None:
    """Random bytes, most of them no character at all."""
    model = ours("gpt2")
    (prompt,) = rows_of((6,), 250, seed)
    stream = model.generate(prompt, stream=True, max_new_tokens=40, temperature=2.0, seed=seed)
    pieces = list(stream)
    whole = model.generate(prompt, max_new_tokens=40, temperature=2.0, seed=seed)
    assert "".join(pieces) == whole.texts[0] == stream.result.texts[0]
    assert stream.result.sequences == whole.sequences and len(pieces) > 3
    assert byte_tokenizer().decode(list(whole.sequences[0])) == whole.texts[0]


def test_a_stop_text_across_tokens() -> None:
    """Every token is one byte, so that a stop text of two characters always lies across two."""
    model, settings = ours("gpt2"), {"max_new_tokens": 40, "temperature": 2.0, "seed": 2}
    whole = model.generate("Once", **settings).texts[0]
    place = next(n for n in range(4, len(whole)) if whole[n : n + 2].isascii() and whole.find(whole[n : n + 2]) == n)
    found = model.generate("Once", stop_strings=[whole[place : place + 2], "nowhere"], **settings)
    assert found.texts == (whole[:place],) and found.reasons == ("stop",)
    assert (
        "".join(model.generate("Once", stream=True, stop_strings=whole[place : place + 2], **settings)) == whole[:place]
    )


def test_beams_end_at_stop_texts_too() -> None:
    no_ascii = list(range(100, 259))
    model, settings = ours("gpt2"), {"max_new_tokens": 12, "num_beams": 3, "suppress_tokens": no_ascii}
    whole = model.generate("Once", **settings).texts[0]
    found = model.generate("Once", stop_strings=[whole[3:5]], **settings)
    assert whole[3:5] not in found.texts[0] and found.scores is not None


def test_a_stream_that_is_left_early_tells_what_there_was() -> None:
    model, settings = ours("gpt2"), {"max_new_tokens": 40, "temperature": 2.0, "seed": 0}
    stream = model.generate("Once", stream=True, **settings)
    first = next(stream)
    early = stream.result
    assert early.texts[0].startswith(first) and 0 < len(early.sequences[0]) < 40
    assert first + "".join(stream) == model.generate("Once", **settings).texts[0]


def test_one_call_at_a_time() -> None:
    model = ours("gpt2")
    stream = model.generate("Once", stream=True, max_new_tokens=40, temperature=2.0, seed=0)
    next(stream)
    model.generate("Twice", max_new_tokens=2)
    with pytest.raises(BadUsage, match="another call of generate has begun on this model"):
        list(stream)


def test_texts_and_ids_are_the_same_prompt() -> None:
    model = ours("gpt2")
    ids = byte_tokenizer().encode("Once upon").ids
    assert model.generate("Once upon", max_new_tokens=8).sequences == model.generate(ids, max_new_tokens=8).sequences
    assert len(model.generate(["Once", "a time"], max_new_tokens=8).texts) == 2


def test_streams_are_of_one_text() -> None:
    with pytest.raises(BadUsage, match="a stream is of one text, and 2 were asked for"):
        ours("gpt2").generate(["a", "b"], stream=True)
    with pytest.raises(BadUsage, match="beams have no text before their end"):
        ours("gpt2").generate("a", stream=True, num_beams=2)
    with pytest.raises(BadInput, match="no tokenizer"):
        ours("llama").generate([7], stream=True)
    with pytest.raises(BadUsage, match="stop_strings need a tokenizer"):
        ours("llama").generate([7], stop_strings=["x"])
