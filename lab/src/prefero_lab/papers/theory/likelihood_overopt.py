"""Over-optimised likelihood: neither the likeliest chosen responses nor the largest margin are best."""

from prefero_lab.papers.experiments.over_optimisation import OverOptimisation
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper

PAPER = Paper(
    id="p147",
    title="Understanding Likelihood Over-optimisation in Direct Alignment Algorithms",
    citation="Shi et al., 2024, arXiv 2410.11677",
    adds="The best policy has neither the likeliest chosen responses nor the largest margin; falling entropy "
    "over the likeliest tokens, or mass that leaves them, says when training has gone too far.",
    methods=("dpo",),
    evidence=(
        Claim(
            statement="In long DPO runs the checkpoint with the likeliest chosen responses, or with the "
            "largest margin, is worth less than the best one: over the chosen responses' likelihood, reward "
            "has its maximum inside. Stopping where entropy or the likeliest tokens' mass collapses loses "
            "little.",
            experiment=OverOptimisation(),
            arms=(
                START,
                Arm("best", {"pick": "best"}),
                Arm("likeliest chosen", {"pick": "likelihood"}),
                Arm("largest margin", {"pick": "margin"}),
                Arm("flagged", {"pick": "flag"}),
                Arm("last", {"pick": "last"}),
                Arm("line", {"fit": 1}),
                Arm("parabola", {"fit": 2}),
            ),
            expected=(
                Expectation("best", "likeliest chosen", "gold_reward", by=0.05),
                Expectation("best", "largest margin", "gold_reward", by=0.05),
                Expectation("parabola", "line", "turns", by=0.5),
                Expectation("flagged", "best", "gold_reward", by=-0.1),
                Expectation("best", "start", "gold_reward", counts=False),
                Expectation("flagged", "last", "gold_reward", counts=False),
                Expectation("parabola", "line", "fit_error", "lower", counts=False),
            ),
            refuted_by="a checkpoint chosen by likelihood or by margin that is worth as much as the best, a "
            "parabola that does not turn between the checkpoints, or a flag that costs a tenth of reward",
            seconds=110,
            first_seconds=90,
        ),
    ),
    note="Runs of two strengths, β = 0.05 and 0.3, with a step size that stays. Likelihood and margin are "
    "those of held-out pairs, and the best checkpoint is chosen on other prompts than it is measured "
    "on. Reward rises within the first sixteen steps and falls over a long range, which no parabola "
    "follows, so that the likeliest of the later checkpoints is nearly the best; entropy and the "
    "likeliest tokens' mass, with this library's thresholds, do not collapse before the last "
    "checkpoint, so that flagged is last. Errors of the fits are those at checkpoints left out.",
)
