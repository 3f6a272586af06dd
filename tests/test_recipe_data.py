"""The texts that recipes learn from: the same every time, and apart from those that they are asked about."""

from __future__ import annotations

import pytest

from onnxsmith.models.recipes.messages import LABELS, make_messages
from onnxsmith.models.recipes.stories import HE, SHE, WORKS, Stories, vocabulary

HALVES = [
    {word for work in WORKS for words in (work.places, work.tools, work.things) for word in words[start : start + 2]}
    for start in (0, 2)
]


def _texts(stories: Stories) -> list[str]:
    """One of each kind."""
    first, second, _ = stories.pair()
    start, choices, _ = stories.choice()
    return [*stories.document(), first, second, *stories.question(), start, *choices, *stories.report()]


class TestStories:
    def test_are_the_same_every_time(self) -> None:
        assert _texts(Stories(3)) == _texts(Stories(3)) != _texts(Stories(4))

    def test_have_no_word_beside_the_vocabulary(self) -> None:
        stories, known = Stories(0), set(vocabulary())
        assert {word for _ in range(300) for text in _texts(stories) for word in text.split()} == known

    @pytest.mark.parametrize("half", [0, 1])
    def test_of_one_half_have_no_word_of_the_other(self, half: int) -> None:
        stories = Stories(0, half=half)  # type: ignore[arg-type]
        used = {word for _ in range(200) for text in _texts(stories) for word in text.split()}
        assert used >= HALVES[half] and not used & HALVES[1 - half]

    def test_pairs_are_labelled_by_who_and_what(self) -> None:
        stories, job_of = Stories(0), _jobs()
        for _ in range(200):
            first, second, label = stories.pair()
            people = [next(word for word in text.split() if word in HE + SHE) for text in (first, second)]
            jobs = [next(job_of[word] for word in text.split() if word in job_of) for text in (first, second)]
            expected = "unknown" if people[0] != people[1] else "yes" if jobs[0] == jobs[1] else "no"
            assert label == expected, (first, second)

    def test_answers_stand_once_in_their_story(self) -> None:
        stories = Stories(0)
        for _ in range(200):
            question, story, answer = stories.question()
            assert story.split().count(answer) == 1
            who = next(word for word in question.split() if word in HE + SHE)
            (sentence,) = [s for s in story.split(" . ") if answer in s.split()]
            assert who in sentence.split()

    def test_the_right_choice_is_of_the_same_people(self) -> None:
        stories, job_of = Stories(0), _jobs()
        for _ in range(200):
            start, choices, right = stories.choice()
            assert len(choices) == 4 and len(set(choices)) == 4
            jobs = {job_of[word] for word in f"{start} {choices[right]}".split() if word in job_of}
            assert len(jobs) <= 2  # a story has two persons at most

    def test_reports_tell_all_in_order(self) -> None:
        stories, job_of = Stories(0), _jobs()
        verbs = ("is", "works", "uses", "looks")
        for _ in range(200):
            story, report = stories.report()
            told = [[word for word in text.split() if word in job_of] for text in (story, report)]
            assert len(told[1]) == 3 and sorted(told[0]) == sorted(told[1])
            order = [verbs.index(word) for word in report.split() if word in verbs]
            assert len(order) == 3 and order == sorted(order)


def _jobs() -> dict[str, str]:
    """The profession that each word goes with."""
    return {word: w.job for w in WORKS for word in (w.job, *w.places, *w.tools, *w.things)}


class TestMessages:
    def test_are_the_same_every_time(self) -> None:
        assert make_messages(20, 10, 1) == make_messages(20, 10, 1) != make_messages(20, 10, 2)

    def test_known_and_new_ones_share_neither_text_nor_label_counts(self) -> None:
        known, new = make_messages(15, 10, 1)
        assert not {text for text, _ in known} & {text for text, _ in new}
        for messages, count in ((known, 15), (new, 10)):
            assert {label: sum(one == label for _, one in messages) for label in LABELS} == dict.fromkeys(LABELS, count)
            assert len({text for text, _ in messages}) == len(messages)
