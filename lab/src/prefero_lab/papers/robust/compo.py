"""ComPO: comparisons of slightly changed models instead of a gradient, for pairs nearly alike."""

from typing import Any

from prefero_lab.papers.experiments.untied import Untied
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper

COMPO: dict[str, Any] = {
    "objective": {"method": "compo", "perturbations": 400, "threshold": 0.0, "successes": 0.1, "probe": 1.0},
    "learning_rate": 0.3,
    "optim": "sgd",
    "max_grad_norm": 0.0,
    "examples_per_step": 1,
    "num_train_epochs": 1.0,
    "lr_scheduler_type": "constant",
}


def dpo(learning_rate: float) -> dict[str, Any]:
    return {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": learning_rate}


PAPER = Paper(
    id="p152",
    title="ComPO: Preference Alignment via Comparison Oracles",
    citation="Chen et al., 2025, arXiv 2505.05465",
    adds="On pairs nearly alike, a direction in which the chosen response becomes more likely and the "
    "rejected one less, found by comparing slightly changed models, and no surrogate loss.",
    methods=("compo",),
    evidence=(
        Claim(
            statement="On pairs that differ in one word, steps by comparisons make chosen responses more "
            "likely and rejected ones less at once, in more of the pairs than DPO's gradient does.",
            experiment=Untied("safety", pairs=128, epochs=5.0, examples_per_step=8, prompts=128),
            arms=(
                START,
                Arm("compo", COMPO, {"learning_rate": (0.035, 0.3, 1.0)}),
                Arm("dpo", dpo(1e-4), {"learning_rate": (5e-5, 1e-4, 2e-4, 5e-4)}),
                Arm("dpo, five times the step", dpo(5e-4)),
            ),
            expected=(
                Expectation("compo", "dpo", "apart", by=0.05),
                Expectation("compo", "start", "chosen_log_ratio", by=0.05),
                Expectation("compo", "start", "rejected_log_ratio", "lower", by=0.05),
                Expectation("dpo, five times the step", "start", "chosen_log_ratio", "lower", counts=False),
                Expectation("dpo, five times the step", "start", "rejected_log_ratio", "lower", counts=False),
                Expectation("compo", "dpo, five times the step", "chosen_rises", by=0.05, counts=False),
                Expectation("compo", "dpo", "chosen_rises", counts=False),
                Expectation("compo", "dpo", "gold_reward", counts=False),
            ),
            refuted_by="chosen responses that become less likely, rejected ones that do not, or both at once "
            "in no more pairs than DPO has at its own best step",
            seconds=65,
            first_seconds=40,
        ),
    ),
    note="400 perturbations of the output layer a pair, each pair once; DPO moves the whole model, five "
    "times over the pairs. Where DPO's steps are large, both sides fall; with steps of its own it too raises "
    "the one and lowers the other, in about as many pairs, and three seeds cannot tell the two apart.",
)
