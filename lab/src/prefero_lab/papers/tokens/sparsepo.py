"""SparsePO: a mask learns which tokens a preference is about."""

from typing import Any

from prefero_lab.papers.experiments.token_masks import TokenMasks
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper

STEP_SIZES = {"learning_rate": (1e-4, 5e-4)}


def settings(penalty: float) -> dict[str, Any]:
    """With an L1 penalty on the one mask that serves as both."""
    objective = {"method": "sparsepo", "beta": 0.1, "l1_reward": penalty, "l1_kl": penalty}
    return {"objective": objective, "learning_rate": 1e-4, "objective_learning_rate": 1e-2}


PAPER = Paper(
    id="p102",
    title="SparsePO: Controlling Preference Alignment of LLMs via Sparse Token Masks",
    citation="Christopoulou et al., 2024, arXiv 2410.05102",
    adds="Masks that are learned with the policy, or read off the reference's activations, say which tokens' "
    "log-ratios and divergences count; most can come to be 0.",
    methods=("sparsepo", "sparsepo_mapo"),
    evidence=(
        Claim(
            statement="On pairs that differ in their first word alone, learned masks come to be larger there "
            "than elsewhere, and the sparser the larger their penalty; answers are no worse than DPO's.",
            experiment=TokenMasks(),
            arms=(
                START,
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 1e-4}, STEP_SIZES),
                Arm("no penalty", settings(0.0), STEP_SIZES),
                Arm("penalty 0.001", settings(1e-3)),
                Arm("penalty 0.01", settings(1e-2)),
            ),
            expected=(
                Expectation("no penalty", "dpo", "gold_reward", by=-0.05),
                Expectation("no penalty", "start", "on_first", by=0.5),
                Expectation("penalty 0.001", "start", "on_first", by=0.5),
                Expectation("penalty 0.001", "no penalty", "zeros", by=0.05),
                Expectation("penalty 0.01", "penalty 0.001", "zeros", by=0.05),
                Expectation("penalty 0.001", "dpo", "gold_reward", by=-0.05),
                Expectation("penalty 0.01", "start", "on_first", counts=False),
                Expectation("no penalty", "dpo", "kl", "lower", counts=False),
                Expectation("no penalty", "dpo", "harm", "lower", counts=False),
            ),
            refuted_by="a mask that is no larger at the one word in which responses differ, or no sparser "
            "with a larger penalty, or worse answers",
            tuning_seeds=(0,),
            seconds=120,
            first_seconds=40,
        ),
    ),
    note="Where the first token's share of the whole mask is 1, it counts as much as the others. Masks are "
    "learned with steps a hundred times the policy's, and one mask serves for both roles. The largest "
    "penalty empties the mask altogether, after which little is learned. Too small to tell is only the "
    "reward without a penalty, where one seed of three goes the other way.",
)
