"""DPO-Shift: a rejected reward that counts less leaves probability to the chosen response."""

from typing import Any

from prefero_lab.papers.experiments.unseen import UnseenExperiment
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper
from prefero_lab.papers.text import TextExperiment

STEP_SIZES = {"learning_rate": (1e-4, 2e-4, 5e-4)}


def shift(beta: float, factor: float) -> dict[str, Any]:
    return {"method": "dpo_shift", "beta": beta, "factor": factor}


PAPER = Paper(
    id="p051",
    title="DPO-Shift: Shifting the Distribution of Direct Preference Optimization",
    citation="Yang et al., 2025, arXiv 2502.07599",
    adds="A factor on the rejected reward trades margin for likelihood of the chosen responses.",
    methods=("dpo_shift",),
    evidence=(
        Claim(
            statement="The smaller the factor on the rejected reward, the more probability goes to the "
            "chosen response instead of to responses that are in no pair, and the smaller the margin.",
            experiment=UnseenExperiment(),
            arms=(
                START,
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.5}}),
                Arm("shift 0.95", {"objective": shift(0.5, 0.95)}),
                Arm("shift 0.6", {"objective": shift(0.5, 0.6)}),
            ),
            expected=(
                Expectation("shift 0.95", "dpo", "chosen"),
                Expectation("shift 0.6", "dpo", "chosen", by=0.1),
                Expectation("shift 0.6", "dpo", "unseen", "lower", by=0.1),
                Expectation("shift 0.6", "dpo", "margin", "lower"),
                Expectation("shift 0.95", "dpo", "margin", "lower", counts=False),
                Expectation("shift 0.6", "dpo", "rejected", "lower", counts=False),
                Expectation("shift 0.6", "dpo", "kl", "lower", counts=False),
            ),
            refuted_by="chosen responses no more probable by a tenth than after as many steps of DPO, or no "
            "smaller a margin",
            seconds=25,
            seeds=5,
        ),
        Claim(
            statement="In a language model, on pairs that differ in one word, chosen responses come out more "
            "likely than with DPO's equal steps, at a smaller margin; and what it writes is better than "
            "DPO's, both with their own steps.",
            experiment=TextExperiment("safety", pairs=512, epochs=5.0, prompts=256),
            arms=(
                START,
                Arm("shift", {"objective": shift(0.1, 0.75), "learning_rate": 2e-4}, STEP_SIZES),
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 1e-4}, STEP_SIZES),
                Arm("shift, long steps", {"objective": shift(0.1, 0.75), "learning_rate": 5e-4}),
                Arm("dpo, long steps", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 5e-4}),
            ),
            expected=(
                Expectation("shift", "dpo", "gold_reward"),
                Expectation("shift, long steps", "dpo, long steps", "chosen_log_ratio", by=0.5),
                Expectation("shift, long steps", "dpo, long steps", "rejected_log_ratio", by=0.5),
                Expectation("shift, long steps", "dpo, long steps", "gold_reward", counts=False),
                Expectation("shift, long steps", "start", "chosen_log_ratio", counts=False),
                Expectation("shift", "dpo", "kl", "lower", counts=False),
                Expectation("shift", "dpo", "valid", counts=False),
            ),
            refuted_by="chosen responses no more likely by half a nat than with DPO's equal steps, or a "
            "policy that refuses the harmful and helps with the rest no more often than DPO's",
            seconds=100,
            first_seconds=40,
            tuning_seeds=(0,),
        ),
    ),
    note="In the language model seeds differ too much for three to tell: with long steps, which break DPO's "
    "policy, each keeps 4 to 11 nats more of the chosen response, and with steps of their own, which for DPO "
    "are short, the two are alike. At 0.95, the paper's choice, the margin need not fall. The divergence "
    "from the start grows with what the chosen response gains.",
)
