"""AlphaPO: the shape of a reward of mean log-probabilities."""

from typing import Any

from prefero_lab.papers.experiments.mean_logps import MeanLogps
from prefero_lab.papers.paper import Arm, Claim, Expectation, Paper


def alphapo(alpha: float) -> dict[str, Any]:
    """SimPO's β and γ; α = 0 is SimPO."""
    return {
        "objective": {"method": "alphapo", "beta": 2.0, "gamma": 1.0, "alpha": alpha},
        "learning_rate": 5e-4,
    }


PAPER = Paper(
    id="p121",
    title="AlphaPO: Reward Shape Matters for LLM Alignment",
    citation="Gupta et al., 2025, arXiv 2501.03884",
    adds="SimPO's logarithm is one of many shapes of a reward: a power α of the likelihood says how hard "
    "unlikely responses are pulled, and so how likely the chosen ones stay.",
    methods=("alphapo",),
    evidence=(
        Claim(
            statement="Trained until the margin is the same, AlphaPO with the paper's α > 0 leaves chosen "
            "responses more likely than SimPO does.",
            experiment=MeanLogps(pairs=1024, prompts=256, until=0.08),
            arms=(
                Arm("alphapo", alphapo(0.25)),
                Arm("simpo", alphapo(0.0)),
                Arm("alphapo, α < 0", alphapo(-0.5)),
            ),
            expected=(
                Expectation("alphapo", "simpo", "chosen_mean"),
                Expectation("alphapo", "simpo", "gold_reward", counts=False),
                Expectation("alphapo", "simpo", "kl", "lower", counts=False),
                Expectation("alphapo", "simpo", "margin", by=-0.02, counts=False),
                Expectation("alphapo, α < 0", "simpo", "chosen_mean", "lower", counts=False),
            ),
            refuted_by="chosen responses that are no more likely, per token, than SimPO's at the same margin",
            seconds=60,
            first_seconds=90,
        ),
    ),
    note="Same β, γ and step size, since the margin says when to stop. Of the gradients on a pair's two "
    "sides the chosen one's is (p̄_l/p̄_w)^α of the other's, p̄ being the mean probability of a token: once a "
    "pair is ordered, α > 0 pushes the rejected response down harder than it lifts the chosen one. The means "
    "of three seeds point that way, within their spread.",
)
