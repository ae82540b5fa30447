"""DRO: single responses with a reward, on an encoder–decoder."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from prefero.papers.paper import START, Arm, Claim, Expectation, Paper
from prefero.papers.text import Made, TextExperiment

if TYPE_CHECKING:
    from prefero.worlds.text import TextWorld


@dataclass(frozen=True)
class SingleResponses(TextExperiment):
    """A text world whose start model is a T5, and single responses of it with their gold rewards, which are
    standardised; a response is labelled desirable if its reward is above the mean. No two are compared."""

    pairs: int = 1024
    epochs: float = 2.0

    @property
    def made_of(self) -> TextWorld:
        from prefero.worlds.start import EncoderDecoderRecipe

        return replace(super().made_of, recipe=EncoderDecoderRecipe())

    def make(self, seed: int) -> Made:
        made = super().make(seed)
        return replace(made, rows=single_responses(made.rows, seed))


def single_responses(pairs: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Both sides of every pair as rows of their own, in an order that keeps no two together."""
    rewards = [pair[f"{role}_score"] for pair in pairs for role in ("chosen", "rejected")]
    mean, spread = fmean(rewards), pstdev(rewards)
    rows = [
        {
            "prompt": pair["prompt"],
            "completion": pair[role],
            "score": (pair[f"{role}_score"] - mean) / spread,
            "label": pair[f"{role}_score"] > mean,
        }
        for pair in pairs
        for role in ("chosen", "rejected")
    ]
    random.Random(seed).shuffle(rows)
    return rows


STEP_SIZES = {"learning_rate": (2e-4, 5e-4, 1e-3)}

PAPER = Paper(
    id="p091",
    title="Offline Regularised Reinforcement Learning for Large Language Models Alignment",
    citation="Richemond et al., 2024, arXiv 2405.19107",
    adds="Single responses with a reward are enough: the log-ratio is regressed on the reward above a learnt "
    "value of the prompt.",
    methods=("dro_v",),
    evidence=(
        Claim(
            statement="From single responses with a reward, none compared with another, DRO-V raises the "
            "true reward of what an encoder–decoder writes to new prompts, and more than KTO does with the "
            "rewards made labels.",
            experiment=SingleResponses("reviews"),
            arms=(
                START,
                Arm(
                    "dro-v",
                    {
                        "objective": {"method": "dro_v", "tau": 0.3},
                        "learning_rate": 5e-4,
                        "objective_learning_rate": 5e-3,
                    },
                    STEP_SIZES,
                ),
                Arm("kto", {"objective": {"method": "kto", "beta": 0.1}, "learning_rate": 5e-4}, STEP_SIZES),
            ),
            expected=(
                Expectation("dro-v", "start", "gold_reward", by=0.05),
                Expectation("dro-v", "start", "valid", by=-0.1),
                Expectation("dro-v", "kto", "gold_reward"),
                Expectation("dro-v", "kto", "kl", "lower", counts=False),
            ),
            refuted_by="a policy that scores no higher than its start, or no higher than KTO's with as many "
            "steps and a step size of its own; or one that pays with more than a tenth of its texts, which "
            "are of the grammar no longer",
            seconds=180,
            first_seconds=300,
        ),
    ),
)
