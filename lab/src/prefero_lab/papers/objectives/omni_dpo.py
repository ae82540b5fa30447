"""Omni-DPO: how good a pair is and how well it is fitted decide what it counts."""

from typing import Any

from prefero_lab.papers.experiments.log_linear import LogLinearExperiment
from prefero_lab.papers.paper import Arm, Claim, Expectation, Paper

STEP_SIZES = {"learning_rate": (0.1, 0.3, 1.0)}


def omni(**own: float) -> dict[str, Any]:
    # good is the top third of the scores, which are 0 on average here
    return {"objective": {"method": "omni_dpo", "tau_good": 1.0, **own}, "learning_rate": 1.0}


PAPER = Paper(
    id="p029",
    title="Omni-DPO: A Dual-Perspective Paradigm for Dynamic Preference Learning of LLMs",
    citation="Peng et al., 2025, arXiv 2506.10054",
    adds="DPO's pairs weighted by the gap of their scores and by how little they are fitted yet, and the "
    "likelihood of good chosen responses that the policy has made less likely.",
    methods=("omni_dpo",),
    evidence=(
        Claim(
            statement="With graded scores and 20 % of the labels wrong, more of those of close pairs, "
            "Omni-DPO reaches more gold reward than DPO and SimPO; without any of its three parts it is "
            "worse off.",
            experiment=LogLinearExperiment(
                norms=(3.0,), features=10, pairs=600, flips=0.2, near=1.0, steps=300
            ),
            arms=(
                Arm("omni_dpo", omni(), STEP_SIZES),
                Arm("dpo", {"objective": {"method": "dpo"}, "learning_rate": 1.0}, STEP_SIZES),
                Arm(
                    "simpo",
                    {"objective": {"method": "simpo", "gamma": 0.8}, "learning_rate": 1.0},
                    STEP_SIZES,
                ),
                Arm("without quality", omni(eta=0.0)),
                Arm("without performance", omni(gamma=0.0)),
                Arm("without likelihood", omni(lam=0.0)),
                Arm("omni_dpo, before its first step", {**omni(), "max_steps": 0}),
                Arm(
                    "dpo, before its first step",
                    {"objective": {"method": "dpo"}, "learning_rate": 1.0, "max_steps": 0},
                ),
            ),
            expected=(
                Expectation("omni_dpo", "dpo", "gold_reward"),
                Expectation("omni_dpo", "simpo", "gold_reward"),
                Expectation("omni_dpo", "dpo", "accuracy", by=0.01),
                Expectation("omni_dpo", "simpo", "accuracy", by=0.01),
                Expectation("omni_dpo", "without quality", "gold_reward"),
                Expectation("omni_dpo", "without performance", "gold_reward"),
                Expectation("omni_dpo", "without likelihood", "chosen_log_ratio"),
                Expectation(
                    "omni_dpo, before its first step",
                    "dpo, before its first step",
                    "flipped_weight",
                    "lower",
                    by=0.1,
                ),
                Expectation("omni_dpo", "without performance", "accuracy", counts=False),
                Expectation("omni_dpo", "dpo", "flipped_weight", "lower", counts=False),
            ),
            refuted_by="gold reward or ranking that DPO or SimPO reach too, gold reward that comes without "
            "one of the weights as well, chosen responses that fall as far without the likelihood, or wrong "
            "labels that weigh as much as right ones",
            seconds=60,
            seeds=6,
        ),
    ),
    note="What fails is one part alone: the weight of performance makes the policy's steps smaller where it "
    "is right (it ends half as far from its reference), which helps its ranking no more than without and "
    "costs gold reward. The scores are the gold rewards, and so they know which labels are wrong.",
)
