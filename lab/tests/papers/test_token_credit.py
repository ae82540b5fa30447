"""One word of a review is turned round, and token credit has to find it."""

from __future__ import annotations

import random

import pytest
import torch

from prefero.demo import reviews
from prefero.demo.reviews import REVIEWS
from prefero_lab.papers.experiments import token_credit
from prefero_lab.papers.experiments.decoding import Decoding
from prefero_lab.papers.experiments.token_credit import Guess, TokenCredit, turned_round
from tests.demo.small import WRITING

SIDES = ("chosen", "rejected")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))


def test_a_review_with_a_word_turned_round_is_well_formed_and_differs_in_that_word():
    rng = random.Random(0)
    for prompt in REVIEWS.draw_prompts("train", 50, 0):
        text = REVIEWS.write(prompt, rng)
        other = turned_round(text, rng)
        assert REVIEWS.measures["valid"](prompt, other)
        words = zip(text.split(), other.split(), strict=True)
        assert sum(one != two for one, two in words) == 1


@pytest.mark.parametrize(("behind", "found", "near"), [(0, 1, 1), (1, 0, 1), (-1, 0, 0)])
def test_the_lowest_log_ratio_is_looked_for_at_the_word_that_was_replaced(monkeypatch, behind, found, near):
    monkeypatch.setattr(reviews, "REVIEWS", WRITING)
    experiment = TokenCredit(pairs=8, held_out=16, best_of=2)
    made = experiment.make(0)
    words = [
        next(i for i, both in enumerate(zip(*pair, strict=True)) if both[0] != both[1])
        for pair in (
            [made.start.tokenizer(row[side], add_special_tokens=False).input_ids for side in SIDES]
            for row in made.held_out
        )
    ]

    def told(model, cells):
        logps = [torch.zeros(len(cell.response), dtype=torch.float64) for cell in cells]
        for one, word in zip(logps, words, strict=True):
            one[word + behind] = -1.0 if model == "told" else 0.0
        return logps

    monkeypatch.setattr(token_credit, "token_logps", told)
    numbers = experiment.measure(made, "told", 0)
    assert set(numbers["found"]) == {found} and set(numbers["near"]) == {near}
    assert set(numbers["credit"]) == {-1.0 if behind == 0 else 0.0}
    assert (set(numbers["before"]) == {0.0}) == (behind >= 0)
    chance = experiment.measure(made, Guess("chance"), 0)["found"]
    assert all(0 < one < 0.2 for one in chance) and experiment.make(0).rows == made.rows


def test_log_probabilities_come_in_the_order_of_the_responses(monkeypatch):
    monkeypatch.setattr(reviews, "REVIEWS", WRITING)
    experiment = TokenCredit(pairs=8, held_out=8, best_of=1)
    made = experiment.make(0)
    start = experiment.measure(made, experiment.start(made), 0)
    assert set(start["credit"]) == set(start["before"]) == {0.0} and len(start["found"]) == len(made.held_out)


class Small(Decoding):
    text_world = WRITING


def test_beams_find_likelier_texts_than_greedy_decoding_and_sampling_is_the_yardsticks():
    experiment = Small(pairs=32, epochs=1.0, examples_per_step=8, prompts=8)
    made = experiment.make(0)
    texts = {beams: experiment.train(made, {"beams": beams}, 0).model for beams in (0, 1, 4)}
    assert texts[0] == [one.text for one in made.held_out.measure(made.policy).samples]
    assert {len(one) for one in texts.values()} == {8} and texts[1] != texts[0]
    assert texts[4] == experiment.train(made, {"beams": 4}, 0).model
    of_start = experiment.train(made, {"beams": 1, "of": "start"}, 0).model
    assert experiment.measure(made, of_start, 0).keys() == {"gold_reward", "length", "valid"}
