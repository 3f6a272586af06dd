"""Objectives against values worked out by hand, and against what their papers say of them."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from onnxsmith.models.objectives.denoising import corrupt_spans, infill, permute_sentences  # noqa: E402
from onnxsmith.models.objectives.losses import (  # noqa: E402
    IGNORED,
    SkipGram,
    cross_entropy,
    noise_distribution,
    span_loss,
)
from onnxsmith.models.objectives.masking import IS_NEXT, NOT_NEXT, mask_tokens, sentence_pair  # noqa: E402
from onnxsmith.models.objectives.shifting import next_tokens, teacher_forced  # noqa: E402


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestLosses:
    def test_cross_entropy_by_hand(self) -> None:
        logits = torch.tensor([[[0.0, math.log(3.0)], [5.0, 1.0]]])  # probabilities 1/4 and 3/4; not counted
        assert cross_entropy(logits, torch.tensor([[1, IGNORED]])).item() == pytest.approx(-math.log(0.75))

    def test_smoothing_by_hand(self) -> None:
        logits = torch.tensor([[0.0, math.log(3.0)]])
        wanted = -(0.95 * math.log(0.75) + 0.05 * math.log(0.25))  # 0.9 + 0.1 / 2 on the label, 0.1 / 2 beside it
        assert cross_entropy(logits, torch.tensor([1]), 0.1).item() == pytest.approx(wanted)

    def test_no_label_no_loss(self) -> None:
        logits = torch.randn(2, 3, 5, requires_grad=True)
        loss = cross_entropy(logits, torch.full((2, 3), IGNORED))
        loss.backward()
        assert loss.item() == 0 and logits.grad is not None and not logits.grad.any()

    def test_span_by_hand(self) -> None:
        even, sure = torch.zeros(1, 4), torch.tensor([[0.0, math.log(7.0)]])
        loss = span_loss(even, sure, torch.tensor([2]), torch.tensor([1]))
        assert loss.item() == pytest.approx((math.log(4) - math.log(7 / 8)) / 2)

    def test_skip_gram_by_hand(self) -> None:
        model = SkipGram(3, 2)
        with torch.no_grad():
            model.centre.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
            model.context.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.0], [-1.0, 3.0]]))
        loss = model(torch.tensor([0]), torch.tensor([0]), torch.tensor([[1, 2]]))
        logistic = [1 / (1 + math.exp(-x)) for x in (2.0, -0.0, 1.0)]
        assert loss.item() == pytest.approx(-sum(map(math.log, logistic)))
        (first, cosine), (second, _) = model.nearest(0, 2)
        assert (first, second) == (2, 1) and cosine == pytest.approx(math.sqrt(0.5))

    def test_negatives_are_drawn_by_the_power_of_three_quarters(self) -> None:
        assert noise_distribution(torch.tensor([16.0, 1.0])).tolist() == pytest.approx([8 / 9, 1 / 9])


class TestShifting:
    def test_next_tokens(self) -> None:
        ids, mask = torch.tensor([[5, 6, 7, 0]]), torch.tensor([[1, 1, 1, 0]])
        inputs, read, labels = next_tokens(ids, mask)
        assert (inputs.tolist(), read.tolist()) == ([[5, 6, 7]], [[1, 1, 1]])
        assert labels.tolist() == [[6, 7, IGNORED]]

    def test_teacher_forcing(self) -> None:
        inputs, labels = teacher_forced(torch.tensor([[8, 9, 2, 0]]), torch.tensor([[1, 1, 1, 0]]), start=1)
        assert inputs.tolist() == [[1, 8, 9, 2]] and labels.tolist() == [[8, 9, 2, IGNORED]]


class TestMasking:
    def test_how_many_and_what_becomes_of_them(self) -> None:
        ids = torch.randint(10, 1000, (64, 200), generator=seeded())
        eligible = torch.ones_like(ids, dtype=torch.bool)
        eligible[:, 0] = False
        inputs, labels = mask_tokens(ids, eligible, 1000, 3, seeded(1))
        told = labels != IGNORED
        assert told.sum(1).tolist() == [round(199 * 0.15)] * 64 and not told[:, 0].any()
        assert torch.equal(inputs[~told], ids[~told]) and torch.equal(labels[told], ids[told])
        hidden, kept = (inputs[told] == 3).double().mean(), (inputs[told] == ids[told]).double().mean()
        assert hidden.item() == pytest.approx(0.8, abs=0.03) and kept.item() == pytest.approx(0.1, abs=0.03)

    def test_one_at_least_and_none_where_none_may(self) -> None:
        eligible = torch.tensor([[True, False], [False, False]])
        _, labels = mask_tokens(torch.tensor([[7, 8], [7, 8]]), eligible, 10, 3, seeded())
        assert labels.tolist() == [[7, IGNORED], [IGNORED, IGNORED]]

    def test_pairs_follow_half_the_time(self) -> None:
        documents = [[[1], [2], [3]], [[4], [5]], [[6]]]
        generator = seeded()
        found = [sentence_pair(documents, 0, 1, generator) for _ in range(400)]
        assert all(first == [2] for first, _, _ in found)
        assert {tuple(second) for _, second, label in found if label == IS_NEXT} == {(3,)}
        assert {tuple(second) for _, second, label in found if label == NOT_NEXT} == {(4,), (5,), (6,)}
        assert sum(label == IS_NEXT for *_, label in found) == pytest.approx(200, abs=40)


class TestDenoising:
    @pytest.mark.parametrize("size", [2, 3, 20, 200])
    def test_spans_go_out_and_can_be_put_back(self, size: int) -> None:
        text, sentinels = list(range(100, 100 + size)), list(range(50))
        inputs, target = corrupt_spans(text, sentinels, seeded(size))
        out = {s: target[target.index(s) + 1 : target.index(s + 1)] for s in inputs if s < 50}
        assert [t for token in inputs for t in out.get(token, [token])] == text
        assert sum(map(len, out.values())) == min(max(round(size * 0.15), 1), size - 1)
        assert target[-1] == len(out) and all(out.values())

    def test_infilling_covers_what_it_should(self) -> None:
        text, lengths = list(range(10, 210)), []
        for seed in range(20):
            found = infill(text, 3, seeded(seed))
            left = [token for token in found if token != 3]
            assert len(left) == 140 and left == sorted(left)
            lengths.append(60 / found.count(3))
        assert 2 < sum(lengths) / 20 < 4  # the mean of Poisson(3), with the empty ones

    def test_sentences_change_places_and_stay_whole(self) -> None:
        text = [1, 2, 9, 3, 9, 4, 5, 6, 9, 7]
        found = {tuple(permute_sentences(text, {9}, seeded(s))) for s in range(200)}
        assert len(found) == 24 and all(sorted(order) == sorted(text) for order in found)
        assert all((1, 2, 9) in zip(order, order[1:], order[2:], strict=False) for order in found)
