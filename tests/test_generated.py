"""What recipes are trained on: two languages, words of classes, the project's own text, and their tokenizers."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from onnxsmith.models.recipes.classes import CLASS_OF, make_sentences  # noqa: E402
from onnxsmith.models.recipes.corpus import END, own_texts, train_bpe, xz_bits  # noqa: E402
from onnxsmith.models.recipes.languages import GENDERS, NOUNS, Phrase, Sentence, make_pairs  # noqa: E402
from onnxsmith.models.recipes.words import EOS, PAD, padded, word_tokenizer  # noqa: E402
from onnxsmith.models.training import build_problem, read_recipe, train  # noqa: E402


@pytest.mark.parametrize("name", ["gpt", "norms", "translation", "word-vectors"])
def test_recipes_fit_their_problems(name: str) -> None:
    recipe = read_recipe(name)
    problem = build_problem(recipe.runs[-1])
    loss = problem.loss(problem.collate([problem.examples[i] for i in range(2)]), torch.Generator())
    assert recipe.title and loss.isfinite() and len(problem.examples) >= recipe.runs[-1].batch


@pytest.mark.slow
@pytest.mark.parametrize(("name", "wanted"), [("translation", 95), ("word-vectors", 90)])
def test_what_is_learned(name: str, wanted: float, tmp_path: Path) -> None:
    (result,) = train(read_recipe(name), tmp_path / name)
    assert next(iter(result.quality.values())) > wanted


class TestLanguages:
    CAT, HOUSES = Phrase(0, False, True, None), Phrase(10, True, False, 2)

    def test_the_first_by_hand(self) -> None:
        cat, houses = self.CAT, self.HOUSES
        assert Sentence(cat, 0, 2, houses, None).first() == "the cat will see old houses"
        assert Sentence(houses, 0, 0, cat, None).first() == "old houses see the cat"
        assert Sentence(cat, 0, 0, houses, (0, True)).first() == "the cat sees old houses and they are red"
        assert Sentence(cat, 0, 0, houses, (0, False)).first() == "the cat sees old houses and it is red"

    @pytest.mark.parametrize("noun", range(GENDERS))
    def test_articles_adjectives_and_pronouns_have_the_gender_of_their_noun(self, noun: int) -> None:
        sentence = Sentence(Phrase(noun, False, True, 1), 0, 0, self.HOUSES, (0, False))
        article, _, adjective, *_, pronoun, remark = sentence.second().split()
        assert {word[-1] for word in (article, adjective, pronoun, remark)} == {"aeo"[noun]}

    def test_verbs_agree_in_number_and_stand_behind_the_object(self) -> None:
        one, many = (Sentence(subject, 3, 1, self.CAT, None).second() for subject in (self.CAT, self.HOUSES))
        assert many.split()[-1] == one.split()[-1] + "an"

    def test_pairs_differ_and_are_the_same_every_time(self) -> None:
        pairs = make_pairs(300, 1)
        assert pairs == make_pairs(300, 1) and pairs != make_pairs(300, 2)
        assert len({first for first, _ in pairs}) == 300

    def test_no_two_nouns_are_spelled_alike(self) -> None:
        assert len({Phrase(i, False, True, None).second("k").split()[1] for i in range(len(NOUNS))}) == len(NOUNS)

    def test_held_out_sentences_are_not_learned(self) -> None:
        problem = build_problem(read_recipe("translation").runs[0])
        learned, asked = ({tuple(source) for source, _ in some} for some in (problem.examples, problem.held_out))  # type: ignore[attr-defined]
        assert len(asked) == 1000 and not learned & asked


class TestWords:
    def test_ids(self) -> None:
        tokenizer = word_tokenizer(["a", "b", "a"])
        assert tokenizer.encode("b a c").ids == [4, 3, 2, EOS] and tokenizer.get_vocab_size() == 5
        assert tokenizer.decode([4, 3, EOS, PAD]) == "b a"

    def test_padding(self) -> None:
        ids, mask = padded([[5, 6], [7]])
        assert (ids.tolist(), mask.tolist()) == ([[5, 6], [7, PAD]], [[1, 1], [1, 0]])


class TestOwnText:
    def test_it_is_what_the_docstrings_say(self) -> None:
        assert any(text.startswith("This project's own text, as a corpus") for text in own_texts())
        assert sum(map(len, own_texts())) > 100_000

    def test_the_vocabulary_is_the_same_every_time(self) -> None:
        texts = own_texts()[:50]
        first, second = train_bpe(texts, 400), train_bpe(texts, 400)
        assert first.to_str() == second.to_str() and first.get_vocab_size() == 400
        assert first.token_to_id(END) == 0 and first.decode(first.encode(texts[0]).ids) == texts[0]

    def test_known_text_costs_less(self) -> None:
        texts = own_texts()
        assert xz_bits(texts[:20], texts[:5]) < xz_bits(texts[20:40], texts[:5]) < 8 * sum(map(len, texts[:5]))


def test_words_of_a_class_stand_in_its_places() -> None:
    sentences = make_sentences(200, 1)
    assert sentences == make_sentences(200, 1) != make_sentences(200, 2)
    cutting = [sentence for sentence in sentences if "cuts" in sentence]
    assert cutting and all(CLASS_OF[sentence[-1]] == "tool" for sentence in cutting)
