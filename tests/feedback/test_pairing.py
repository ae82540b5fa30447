from __future__ import annotations

import numpy as np
import pytest
import torch

from prefero.errors import PreferoError
from prefero.feedback.judges import Scored
from prefero.feedback.pairing import bradley_terry_pairs, confident_pairs, max_min, pairs_by
from prefero.generate.sampling import Sample


def scored(prompt: str, text: str, score: float, *, ended: bool = True) -> Scored:
    ids = np.ones(1, np.int64)
    return Scored(Sample(prompt, text, ids, ids, np.zeros(1, np.float32), ended), score)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("scale", "gap"), [(0.0, 1.0), (4.0, 0.25), (2.0, 1.0)])
def test_the_share_of_wins_is_bradley_and_terrys(scale: float, gap: float) -> None:
    count = 4000
    samples = [one for i in range(count) for one in (scored(f"p{i}", "a", gap), scored(f"p{i}", "b", 0.0))]
    rows = bradley_terry_pairs(samples, scale=scale, generator=generator())
    p = 1 / (1 + np.exp(-scale * gap))
    share = sum(row["chosen"] == "a" for row in rows) / count
    assert abs(share - p) < 4 * np.sqrt(p * (1 - p) / count)


def test_a_certain_annotator_takes_the_higher_score_and_keeps_both() -> None:
    samples = [scored("p", "bad", -1.0), scored("p", "good", 2.0)]
    assert bradley_terry_pairs(samples, scale=1e6, generator=generator()) == [
        {"prompt": "p", "chosen": "good", "rejected": "bad", "chosen_score": 2.0, "rejected_score": -1.0}
    ]


def test_equal_texts_and_cut_off_ones_make_no_pair_and_change_no_other() -> None:
    tail = [scored(f"p{i}", text, 0.0) for i in range(50) for text in ("a", "b")]
    heads = [
        [scored("q", "a", 0.0), scored("q", "a", 0.0)],
        [scored("q", "a", 0.0), scored("q", "b", 1.0, ended=False)],
    ]
    with_other = [scored("q", "a", 0.0), scored("q", "b", 1.0)]
    expected = bradley_terry_pairs(with_other + tail, scale=1.0, generator=generator(3))[1:]
    for head in heads:
        assert bradley_terry_pairs(head + tail, scale=1.0, generator=generator(3)) == expected


def test_neighbours_have_to_be_pairs() -> None:
    with pytest.raises(PreferoError, match="even number of responses, two a prompt; got 1"):
        bradley_terry_pairs([scored("p", "a", 0.0)], scale=1.0, generator=generator())
    with pytest.raises(PreferoError, match="answer 'p' and 'q'"):
        bradley_terry_pairs([scored("p", "a", 0.0), scored("q", "b", 0.0)], scale=1.0, generator=generator())


def test_a_rule_makes_rows_of_each_prompts_responses() -> None:
    samples = [
        scored("p", "a", 1.0),
        scored("p", "b", 3.0),
        scored("p", "cut off", 9.0, ended=False),
        scored("p", "c", -2.0),
        scored("q", "a", 1.0),
        scored("q", "b", 1.0),
        scored("r", "alone", 1.0),
    ]
    assert pairs_by(max_min, samples) == [
        {"prompt": "p", "chosen": "b", "rejected": "c", "chosen_score": 3.0, "rejected_score": -2.0}
    ]
    several = pairs_by(confident_pairs, samples)
    assert [(one["chosen"], one["rejected"]) for one in several] == [("a", "c"), ("b", "a"), ("b", "c")]


def test_a_rule_makes_no_pair_of_equal_texts() -> None:
    assert pairs_by(max_min, [scored("p", "a", 1.0), scored("p", "a", 0.0)]) == []
