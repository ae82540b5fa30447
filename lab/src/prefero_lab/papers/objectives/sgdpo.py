"""SGDPO: each side of a pair against a random part of the other."""

from typing import Any

from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper
from prefero_lab.papers.text import TextExperiment

STEP_SIZES = {"learning_rate": (1e-3, 1.5e-3, 2e-3)}


def sgdpo(rejected_ratio: float) -> dict[str, Any]:
    return {"method": "sgdpo", "beta": 0.1, "chosen_ratio": 0.6, "rejected_ratio": rejected_ratio}


PAPER = Paper(
    id="p015",
    title="SGDPO: Self-Guided Direct Preference Optimization for Language Model Alignment",
    citation="Zhu et al., 2025, arXiv 2505.12435",
    adds="Each side of a pair is held against a random part of the other side's tokens, without their "
    "gradient, so that both rewards are pulled by strengths of their own.",
    methods=("sgdpo",),
    evidence=(
        Claim(
            statement="With a step size that suits DPO, which brings DPO to about the same margin, SGDPO "
            "gives more of the true reward and leaves chosen responses more likely; and the smaller its part "
            "of the rejected response, the more likely they stay.",
            experiment=TextExperiment("reviews"),
            arms=(
                START,
                Arm("sgdpo", {"objective": sgdpo(0.9), "learning_rate": 2e-3}),
                Arm(
                    "dpo", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 1.5e-3}, STEP_SIZES
                ),
                Arm("sgdpo, small part", {"objective": sgdpo(0.3), "learning_rate": 2e-3}),
            ),
            expected=(
                Expectation("sgdpo", "dpo", "gold_reward"),
                Expectation("sgdpo", "dpo", "chosen_log_ratio"),
                Expectation("sgdpo, small part", "sgdpo", "chosen_log_ratio"),
                Expectation("sgdpo", "dpo", "rejected_log_ratio", "lower", counts=False),
                Expectation("sgdpo", "start", "chosen_log_ratio", counts=False),
                Expectation("sgdpo", "dpo", "kl", "lower", counts=False),
                Expectation("sgdpo", "dpo", "valid", counts=False),
            ),
            refuted_by="a policy with no more reward than DPO's, chosen responses no more likely than DPO's, "
            "or a smaller part that leaves them no more likely than a larger one",
            seconds=150,
            first_seconds=90,
            tuning_seeds=(0,),
        ),
    ),
    note="On a tuning seed both came to a margin of 3.5 nats; how like it is here, is told by the two "
    "log-ratios. SGDPO's step size is that one alone, DPO's the best of three. What is "
    "too small to tell is the reward alone, higher on every seed.",
)
