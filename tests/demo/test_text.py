from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from prefero.data.formats import load_examples
from prefero.demo.start import StartModel
from prefero.demo.text import HeldOut, stream
from prefero.errors import PreferoError
from tests.demo.small import SMALL


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> StartModel:
    return SMALL.start_model(tmp_path_factory.mktemp("worlds"))


def test_prompts_are_drawn_by_seed_without_repeats_and_keep_to_their_side() -> None:
    train, held_out = (SMALL.draw_prompts(split, 300, 0) for split in ("train", "held-out"))
    assert train == SMALL.draw_prompts("train", 300, 0)
    assert train != SMALL.draw_prompts("train", 300, 1)
    assert len(set(train)) == len(set(held_out)) == 300
    assert not set(train) & set(held_out)
    assert not {prompt for prompt, _ in SMALL.corpus(500, 0)} & set(SMALL.prompts(held_out=True))


def test_more_prompts_than_there_are_is_an_error() -> None:
    with pytest.raises(PreferoError, match=r"world reviews: 9000 held-out prompts .* there are 7401"):
        SMALL.draw_prompts("held-out", 9000, 0)


def test_the_corpus_is_one_endless_sequence() -> None:
    assert SMALL.corpus(20, 3)[:5] == SMALL.corpus(5, 3)
    assert SMALL.corpus(5, 3) != SMALL.corpus(5, 4)


def test_streams_differ_by_purpose_and_seed() -> None:
    names = [("pairs", 0), ("pairs", 1), ("held-out", 0)]
    draws = [torch.rand((), generator=stream(*name)).item() for name in names]
    assert len(set(draws)) == 3
    assert draws[0] == torch.rand((), generator=stream(*names[0])).item()


def test_pairs_are_reproducible_scored_and_readable(start: StartModel, tmp_path: Path) -> None:
    # An untrained model hardly ever ends by itself within a dozen tokens, and what is cut off makes no pair.
    ended = deepcopy(start)
    with torch.no_grad():
        embedding = ended.model.get_input_embeddings().weight
        embedding[start.tokenizer.eos_token_id] = embedding.mean(0) * 3
    rows = SMALL.preference_pairs(ended, 200, 5)
    assert rows and rows == SMALL.preference_pairs(ended, 200, 5)
    assert rows != SMALL.preference_pairs(ended, 200, 6)
    for row in rows:
        assert row["chosen"] != row["rejected"]
        assert row["chosen_score"] == SMALL.gold(row["prompt"], row["chosen"])
        assert row["rejected_score"] == SMALL.gold(row["prompt"], row["rejected"])
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows if row["chosen"] and row["rejected"]))
    examples = load_examples(str(file))
    assert examples[0].roles == ("chosen", "rejected")


def test_the_start_model_measures_as_itself(start: StartModel) -> None:
    outcome = HeldOut(SMALL, start, prompts=64).measure(start.model)
    assert outcome.gain.value == 0
    assert outcome.kl.value == pytest.approx(0, abs=1e-6)
    assert 0.5 in outcome.win_rate.interval
    row = outcome.row()
    assert set(row) == {*row["interval"], "interval"}
    assert 0 <= row["valid"] <= 1


def test_every_policy_meets_the_same_prompts_noise_and_opponent(start: StartModel) -> None:
    held_out = HeldOut(SMALL, start, prompts=32, seed=1)
    policy = deepcopy(start.model)
    with torch.no_grad():
        for weight in policy.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=stream("policy"))
    first, second = held_out.measure(policy), HeldOut(SMALL, start, prompts=32, seed=1).measure(policy)
    assert first.row() == second.row()
    assert [one.prompt for one in first.samples] == held_out.prompts
    assert first.kl.value > 0
    same = [a.text == b.text for a, b in zip(held_out.before, held_out.opponent, strict=True)]
    assert not all(same)
