"""The experiment that looks at what a learned token mask is on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from prefero.objectives.heads import Head
from prefero.objectives.quantities import Measured
from prefero.objectives.signals import TOKEN_STATES
from prefero_lab.papers.experiments.token_masks import Masked, TokenMasks
from prefero_lab.worlds.safety import SAFETY


class Small(TokenMasks):
    """A start model that has hardly learnt anything: masks do not need one that has."""

    text_world = replace(SAFETY, recipe=replace(SAFETY.recipe, hidden=16, layers=1, heads=2, steps=10))


@pytest.fixture(scope="module")
def experiment():
    return Small(pairs=32, epochs=1.0, examples_per_step=8, prompts=16)


@pytest.fixture(scope="module")
def made(experiment, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFERO_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield experiment.make(100)


def sparse(weight: float) -> dict:
    return {
        "objective": {"method": "sparsepo", "beta": 0.1, "l1_reward": weight, "l1_kl": weight},
        "learning_rate": 1e-3,
        "objective_learning_rate": 0.1,
    }


def test_without_a_mask_all_tokens_count_alike(experiment, made):
    numbers = experiment.measure(made, experiment.start(made), 100)
    assert set(numbers["on_first"]) == {1.0} == set(numbers["mask"]) and set(numbers["zeros"]) == {0.0}
    dpo = {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 1e-3}
    assert experiment.train(made, dpo, 100).model.mask is None


class Once(torch.nn.Module):
    """A mask on what is predicted after the prompt alone: the position whose state was seen there."""

    def __init__(self, *, elsewhere: bool) -> None:
        super().__init__()
        self.elsewhere = elsewhere

    def forward(self, states):
        first = torch.zeros(states.shape[:3], dtype=states.dtype)
        first[..., 0] = 1
        return (1 - first if self.elsewhere else first)[..., None]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_the_share_on_the_first_token_is_what_the_mask_puts_there(experiment, made, elsewhere):
    mask = Head(Once(elsewhere=elsewhere), Measured(TOKEN_STATES, "reference"))
    numbers = experiment.measure(made, Masked(made.start.model, mask), 100)
    row = made.rows[0]
    length = len(made.start.tokenizer(row["chosen"]).input_ids)  # one start token here, one end token there
    expected = (0, 1 / length) if elsewhere else (length, 1 - 1 / length)
    assert (numbers["on_first"][0], numbers["zeros"][0]) == pytest.approx(expected)
    assert numbers["mask"][0] == pytest.approx(1 - numbers["zeros"][0])


def test_the_mask_that_was_trained_is_the_one_that_is_measured(experiment, made):
    """A large penalty empties it: what a copy of the objective, untrained, would not show."""
    free, held = (
        experiment.measure(made, experiment.train(made, sparse(weight), 100).model, 100)
        for weight in (0.0, 1.0)
    )
    assert sum(held["mask"]) < 0.5 * sum(free["mask"])
    assert sum(held["zeros"]) >= sum(free["zeros"])
