"""DPO-BMC: pairs that differ in what matters, and weights where they differ."""

from typing import Any

from prefero_lab.papers.experiments.reasoning import ReasoningExperiment
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper

BETA, LEARNING_RATE = 0.05, 2e-4


def on(data: str, method: str) -> dict[str, Any]:
    return {"objective": {"method": method, "beta": BETA}, "learning_rate": LEARNING_RATE, "data": data}


PAPER = Paper(
    id="p025",
    title="Bridging and Modeling Correlations in Pairwise Data for Direct Preference Optimization",
    citation="Jiang et al., 2024, arXiv 2408.07471; code YJiangcm/BMC",
    adds="The chosen response is the rejected one, corrected, so that the two differ in what matters; there "
    "a token counts the more the less the policy believes in it.",
    methods=("dpo_bmc",),
    evidence=(
        Claim(
            statement="On calculations whose steps are worded in many ways, with as many pairs and the same "
            "step size, DPO learns more from wrong answers and their corrections than from wrong and right "
            "samples, and DPO-BMC more than DPO.",
            experiment=ReasoningExperiment(worded=True),
            arms=(
                START,
                Arm("dpo-bmc, corrected", on("corrected", "dpo_bmc")),
                Arm("dpo, corrected", on("corrected", "dpo")),
                Arm("dpo, independent", on("outcome", "dpo")),
            ),
            expected=(
                Expectation("dpo-bmc, corrected", "start", "pass@1", by=0.05),
                Expectation("dpo-bmc, corrected", "dpo, corrected", "pass@1", by=0.02),
                Expectation("dpo, corrected", "dpo, independent", "pass@1", by=0.02),
                Expectation("dpo-bmc, corrected", "dpo, independent", "greedy", counts=False),
            ),
            refuted_by="answers that are right less than 2 points more often after DPO-BMC than after DPO on "
            "the same pairs, or after DPO on corrected pairs than on independent ones",
            seconds=90,
            first_seconds=75,
        ),
    ),
    note="The weights change next to nothing here; a likely reason, not measured, is that a model that knows "
    "its words has 1/π near 1. Corrected pairs gain 0.01, 0.07 and 0.00 over independent ones.",
)
