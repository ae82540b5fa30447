"""DPO: the policy's log-ratio is its reward."""

from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper
from prefero_lab.papers.text import TextExperiment

STEP_SIZES = {"learning_rate": (2e-4, 5e-4, 1e-3, 2e-3)}

PAPER = Paper(
    id="p053",
    title="Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
    citation="Rafailov et al., 2023, arXiv 2305.18290",
    adds="A policy is its own reward model, so that a logistic loss on pairs takes the place of a learnt "
    "reward and reinforcement learning.",
    methods=("dpo",),
    evidence=(
        Claim(
            statement="DPO raises the true reward of what a model writes to new prompts, and more than "
            "likelihood training on the chosen responses does.",
            experiment=TextExperiment("reviews"),
            arms=(
                START,
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 2e-3}, STEP_SIZES),
                Arm("sft on chosen", {"objective": {"method": "nll"}, "learning_rate": 2e-3}, STEP_SIZES),
            ),
            expected=(
                Expectation("dpo", "start", "gold_reward", by=0.05),
                Expectation("dpo", "sft on chosen", "gold_reward"),
                Expectation("dpo", "start", "valid", by=-0.1, counts=False),
            ),
            refuted_by="a policy that scores no higher than its start, or than likelihood training on the "
            "chosen responses with as many steps and a step size of its own",
            seconds=190,
            first_seconds=150,
            seeds=5,
            judged_from=300,
        ),
    ),
    note="The reward takes a point from texts that are not of the grammar. How many are is shown beside: at "
    "the step size that gains most reward, fewer than before. Three seeds (200 to 202) could not tell DPO "
    "from likelihood training (+0.35, from −0.07 to 0.77), so that five others judge.",
)
