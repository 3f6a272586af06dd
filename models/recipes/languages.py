"""Two languages with a grammar each, and sentences that say the same in both.

The first is like English. The second is made up, and has what makes translating more than looking words up:

- three genders, which the first does not show: articles, adjectives and pronouns agree with their noun;
- another order: adjectives stand behind the noun, and the verb at the end of its clause;
- articles tell the subject from the object, and are there in the plural too; verbs agree with their subject;
- what is "it" or "they" has the gender of the noun that it stands for, which only its number tells from the other one:
  "the cat will see old houses and they are red".
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NOUNS = _words(
    "cat dog bird horse fish child farmer sailor doctor teacher house door table window garden river mountain forest "
    "ship wagon lamp book letter knife apple loaf flower tree stone cloud"
)
ADJECTIVES = _words("red green old young small large quick slow quiet bright cold warm heavy light kind strange")
VERBS = _words("see find follow love watch carry hear touch draw fear help know meet choose need miss")
_PLURALS = {"child": "children", "loaf": "loaves", "knife": "knives"}
_CONSONANTS, _VOWELS, _TENSES = "bdgklmnprstv", "aeo", "tmr"  # present, past and future
GENDERS = 3


@dataclass(frozen=True)
class Phrase:
    """A noun with what stands around it; words are given by their places in the lists above."""

    noun: int
    plural: bool
    definite: bool
    adjective: int | None

    def first(self) -> str:
        """In the first language."""
        article = "the" if self.definite else "" if self.plural else "a"
        adjective = "" if self.adjective is None else ADJECTIVES[self.adjective]
        noun = _plural(NOUNS[self.noun]) if self.plural else NOUNS[self.noun]
        return f"{article} {adjective} {noun}"

    def second(self, case: str) -> str:
        """In the second language, as the subject ("k") or the object ("l")."""
        ending = self.agreement()
        adjective = "" if self.adjective is None else _stem(len(NOUNS) + self.adjective) + ending
        return f"{case}{'i' if self.definite else 'u'}{ending} {_stem(self.noun)}{'en' * self.plural} {adjective}"

    def agreement(self) -> str:
        """The ending of whatever agrees with the noun, by its gender and number."""
        return _VOWELS[self.noun % GENDERS] + "s" * self.plural


@dataclass(frozen=True)
class Sentence:
    """A subject that does something to an object, and perhaps what one of the two is like.

    ``remark`` is an adjective and whether it is the object's; then one of both phrases is singular and one plural.
    """

    subject: Phrase
    verb: int
    tense: int
    object: Phrase
    remark: tuple[int, bool] | None

    def first(self) -> str:
        """In the first language: subject, verb, object."""
        verb = VERBS[self.verb]
        present = verb if self.subject.plural else _plural(verb)
        text = f"{self.subject.first()} {(present, f'did {verb}', f'will {verb}')[self.tense]} {self.object.first()}"
        if self.remark is not None:
            text += f" and {'they are' if self._meant().plural else 'it is'} {ADJECTIVES[self.remark[0]]}"
        return " ".join(text.split())

    def second(self) -> str:
        """In the second language: subject, object, verb."""
        stem = _stem(len(NOUNS) + len(ADJECTIVES) + self.verb)
        verb = f"{stem}{_TENSES[self.tense]}{'an' * self.subject.plural}"
        text = f"{self.subject.second('k')} {self.object.second('l')} {verb}"
        if self.remark is not None:
            ending = self._meant().agreement()
            text += f" o h{ending} {_stem(len(NOUNS) + self.remark[0])}{ending}"
        return " ".join(text.split())

    def _meant(self) -> Phrase:
        return self.object if self.remark is not None and self.remark[1] else self.subject


def make_pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """So many different sentences in both languages, drawn by chance."""
    random, found = Random(seed), dict[str, str]()
    while len(found) < count:
        sentence = _sentence(random)
        found[sentence.first()] = sentence.second()
    return list(found.items())


def _sentence(random: Random) -> Sentence:
    subject, object = _phrase(random), _phrase(random)
    told_apart = subject.plural != object.plural
    remark = (random.randrange(len(ADJECTIVES)), random.random() < 0.5) if told_apart else None
    return Sentence(subject, random.randrange(len(VERBS)), random.randrange(len(_TENSES)), object, remark)


def _phrase(random: Random) -> Phrase:
    adjective = random.randrange(len(ADJECTIVES)) if random.random() < 0.5 else None
    return Phrase(random.randrange(len(NOUNS)), random.random() < 0.5, random.random() < 0.5, adjective)


def _plural(word: str) -> str:
    """The plural of a noun, which is spelled as the third person of a verb."""
    if word in _PLURALS:
        return _PLURALS[word]
    if word.endswith("rry"):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "sh", "ch")) else "s")


def _stem(word: int) -> str:
    """The second language's word of that number: 17 syllables on from the one before, so that neighbours differ."""
    size = len(_CONSONANTS) * len(_VOWELS) * len(_CONSONANTS)
    rest, last = divmod(word * 67 % size, len(_CONSONANTS))
    first, vowel = divmod(rest, len(_VOWELS))
    return _CONSONANTS[first] + _VOWELS[vowel] + _CONSONANTS[last]
