"""Published sums of several preference losses."""

from __future__ import annotations

from typing import Literal

from prefero.objectives.compare import Objective, negative_log_likelihood
from prefero.objectives.presets.classifiers import bco_pair
from prefero.objectives.presets.pairs import dpo
from prefero.objectives.ranges import NonNegative, Positive
from prefero.objectives.registry import Equal, published


@published(
    title="MPO: mixed preference optimization",
    citation="Wang et al., 2024, arXiv 2411.10442",
    equation="w_p · DPO + w_q · [−log σ(r_w) − log σ(−r_l)] − w_g/|y_w| log π(y_w)",
    feedback={"pairs"},
    settings={"internvl2-8b": {"beta": 0.1, "preference": 0.8, "quality": 0.2, "generation": 1.0}},
    relatives=(
        "The quality term is bco_pair, as in TRL; the paper's has the reward shift of bco. The likelihood is "
        "a mean over each response's tokens, or over those of the whole step (tokens: batch), as in TRL. "
        "mpo_set, of several responses, is another method. Any other sum is a method with `plus`."
    ),
    equals=(
        Equal("dpo", at={"preference": 1.0, "quality": 0.0, "generation": 0.0}),
        Equal("bco_pair", at={"preference": 0.0, "quality": 1.0, "generation": 0.0}),
    ),
)
def mpo_mixed(
    beta: Positive = 0.1,
    preference: NonNegative = 0.8,
    quality: NonNegative = 0.2,
    generation: NonNegative = 1.0,
    tokens: Literal["mean", "batch"] = "mean",
) -> Objective:
    """Which response is better, how good each is, and how to write the better one, learnt together."""
    likelihood = negative_log_likelihood("chosen", tokens)
    return preference * dpo(beta) + quality * bco_pair(beta) + generation * likelihood
