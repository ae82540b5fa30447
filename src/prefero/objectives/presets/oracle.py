"""Comparison oracles: no loss, only whether a changed model would do better on both responses."""

from __future__ import annotations

from prefero.objectives.compare import Compare, Objective
from prefero.objectives.quantities import Logp
from prefero.objectives.ranges import AtLeastOne, NonNegative, Positive
from prefero.objectives.registry import published


class ComparisonOracle(Compare):
    """What :class:`prefero.training.oracle.ComparisonOracleStep` asks of the policy's output layer; as a
    loss, for logs alone, −log σ of the margin of log-probabilities."""

    update = "comparison_oracle"

    def __init__(
        self, perturbations: int, radius: float, threshold: float, successes: float, probe: float | None
    ) -> None:
        super().__init__(Logp().sum())
        self.perturbations, self.radius = perturbations, radius
        self.threshold, self.successes, self.probe = threshold, successes, probe


@published(
    title="ComPO: comparison oracles",
    paper="p152",
    citation="Chen et al., 2025, arXiv 2505.05465, algorithm 1",
    equation=(
        "C(z) = −1 if the head W + r z raises log π(y_w) and lowers log π(y_l), else +1; ĝ = Σ C(z) z / ‖·‖, "
        "entries below λ set to 0; W ← W − learning rate · (share of −1) · ĝ"
    ),
    settings={
        "mistral-7b": {"perturbations": 1600, "threshold": 2.2e-4, "learning_rate": 0.035},
        "llama-3-8b": {"perturbations": 1800, "threshold": 8e-5, "learning_rate": 0.035},
        "gemma-2-9b": {"perturbations": 1800, "threshold": 8e-5, "learning_rate": 0.035},
    },
    relatives=(
        "No gradient of the model is taken; only the output layer moves. Meant for the pairs whose two "
        "responses a reference finds nearly equally likely (prefero.feedback.selection.nearly_equal), after "
        "dpo on the others."
    ),
    pitfalls=(
        "The paper's step is plain: optimizer sgd, max_grad_norm 0, one example a step. λ is measured on a "
        "direction of length 1, so it falls with the size of the output layer. Tied embeddings are refused, "
        "since they would move with the head."
    ),
)
def compo(
    perturbations: AtLeastOne = 1600,
    radius: Positive = 5e-4,
    threshold: NonNegative = 8e-5,
    successes: NonNegative = 0.2,
    probe: Positive | None = 5.0,
) -> Objective:
    """A direction for the output layer out of many comparisons of slightly changed models with this one.

    ``perturbations`` (m) are drawn from a standard normal distribution and scaled by ``radius`` (r), as in
    the authors' code (the paper draws from the unit sphere; only the scale of r differs). A pair is left out
    if fewer than the share ``successes`` of them do better (330 of 1,400 in the paper), or if a step of
    length ``probe`` along the direction does not (None: not checked).
    """
    return ComparisonOracle(int(perturbations), radius, threshold, successes, probe)
