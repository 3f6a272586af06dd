"""Short stories of people at work, and questions about them: text whose words tell something of each other.

Whose tool the net is nobody says: that it goes with sailors and harbours is to be learned from many stories. The words
come in two halves: what is learned from labels with the one holds for the other only where the words were known before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

_WORK = """
sailor: harbour ship island dock | anchor net rope sail | crab shell wave whale
farmer: barn field meadow stable | plough pitchfork sickle tractor | cow calf wheat hay
doctor: hospital clinic ward ambulance | needle bandage syringe scalpel | patient fever wound pill
baker: bakery kitchen cellar oven | rolling-pin whisk bowl sieve | bread cake dough flour
teacher: school classroom library playground | chalk blackboard globe ruler | lesson pupil homework essay
gardener: garden greenhouse park orchard | rake hose spade shears | rose tulip hedge weed
painter: studio gallery attic museum | brush easel palette canvas | portrait landscape sketch mural
miner: mine tunnel quarry shaft | pickaxe helmet drill lantern | coal gold iron gravel
smith: forge workshop smithy foundry | hammer anvil tongs bellows | horseshoe sword nail chain
clerk: office archive bank counter | stapler folder stamp printer | letter invoice receipt report
"""
HE = ("adam", "ben", "carl", "david", "eric", "frank", "george", "henry")
SHE = ("anna", "bella", "clara", "dora", "emma", "fiona", "grace", "helen")


@dataclass(frozen=True)
class Work:
    """What goes with a profession, four words of each kind."""

    job: str
    places: tuple[str, ...]
    tools: tuple[str, ...]
    things: tuple[str, ...]


def _work(line: str) -> Work:
    job, _, rest = line.partition(": ")
    places, tools, things = (tuple(part.split()) for part in rest.split("|"))
    return Work(job, places, tools, things)


WORKS = tuple(map(_work, _WORK.strip().splitlines()))
_SENTENCES = {
    "job": ("{who} is a {job} .", "{who} became a {job} ."),
    "place": ("{who} works in the {place} .", "{who} is often in the {place} ."),
    "tool": ("{who} uses the {tool} .", "{who} cannot work without the {tool} ."),
    "thing": ("{who} looks after the {thing} .", "{who} dreams of the {thing} ."),
}
_QUESTIONS = {
    "job": "what is {who} ?",
    "place": "where is {who} ?",
    "tool": "what does {who} use ?",
    "thing": "what does {who} see ?",
}
Kind = Literal["job", "place", "tool", "thing"]
_KINDS: tuple[Kind, ...] = ("job", "place", "tool", "thing")
Label = Literal["yes", "no", "unknown"]
_REPORTED = {"job": "is a {}", "place": "works in the {}", "tool": "uses the {}", "thing": "looks after the {}"}
LABELS: tuple[Label, ...] = ("yes", "no", "unknown")


def vocabulary() -> list[str]:
    """Every word that a story or a question can have, in alphabetical order."""
    templates = [one for some in _SENTENCES.values() for one in some] + [*_QUESTIONS.values(), *_REPORTED.values()]
    written = {word for text in templates for word in text.split() if "{" not in word}
    work = {word for one in WORKS for word in (one.job, *one.places, *one.tools, *one.things)}
    return sorted({*written, *work, *HE, *SHE, "he", "she", "and"})


class Stories:
    """Draws stories and questions by chance.

    ``half`` limits places, tools and things to the first (0) or the second (1) two words of each profession; None
    takes all.
    """

    def __init__(self, seed: int, half: Literal[0, 1] | None = None) -> None:
        self._random, self._half = Random(seed), half

    def document(self) -> list[str]:
        """Three paragraphs of two sentences each, of one person's work or of two persons'."""
        people = list(zip(self._people(2), self._works(2), strict=True))
        if self._random.random() < 0.5:
            (name, work), _ = people
            pronoun = "he" if name in HE else "she"
            first = self._sentence("job", name, work)
            rest = [self._sentence(self._random.choice(_KINDS[1:]), pronoun, work) for _ in range(5)]
            sentences = [first, *rest]
        else:
            sentences = [
                self._sentence(kind, *self._random.choice(people)) for kind in self._random.choices(_KINDS, k=6)
            ]
        return [" ".join(sentences[i : i + 2]) for i in (0, 2, 4)]

    def pair(self) -> tuple[str, str, Label]:
        """A sentence, another, and whether that is likely by the first; of somebody else, nothing is known."""
        (who, other), (work, foreign) = self._people(2), self._works(2)
        label = self._random.choice(LABELS)
        kinds = self._random.sample(_KINDS, 2)
        first = self._sentence(kinds[0], who, work)
        second = self._sentence(kinds[1], other if label == "unknown" else who, foreign if label == "no" else work)
        return first, second, label

    def question(self) -> tuple[str, str, str]:
        """A question, a story of one person that answers it, and the answer, a word of the story."""
        facts = self._facts(len(_KINDS))
        story, (kind, who, answer) = self._told(facts), self._random.choice(facts)
        return _QUESTIONS[kind].format(who=who), story, answer

    def choice(self, choices: int = 4) -> tuple[str, list[str], int]:
        """The first paragraph of a story, second paragraphs of this and of other stories, and which is its own."""
        documents = [self.document() for _ in range(choices)]
        right = self._random.randrange(choices)
        return documents[right][0], [second for _, second, _ in documents], right

    def report(self) -> tuple[str, str]:
        """A story of one person, and the same in one sentence: what, where, with what and for what, in that order."""
        facts = self._facts(3)
        ordered = sorted(facts, key=lambda fact: _KINDS.index(fact[0]))
        parts = [_REPORTED[kind].format(word) for kind, _, word in ordered]
        return self._told(facts), f"{facts[0][1]} {' and '.join(parts)} ."

    def _facts(self, count: int) -> list[tuple[Kind, str, str]]:
        """Of one person, in any order: their kinds, whose they are, and the words that tell."""
        (who,), (work,) = self._people(1), self._works(1)
        return [(kind, who, self._word(kind, work)) for kind in self._random.sample(_KINDS, count)]

    def _told(self, facts: Sequence[tuple[Kind, str, str]]) -> str:
        return " ".join(self._said(*fact) for fact in facts)

    def _people(self, count: int) -> list[str]:
        return self._random.sample(HE + SHE, count)

    def _works(self, count: int) -> list[Work]:
        return self._random.sample(WORKS, count)

    def _sentence(self, kind: Kind, who: str, work: Work) -> str:
        return self._said(kind, who, self._word(kind, work))

    def _said(self, kind: Kind, who: str, word: str) -> str:
        return self._random.choice(_SENTENCES[kind]).format(who=who, **{kind: word})

    def _word(self, kind: Kind, work: Work) -> str:
        if kind == "job":
            return work.job
        words: Sequence[str] = {"place": work.places, "tool": work.tools, "thing": work.things}[kind]
        chosen = words if self._half is None else words[2 * self._half : 2 * self._half + 2]
        return self._random.choice(chosen)
