"""The experiment on embeddings: same numbers again, and a verdict that turns with the labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean

import pytest
import torch

from prefero_lab.papers import reproduce
from prefero_lab.papers.experiments.embedded import EmbeddedExperiment, Meanings, compared
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper
from prefero_lab.papers.verdicts import FAILS, HOLDS

DPO = {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 0.1}


def test_numbers_are_one_a_prompt_and_the_same_again():
    experiment = EmbeddedExperiment(prompts=16, pairs=100, steps=5)
    made, again = experiment.make(0), experiment.make(0)
    assert torch.equal(made.comparisons, again.comparisons) and made.comparisons[:, 0].max() < 8
    assert (made.comparisons[:, 1] != made.comparisons[:, 2]).all()
    numbers = experiment.measure(made, experiment.train(made, DPO, 0).model, 0)
    assert numbers == experiment.measure(made, experiment.train(again, DPO, 0).model, 0)
    assert {len(numbers[name]) for name in ("gold_reward", "ranking", "kl")} == {8}
    start = experiment.measure(made, experiment.start(made), 0)
    assert max(start["kl"]) < 1e-9 < min(numbers["kl"]) and set(start["fits_flipped"]) == {0.5}


def test_gold_is_in_the_class_of_policies():
    made = EmbeddedExperiment().make(0)
    assert torch.allclose(made.features @ torch.eye(6, dtype=torch.float64).flatten(), made.gold)
    assert 0.2 < fmean(made.flipped.double().tolist()) < 0.4


def test_kernels_read_the_embeddings():
    """κ of a radial kernel is the gap of gold, times 1/σ²: what flipped labels contradict."""
    from prefero.objectives.presets.kernels import RadialBasis, Similarity
    from prefero.objectives.quantities import Measured
    from prefero.objectives.signals import PROMPT_STATE, STATE

    experiment = EmbeddedExperiment()
    made = experiment.make(0)
    batch = compared(made, experiment.start(made))
    kernel = Similarity(RadialBasis(0.5), Measured(PROMPT_STATE, "reference"), Measured(STATE, "reference"))(
        batch
    )
    which, chosen, rejected = made.comparisons.T
    gaps = made.gold[which, chosen] - made.gold[which, rejected]
    assert torch.allclose(kernel[:, 0] - kernel[:, 1], 4 * gaps)


@dataclass(frozen=True)
class Turned(EmbeddedExperiment):
    sign: int = 1

    def make(self, seed: int) -> Meanings:
        made = super().make(seed)
        return made if self.sign > 0 else replace(made, comparisons=made.comparisons[:, [0, 2, 1]])


@pytest.mark.parametrize(("sign", "verdict"), [(1, HOLDS), (-1, FAILS)])
def test_with_the_sign_flipped_the_verdict_turns(tmp_path, sign, verdict):
    claim = Claim(
        statement="DPO raises the gold reward.",
        experiment=Turned(steps=50, sign=sign),
        arms=(START, Arm("dpo", DPO)),
        expected=(Expectation("dpo", "start", "gold_reward"),),
        refuted_by="no gain",
        seconds=1,
    )
    paper = Paper("p097", "t", "2025", "nothing", (claim,), key="turned", area="nowhere")
    assert reproduce(paper, output=tmp_path).verdict == verdict
