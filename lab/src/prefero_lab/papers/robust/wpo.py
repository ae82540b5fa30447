"""WPO: pairs count as much as the policy itself would write them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from prefero_lab.papers.experiments.off_policy import OffPolicy
from prefero_lab.papers.paper import START, Arm, Check, Claim, Expectation, Number, Paper

STEP_SIZES = {"learning_rate": (1e-3, 2e-3)}
PAIRS = OffPolicy(pairs=1024, prompts=256)


def run(method: str, learning_rate: float) -> dict[str, Any]:
    return {"objective": {"method": method, "beta": 0.1}, "learning_rate": learning_rate}


def weighed(seed: int) -> Sequence[Number]:
    """Weights of pairs under the start model, by the model that wrote them."""
    made = PAIRS.make(seed)
    found = PAIRS.measure(made, PAIRS.start(made), seed)
    own, other = fmean(found["own_weight"]), fmean(found["other_weight"])
    return [
        Number("mean weight of the start model's own pairs", own, low=0.7),
        Number("that less the mean weight of another policy's pairs", own - other, low=0.1),
    ]


PAPER = Paper(
    id="p139",
    title="WPO: Enhancing RLHF with Weighted Preference Optimization",
    citation="Zhou et al., 2024, arXiv 2406.11827",
    adds="Pairs that another policy wrote are weighed by how likely the policy itself is to write them, so "
    "that training is as if on its own samples.",
    methods=("wpo",),
    evidence=(
        Claim(
            statement="On pairs most of which another policy wrote, WPO gets more of the true reward than "
            "DPO in as many steps.",
            experiment=PAIRS,
            arms=(
                START,
                Arm("wpo", run("wpo", 2e-3), STEP_SIZES),
                Arm("dpo", run("dpo", 2e-3), STEP_SIZES),
            ),
            expected=(
                Expectation("wpo", "dpo", "gold_reward"),
                Expectation("wpo", "start", "gold_reward"),
                Expectation("wpo", "dpo", "kl", "lower", counts=False),
                Expectation("wpo", "dpo", "valid", counts=False),
            ),
            refuted_by="no more reward than DPO's, both with step sizes of their own, or than the start's",
            seconds=80,
            first_seconds=90,
        ),
        Check(
            statement="The start model's own pairs weigh more than another policy's.",
            run=weighed,
            refuted_by="own pairs that weigh no more than others, or less than about 1",
            seconds=20,
        ),
    ),
    note="The other policy is the start model at a temperature of 1.5; three of four pairs are its. "
    "They weigh half as much, but what DPO and WPO make of them differs by less than the spread over seeds.",
)
