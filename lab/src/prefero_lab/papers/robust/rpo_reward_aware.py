"""RPO: implicit rewards as far apart as the scores are."""

from prefero_lab.papers.experiments.frontiers import Frontiers
from prefero_lab.papers.paper import Arm, Claim, Expectation, Paper

SOFT, HARD = (0.2, 0.5, 1.0, 2.0, 5.0), (0.2, 1.0, 3.0, 10.0, 30.0)
"""Strengths whose paths pass the divergences that are compared: of methods that match scores, and of DPO,
which has labels alone."""
LINEAR = Frontiers(prompts=16, responses=16, features=6, residual=0.5, learning_rate=0.05)


def arm(name: str, divergence: str, size: int = 2, **more: object) -> Arm:
    key = "rpo_reward_aware" if size == 2 else "rpo_reward_aware_lists"
    objective = {"method": key, "eta": 1.0, "divergence": divergence}
    return Arm(
        name,
        {"objective": objective, "betas": SOFT, "groups": 32, "size": size, "lists": size > 2, **more},
    )


def dpo(name: str, **more: object) -> Arm:
    return Arm(name, {"objective": {"method": "dpo"}, "betas": HARD, "groups": 32, "size": 2, **more})


PAPER = Paper(
    id="p142",
    title="Reward-aware Preference Optimization: A Unified Mathematical Framework for Model Alignment",
    citation="Sun et al., 2025, arXiv 2502.00203",
    adds="One objective, a distance between implicit and explicit reward gaps, of which DPO, IPO, SimPO "
    "and others are cases, so that what matters can be told apart.",
    methods=("rpo_reward_aware", "rpo_reward_aware_lists"),
    evidence=(
        Claim(
            statement="With the true scores of the responses, RPO gains more reward than DPO does on the "
            "same pairs for the same KL, whether its distance is backward KL or squared.",
            experiment=LINEAR,
            arms=(
                Arm("optimum", {"optimum": True, "betas": SOFT}),
                arm("backward", "backward_kl"),
                arm("squared", "squared"),
                dpo("dpo"),
                arm("squared, noisy scores", "squared", noise=1.0),
                dpo("dpo, noisy scores", noise=1.0),
            ),
            expected=(
                *(
                    Expectation(one, "dpo", f"reward at {divergence}", by=0.02)
                    for one in ("backward", "squared")
                    for divergence in (0.25, 0.5)
                ),
                Expectation("squared, noisy scores", "dpo, noisy scores", "reward at 0.5", counts=False),
                Expectation("squared", "squared, noisy scores", "reward at 0.5", counts=False),
                Expectation("optimum", "squared", "reward at 0.5", counts=False),
            ),
            refuted_by="a reward no higher than DPO's where both have spent as much KL",
            seconds=35,
            seeds=8,
        ),
        Claim(
            statement="Four scored responses a prompt gain more for the same KL than two, and responses "
            "drawn from what was learnt so far more than the reference's.",
            experiment=LINEAR,
            arms=(
                arm("squared", "squared"),
                arm("squared, four responses", "squared", size=4),
                arm("squared, four rounds", "squared", rounds=4),
            ),
            expected=(
                Expectation("squared, four responses", "squared", "reward at 0.5"),
                Expectation("squared, four rounds", "squared", "reward at 0.5"),
            ),
            refuted_by="a reward no higher from four responses, or from rounds, where as much KL was spent",
            seconds=15,
            seeds=8,
        ),
    ),
    note="Policies know six features of a response, which explain four fifths of the variance of its reward. "
    "Rounds have as many scored responses in all as one draw from the reference; what they gain (0.007) is "
    "less than what one draw of 64 responses differs by from another.",
)
