"""LD-DPO: what a response says beyond the other's length counts less."""

from prefero_lab.papers.experiments.held_out_pairs import HeldOutPairs
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper
from prefero_lab.worlds.length_bias import LongerChosen

STEP_SIZES = {"learning_rate": (1e-4, 3e-4, 1e-3)}

PAPER = Paper(
    id="p070",
    title="Length Desensitization in Direct Preference Optimization",
    citation="Liu et al., 2024, arXiv 2409.06411",
    adds="DPO's gradient grows with a response's length; the log-ratio of what lies beyond the shorter "
    "response's length is weighed by α, so that length teaches less.",
    methods=("ld_dpo",),
    evidence=(
        Claim(
            statement="Where the chosen response is the longer one in three pairs of four, LD-DPO lengthens "
            "responses less than DPO, the less the smaller its α, and gives as much reward.",
            experiment=HeldOutPairs("reviews", pairs=1536, prompts=256, labels=(LongerChosen(0.75),)),
            arms=(
                START,
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 3e-4}, STEP_SIZES),
                Arm(
                    "ld-dpo 0.3",
                    {"objective": {"method": "ld_dpo", "beta": 0.1, "alpha": 0.3}, "learning_rate": 3e-4},
                    STEP_SIZES,
                ),
                Arm(
                    "ld-dpo 0.6",
                    {"objective": {"method": "ld_dpo", "beta": 0.1, "alpha": 0.6}, "learning_rate": 3e-4},
                ),
            ),
            expected=(
                Expectation("ld-dpo 0.3", "dpo", "gold_reward", by=-0.03),
                Expectation("ld-dpo 0.3", "dpo", "length", "lower", by=1.0),
                Expectation("ld-dpo 0.3", "ld-dpo 0.6", "length", "lower"),
                Expectation("dpo", "start", "length", by=1.0, counts=False),
                Expectation("dpo", "start", "gold_reward", counts=False),
                Expectation("ld-dpo 0.3", "dpo", "kl", "lower", counts=False),
            ),
            refuted_by="responses within a token of DPO's length, or longer ones, or less reward",
            tuning_seeds=(0,),
            seconds=140,
            first_seconds=90,
        ),
    ),
    note="Labels follow gold, which does not depend on length; of the pairs whose chosen response is the "
    "shorter one most are left out. The bias rules here: no method gains reward. A likely reason, not "
    "measured: the shorter response's end token, mostly the rejected one's, is pushed down in full, while "
    "the longer one's is pushed up by α alone.",
)
