"""Robust 2D-DPO: scores of segments that may be wrong."""

from typing import Any

from prefero_lab.papers.experiments.scored_turns import ScoredTurnsExperiment
from prefero_lab.papers.paper import Arm, Claim, Expectation, Paper


def arm(name: str, method: str, **options: Any) -> Arm:
    return Arm(name, {"objective": {"method": method, "beta": 0.1, **options}, "learning_rate": 1e-3})


PAPER = Paper(
    id="p087",
    title="Inducing Robustness in a 2 Dimensional Direct Preference Optimization Paradigm",
    citation="Shashidhar et al., 2025, arXiv 2505.01706; 2D-DPO is Li et al., 2024, arXiv 2410.19720",
    adds="2D-DPO scores every segment of a response; the loss is made for scores that are off by at most ε.",
    methods=("two_d_dpo", "robust_two_d_dpo"),
    evidence=(
        Claim(
            statement="Where the scores of turns, from 0 to 4, are off by up to 2, the robust loss orders "
            "held-out pairs better than 2D-DPO at the same step size, and loses less against right scores.",
            experiment=ScoredTurnsExperiment(),
            arms=(
                arm("robust", "robust_two_d_dpo", epsilon=0.3),
                arm("robust, expected", "robust_two_d_dpo", epsilon=2.0, robust="expectation"),
                arm("2d-dpo", "two_d_dpo"),
                arm("dpo", "dpo"),
            ),
            expected=(
                Expectation("robust", "2d-dpo", "noisy_accuracy", by=0.01),
                Expectation("robust", "2d-dpo", "fall", "lower", by=0.01),
                Expectation("robust, expected", "2d-dpo", "noisy_accuracy", counts=False),
                Expectation("robust, expected", "2d-dpo", "fall", "lower", counts=False),
                Expectation("robust", "2d-dpo", "noisy_success", counts=False),
                Expectation("2d-dpo", "dpo", "accuracy", counts=False),
                Expectation("robust", "dpo", "noisy_accuracy", counts=False),
            ),
            refuted_by="an accuracy that is less than a point higher under wrong scores, or falls as much",
            seconds=140,
            first_seconds=60,
        ),
    ),
    note="The public code has no robust loss: both are interpretations, the worst case within ε (0.3, our "
    "default) and the expectation over errors within ε (2, as large as they are). Wrong scores cost so "
    "little accuracy here, a point of 86, that there is hardly anything to be robust against.",
)
