"""ASFT: absolute likelihoods of both responses, without a reference."""

from prefero_lab.papers.experiments.unseen import ON_POLICY, UnseenExperiment
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper
from prefero_lab.papers.text import TextExperiment

STEP_SIZES = {"learning_rate": (1e-3, 2e-3)}

PAPER = Paper(
    id="p026",
    title="ASFT: Aligned Supervised Fine-Tuning through Absolute Likelihood",
    citation="Wang et al., 2024, arXiv 2409.10571",
    adds="One stage without a reference: the chosen response is imitated, and the likelihoods of both are "
    "judged each by itself, so that the chosen one's pull never fades.",
    methods=("asft",),
    evidence=(
        Claim(
            statement="Wherever it starts, ASFT comes to say the chosen response and leaves little to any "
            "other; DPO pushes the rejected one down further than it lifts the chosen one, and where it ends "
            "depends on where it starts.",
            experiment=UnseenExperiment(),
            arms=(
                START,
                Arm("asft", {"objective": {"method": "asft"}}),
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.5}}),
                Arm("dpo, on-policy", {"objective": {"method": "dpo", "beta": 0.5}, "from": [*ON_POLICY]}),
                Arm("asft, on-policy", {"objective": {"method": "asft"}, "from": [*ON_POLICY]}),
            ),
            expected=(
                Expectation("asft", "dpo", "chosen", by=0.2),
                Expectation("asft", "dpo", "unseen", "lower", by=0.2),
                Expectation("asft", "asft, on-policy", "chosen", by=-0.05),
                Expectation("dpo", "dpo, on-policy", "chosen", "lower", by=0.2),
                Expectation("asft", "start", "rejected", "lower"),
                Expectation("asft", "dpo", "rejected", "lower", counts=False),
                Expectation("asft", "dpo", "kl", "lower", counts=False),
            ),
            refuted_by="chosen responses no more probable by a fifth than after as many steps of DPO from an "
            "unlikely start, or with ASFT too less probable than from a likely one",
            seconds=35,
            seeds=5,
        ),
        Claim(
            statement="ASFT gives more of the true reward than DPO, both with step sizes of their own.",
            experiment=TextExperiment("reviews"),
            arms=(
                START,
                Arm("asft", {"objective": {"method": "asft"}, "learning_rate": 2e-3}, STEP_SIZES),
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 2e-3}, STEP_SIZES),
            ),
            expected=(
                Expectation("asft", "dpo", "gold_reward"),
                Expectation("asft", "start", "gold_reward", by=0.05),
                Expectation("asft", "start", "chosen_log_ratio", counts=False),
                Expectation("asft", "dpo", "kl", "lower", counts=False),
                Expectation("asft", "dpo", "valid", counts=False),
            ),
            refuted_by="a policy with no more reward than DPO's",
            seconds=120,
            first_seconds=90,
            tuning_seeds=(0,),
        ),
    ),
    note="In the language model ASFT lifts the chosen responses and keeps near its start, with grammar that "
    "DPO breaks (divergence 0.4 against 9), but imitation of the better of two samples gets less of the "
    "reward; in the small network it is ASFT that goes further. λ is 1, which a later comparison found best; "
    "the paper's own is not certain.",
)
