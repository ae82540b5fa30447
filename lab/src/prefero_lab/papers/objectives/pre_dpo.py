"""Pre-DPO: a policy that was trained on the pairs before guides a second run."""

from __future__ import annotations

from typing import Any

from prefero_lab.papers.experiments.guided import Guided
from prefero_lab.papers.experiments.log_linear import LogLinearExperiment
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper

DPO = {"method": "dpo", "beta": 0.1}
GUIDED = {"objective": DPO, "learning_rate": 2e-3, "guide": {"objective": DPO, "learning_rate": 2e-3}}
EPOCHS = 2.0


def linear(beta: float = 0.1, **own: Any) -> dict[str, Any]:
    return {"objective": {"method": "dpo", "beta": beta}, "learning_rate": 0.3, **own}


PAPER = Paper(
    id="p014",
    title="Pre-DPO: Improving Data Utilization in Direct Preference Optimization Using a Guiding Reference "
    "Model",
    citation="Pan et al., 2025, arXiv 2504.15843",
    adds="A second run from the start whose reference is what the first came to: from its first step on, "
    "pairs that could be learned weigh more than others.",
    methods=("dpo",),
    evidence=(
        Claim(
            statement="With a quarter of the labels flipped, the guide takes weight from wrong labels before "
            "the first step, where DPO's are all alike, and the policy reaches more gold reward than DPO's, "
            "after twice the steps too.",
            experiment=LogLinearExperiment(norms=(3.0,), features=10, pairs=400, flips=0.25, steps=200),
            arms=(
                Arm("pre_dpo", linear(guide=DPO)),
                Arm("dpo", linear()),
                Arm("dpo, twice the steps", linear(max_steps=400)),
                Arm("dpo, half of β", linear(beta=0.05)),
                Arm("pre_dpo, before its first step", linear(guide=DPO, max_steps=0)),
                Arm("dpo, before its first step", linear(max_steps=0)),
            ),
            expected=(
                Expectation(
                    "pre_dpo, before its first step",
                    "dpo, before its first step",
                    "flipped_weight",
                    "lower",
                    by=0.1,
                ),
                Expectation("pre_dpo", "dpo", "gold_reward"),
                Expectation("pre_dpo", "dpo, twice the steps", "gold_reward"),
                Expectation("pre_dpo", "dpo, half of β", "gold_reward", counts=False),
                Expectation("pre_dpo", "dpo", "accuracy", counts=False),
                Expectation("pre_dpo", "dpo", "flipped_weight", "lower", counts=False),
            ),
            refuted_by="wrong labels that weigh as much as right ones at the second run's start, or gold "
            "reward that DPO reaches without a guide, given as many steps",
            seconds=25,
            seeds=6,
        ),
        Claim(
            statement="A small language model, too, writes better answers after Pre-DPO than after DPO, with "
            "twice the steps as well.",
            experiment=Guided("reviews", pairs=1024, epochs=EPOCHS, prompts=256),
            arms=(
                START,
                Arm("pre_dpo", GUIDED),
                Arm("dpo", {"objective": DPO, "learning_rate": 2e-3}),
                Arm(
                    "dpo, twice the steps",
                    {"objective": DPO, "learning_rate": 2e-3, "num_train_epochs": 2 * EPOCHS},
                ),
            ),
            expected=(
                Expectation("pre_dpo", "dpo", "gold_reward"),
                Expectation("pre_dpo", "dpo, twice the steps", "gold_reward"),
                Expectation("pre_dpo", "start", "gold_reward", by=0.05),
                Expectation("pre_dpo", "dpo", "kl", "higher", counts=False),
            ),
            refuted_by="gold reward that DPO reaches without a guide, given as many steps",
            seconds=115,
            first_seconds=90,
        ),
    ),
    note="For a log-linear policy the two runs' estimates add up, so that Pre-DPO ends where DPO with half "
    "of β does: it goes twice as far in the same direction, and ranks no better. The language model gains in "
    "every seed, at more KL, but seeds differ by more; all its runs have the steps of DPO's own evidence, "
    "which leaves fewer answers valid.",
)
