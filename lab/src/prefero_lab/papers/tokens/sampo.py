"""SamPO: as many tokens of the one response as of the other."""

from prefero_lab.papers.experiments.held_out_pairs import HeldOutPairs
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper
from prefero_lab.worlds.length_bias import LongerChosen

STEP_SIZES = {"learning_rate": (1e-4, 3e-4, 1e-3)}

PAPER = Paper(
    id="p074",
    title="Eliminating Biased Length Reliance of Direct Preference Optimization via Down-Sampled KL "
    "Divergence",
    citation="Lu et al., 2024, arXiv 2406.10957",
    adds="The implicit reward of the longer response is that of as many of its tokens as the shorter one "
    "has, drawn again at every step, so that length by itself makes no margin.",
    methods=("sampo", "sampo_averaged"),
    evidence=(
        Claim(
            statement="Where the chosen response is the longer one in three pairs of four, the implicit "
            "reward of a policy trained by SamPO does not depend on length, as DPO's does, and its responses "
            "are shorter than those of DPO's, at as much reward.",
            experiment=HeldOutPairs("reviews", pairs=1536, prompts=256, labels=(LongerChosen(0.75),)),
            arms=(
                START,
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 3e-4}, STEP_SIZES),
                Arm(
                    "sampo",
                    {"objective": {"method": "sampo", "beta": 0.1}, "learning_rate": 3e-4},
                    STEP_SIZES,
                ),
            ),
            expected=(
                Expectation("sampo", "dpo", "gold_reward", by=-0.03),
                Expectation("sampo", "dpo", "length_reliance", "lower", by=0.05),
                Expectation("sampo", "start", "length_reliance", "lower", by=-0.03),
                Expectation("sampo", "dpo", "length", "lower", by=1.0),
                Expectation("dpo", "start", "length_reliance", by=0.05, counts=False),
                Expectation("dpo", "start", "length", by=1.0, counts=False),
                Expectation("sampo", "dpo", "per_token", "lower", counts=False),
            ),
            refuted_by="log-ratios that grow with length as DPO's do, or responses within a token of DPO's "
            "length, or less reward",
            tuning_seeds=(0,),
            seconds=110,
            first_seconds=90,
        ),
    ),
    note="Labels follow gold, which does not depend on length; of the pairs whose chosen response is the "
    "shorter one most are left out. The bias rules here: no method gains reward. A likely reason, not "
    "measured: the shorter response's end token, mostly the rejected one's, is pushed down at every step, "
    "while the longer one's is pushed up only where it is drawn. Log-ratios are those of whole responses.",
)
