"""SPO: a head that tells how much content was taken out of a response."""

from prefero_lab.papers.experiments.degrees import DegreesExperiment
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper

PAPER = Paper(
    id="p115",
    title="Self-supervised Preference Optimization: Enhance Your Language Model with Preference Degree "
    "Awareness",
    citation="Li et al., 2024, arXiv 2409.17791",
    adds="Beside the preference, the policy learns to tell how much key content was taken out of a response, "
    "in classes that need no annotator.",
    methods=("spo_self_supervised",),
    evidence=(
        Claim(
            statement="The policy comes to tell degrees of removed content on new prompts, and its own "
            "reward orders them better than DPO's does.",
            experiment=DegreesExperiment("reviews", pairs=512, epochs=4.0, prompts=128, held_out_pairs=256),
            arms=(
                START,
                Arm("spo", {"objective": {"method": "spo_self_supervised"}, "learning_rate": 1e-3}),
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 1e-3}),
            ),
            expected=(
                Expectation("spo", "start", "degree", by=0.2),
                Expectation("spo", "dpo", "graded", by=0.02),
                Expectation("spo", "dpo", "probe", counts=False),
                Expectation("spo", "dpo", "correlation", counts=False),
                Expectation("spo", "dpo", "ranking", counts=False),
                Expectation("spo", "dpo", "gold_reward", counts=False),
            ),
            refuted_by="a head that tells degrees hardly better than a guess, or log-ratios that prefer the "
            "answer that lacks less no more often than DPO's",
            seconds=75,
            first_seconds=90,
        ),
    ),
    note="The policy comes to know degrees (its head tells 0.87 of them right; probe is a head that is "
    "fitted afterwards, to any policy), but its reward does not: with and without the head, log-ratios "
    "mostly prefer the answer that lacks more (graded: 0.28 and 0.24), and seeds disagree on which of the "
    "two does so less. Three degrees, one head for both sides, γ = 0.5: no code is published.",
)
