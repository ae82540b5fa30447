"""Group robust preference optimization: the group that is served worst decides."""

from typing import Any

from prefero_lab.papers.experiments.log_linear import LogLinearExperiment
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper

WORLD = LogLinearExperiment(norms=(3.0, 1.5), shares=(0.8, 0.2), pairs=1000, steps=150, examples_per_step=64)


def settings(**own: Any) -> dict[str, Any]:
    objective = {"method": "group_robust", "normalisation": "group_mean", "counts": WORLD.counts, **own}
    return {"objective": objective, "learning_rate": 0.3}


PAPER = Paper(
    id="p099",
    title="Group Robust Preference Optimization in Reward-free RLHF",
    citation="Ramesh et al., 2024, arXiv 2405.20304",
    adds="Preferences of several groups of people, weighted while training goes on towards the group whose "
    "loss is largest, in place of their mean.",
    methods=("group_robust",),
    evidence=(
        Claim(
            statement="Of two groups, 80 % and 20 % of the pairs, with tastes for features of their own, the "
            "smaller one less decided, the worse off has a lower loss than under DPO and under fixed weights "
            "∝ 1/N, and the losses are closer to each other.",
            experiment=WORLD,
            arms=(
                START,
                Arm("group_robust", settings(step_size=0.1)),
                Arm("fixed weights", settings(step_size=0.0)),
                Arm("dpo", {"objective": {"method": "dpo"}, "learning_rate": 0.3}),
            ),
            expected=(
                Expectation("group_robust", "dpo", "worst_loss", "lower", by=0.05),
                Expectation("group_robust", "fixed weights", "worst_loss", "lower"),
                Expectation("group_robust", "dpo", "loss_gap", "lower", by=0.05),
                Expectation("group_robust", "start", "worst_loss", "lower"),
                Expectation("fixed weights", "dpo", "worst_loss", "lower", counts=False),
                Expectation("group_robust", "dpo", "mean_loss", "higher", counts=False),
            ),
            refuted_by="a largest group loss that is DPO's, that of fixed weights, or that of a policy that "
            "has learned nothing",
            seconds=60,
            seeds=5,
        ),
    ),
    note="Most of the gain is the balance that fixed weights bring too; moving weights add that the less "
    "decided group counts more than the other. The mean loss of a pair is higher than DPO's: the price of "
    "it. The prompt does not tell the groups apart, so that one policy has to serve both.",
)
