"""Length-regularised DPO: labels that like length are explained by length."""

from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper
from prefero_lab.papers.text import TextExperiment

STEP_SIZES = {"learning_rate": (1e-4, 2e-4, 4e-4)}

PAPER = Paper(
    id="p027",
    title="Iterative Length-Regularized Direct Preference Optimization: A Case Study on Improving 7B "
    "Language Models to GPT-4 Level",
    citation="Liu et al., 2024, arXiv 2406.11817; the loss after Park et al., 2024, arXiv 2403.19159",
    adds="A bonus for length inside the sigmoid, which the policy cannot change, explains what labels owe to "
    "length, so that the policy does not learn it.",
    methods=("r_dpo",),
    evidence=(
        Claim(
            statement="With annotators who like length, length-regularised DPO follows instructions as well "
            "as DPO, and does not write longer for it.",
            experiment=TextExperiment("instructions", pairs=1024, epochs=3.0, taste="fond of length"),
            arms=(
                START,
                Arm(
                    "r-dpo",
                    {"objective": {"method": "r_dpo", "beta": 0.1, "alpha": 0.15}, "learning_rate": 4e-4},
                    STEP_SIZES,
                ),
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 2e-4}, STEP_SIZES),
            ),
            expected=(
                Expectation("r-dpo", "dpo", "gold_reward", by=-0.03),
                Expectation("r-dpo", "start", "gold_reward"),
                Expectation("r-dpo", "dpo", "length", "lower", by=3.0),
                Expectation("dpo", "start", "length", by=3.0),
                Expectation("r-dpo", "dpo", "fillers", "lower", counts=False),
                Expectation("r-dpo", "dpo", "kl", "lower", counts=False),
            ),
            refuted_by="a policy that follows instructions worse than DPO's, or no better than its start, or "
            "responses within 3 tokens of DPO's, both with step sizes of their own",
            seconds=140,
            first_seconds=95,
            tuning_seeds=(0,),
        ),
    ),
    note="One round of the paper's three. Annotators prefer by 6 times the reward's gap plus 0.15 a token; α "
    "is just that 0.15, which is not known of real annotators.",
)
