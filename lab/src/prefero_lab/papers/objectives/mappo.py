"""MaPPO: a rejected response is pushed down only as far as it is worse."""

from prefero_lab.papers.experiments.unseen import UnseenExperiment
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper
from prefero_lab.papers.text import TextExperiment

STEP_SIZES = {"learning_rate": (1e-3, 2e-3, 5e-3)}
DPO_STEP_SIZES = {"learning_rate": (5e-4, 1e-3, 2e-3)}

PAPER = Paper(
    id="p052",
    title="MaPPO: Maximum a Posteriori Preference Optimization with Prior Knowledge",
    citation="Lan et al., 2025, arXiv 2507.21183",
    adds="The gap of a judge's scores is a prior: the rejected reward counts as much as the pair is clear.",
    methods=("mappo",),
    evidence=(
        Claim(
            statement="Told how much worse rejected responses are, MaPPO leaves more probability to chosen "
            "ones and less to what is in no pair than DPO, and sets clear pairs further apart than near "
            "ties.",
            experiment=UnseenExperiment(),
            arms=(
                START,
                Arm("mappo", {"objective": {"method": "mappo", "beta": 0.5}}),
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.5}}),
            ),
            expected=(
                Expectation("mappo", "dpo", "chosen", by=0.1),
                Expectation("mappo", "dpo", "unseen", "lower", by=0.1),
                Expectation("mappo", "dpo", "order", by=0.3),
                Expectation("mappo", "dpo", "rejected", "lower", counts=False),
                Expectation("mappo", "dpo", "kl", "lower", counts=False),
            ),
            refuted_by="chosen responses no more probable by a tenth than after as many steps of DPO, or "
            "margins that are no better an order of the gaps",
            seconds=25,
            seeds=5,
        ),
        Claim(
            statement="MaPPO gives more of the true reward than DPO, both with step sizes of their own.",
            experiment=TextExperiment("reviews"),
            arms=(
                START,
                Arm(
                    "mappo",
                    {
                        "objective": {"method": "mappo", "beta": 0.1, "scores": "sigmoid"},
                        "learning_rate": 5e-3,
                    },
                    STEP_SIZES,
                ),
                Arm(
                    "dpo",
                    {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 2e-3},
                    DPO_STEP_SIZES,
                ),
            ),
            expected=(
                Expectation("mappo", "dpo", "gold_reward"),
                Expectation("mappo", "start", "gold_reward", by=0.05),
                Expectation("mappo", "dpo", "chosen_log_ratio", counts=False),
                Expectation("mappo", "dpo", "rejected_log_ratio", counts=False),
                Expectation("mappo", "dpo", "kl", "lower", counts=False),
                Expectation("mappo", "dpo", "valid", counts=False),
            ),
            refuted_by="a policy with no more reward than DPO's",
            seconds=120,
            first_seconds=90,
            tuning_seeds=(0,),
        ),
    ),
    note="The prior is the gold reward itself, in the second claim through a sigmoid; a reward model's would "
    "be worse. Through it gaps are a few tenths, so that the rejected reward hardly counts: the language "
    "model imitates chosen responses, which become likelier (DPO's do not), stays near its start (KL 0.5 "
    "against 9), and gains half as much. DPO's order of clear pairs and near ties is by chance in the small "
    "network, which is what five seeds cannot tell.",
)
