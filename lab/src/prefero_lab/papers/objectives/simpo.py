"""SimPO: the mean log-probability is the reward, without a reference."""

from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper
from prefero_lab.papers.text import TextExperiment

STEP_SIZES = {"learning_rate": (2e-4, 5e-4, 1e-3, 2e-3)}

PAPER = Paper(
    id="p018",
    title="SimPO: Simple Preference Optimization with a Reference-Free Reward",
    citation="Meng et al., 2024, arXiv 2405.14734",
    adds="The mean log-probability of a response is its reward, which needs no reference and does not grow "
    "with length, and it has to win by a margin.",
    methods=("simpo",),
    evidence=(
        Claim(
            statement="SimPO, without a reference, gives more of the true reward than DPO, and does not "
            "lengthen what is written.",
            experiment=TextExperiment("reviews"),
            arms=(
                START,
                Arm(
                    "simpo",
                    {"objective": {"method": "simpo", "beta": 2.0, "gamma": 1.0}, "learning_rate": 2e-3},
                    STEP_SIZES,
                ),
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 2e-3}, STEP_SIZES),
            ),
            expected=(
                Expectation("simpo", "start", "gold_reward", by=0.05),
                Expectation("simpo", "dpo", "gold_reward"),
                Expectation("simpo", "start", "length", "lower", by=-1.0),
                Expectation("simpo", "dpo", "kl", "lower", counts=False),
                Expectation("simpo", "start", "valid", by=-0.1, counts=False),
            ),
            refuted_by="a policy with no more reward than its start's or than DPO's, both with step sizes of "
            "their own, or with responses that are longer by more than a token",
            seconds=150,
            first_seconds=90,
        ),
    ),
    note="The divergence from the start model, which nothing in the objective bounds, and how many texts are "
    "of the grammar still, are shown beside. SimPO's reward is the higher one on every seed, by 0.26 on "
    "average, and seeds differ by too much for three to tell.",
)
