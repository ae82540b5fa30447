"""Segments join back to their text and reach the tokens with their scores; noise is what it says."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

from prefero.data.formats import load_examples
from prefero.errors import PreferoError
from prefero.feedback.segment_scores import cut, noisy_scores, segment_spans


def test_sentences_and_code_blocks() -> None:
    text = 'First. "Second!" Third?\n\nUse this:\n```python\nx = 1. \n\ny = 2\n```\nDone.'
    assert cut(text) == [
        "First. ",
        '"Second!" ',
        "Third?\n\n",
        "Use this:\n",
        "```python\nx = 1. \n\ny = 2\n```\n",
        "Done.",
    ]


def test_numbers_and_open_blocks_are_not_cut() -> None:
    assert cut("It costs 3.50 or so.") == ["It costs 3.50 or so."]
    assert cut("See:\n```\na. b") == ["See:\n", "```\na. b"]


@given(st.text(alphabet="ab.!? \n`。", max_size=40))
def test_segments_join_back_to_the_text(text: str) -> None:
    parts = cut(text)
    assert "".join(parts) == text
    assert all(part.strip() for part in parts[1:])


def test_scored_segments_are_spans_of_a_row() -> None:
    chosen, rejected = "It is Paris. Of course.", "It is Rome."
    row = {
        "prompt": "p",
        "chosen": chosen,
        "rejected": rejected,
        "chosen_spans": segment_spans(chosen, [3.0, 1.5]),
        "rejected_spans": segment_spans(rejected, [0.5]),
    }
    first, second = load_examples([row])[0].responses[0].spans
    assert (first.start, first.end, first.index, first.scores["score"]) == (0, 13, 1, 3.0)
    assert (second.start, second.end, second.index, second.scores["score"]) == (13, 23, 2, 1.5)
    with pytest.raises(PreferoError, match="2 scores for 1 segments"):
        segment_spans(rejected, [1.0, 2.0])


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("noise", ["uniform", "gaussian"])
def test_errors_stay_within_the_range_and_depend_on_the_generator_alone(noise) -> None:
    scores = [0.0, 4.0, 2.0] * 50
    first, again, other = (
        noisy_scores(scores, noise=noise, epsilon=1.0, generator=draws(seed)) for seed in (0, 0, 1)
    )
    assert first == again != other
    assert all(0 <= score <= 4 for score in first)
    errors = torch.tensor([b - a for a, b in zip(scores, first, strict=True) if a == 2.0])
    if noise == "uniform":
        assert errors.abs().max() <= 1
    assert 0.4 < float(errors.std()) < 1.3


def test_swaps_give_another_segments_score() -> None:
    scores = [float(number) for number in range(5)]
    swapped = noisy_scores(scores, noise="swap", epsilon=1.0, generator=draws(0))
    assert all(new in scores and new != old for new, old in zip(swapped, scores, strict=True))
    assert noisy_scores(scores, noise="swap", epsilon=0.0, generator=draws(0)) == scores
    assert noisy_scores([2.0], noise="swap", epsilon=1.0, generator=draws(0)) == [2.0]
