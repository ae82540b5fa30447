"""rDPO: a loss whose mean over random label flips is DPO's on right labels."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from prefero_lab.papers.experiments.log_linear import LogLinearExperiment
from prefero_lab.papers.paper import START, Arm, Check, Claim, Expectation, Number, Paper

FLIPS = 0.3
RDPO = {"objective": {"method": "rdpo", "flip_rate": FLIPS}}


def runs_away(seed: int) -> Sequence[Number]:
    """Where right labels are hardly more than features: how large the estimate becomes, the taste's size
    being 1, in the middle one of five worlds."""
    few = LogLinearExperiment(norms=(3.0,), features=8, pairs=60, flips=FLIPS, steps=400)
    worlds = [few.make(1000 * seed + number) for number in range(5)]

    def size(objective: object) -> float:
        models = [few.train(made, {"objective": objective, "learning_rate": 0.5}, seed) for made in worlds]
        measured = (few.measure(made, one.model, seed) for made, one in zip(worlds, models, strict=True))
        return median(one["norm"][0] for one in measured)

    return [
        Number("size of DPO's estimate from 60 pairs of 8 features", size({"method": "dpo"}), high=1.5),
        Number("size of rDPO's", size(RDPO["objective"]), low=3.0),
    ]


PAPER = Paper(
    id="p049",
    title="Provably Robust DPO: Aligning Language Models with Noisy Feedback",
    citation="Ray Chowdhury, Kini and Natarajan, 2024, arXiv 2403.00409",
    adds="DPO's loss corrected for random label flips of a known rate, so that its mean over them is the "
    "loss on right labels; log-linear policies then err the less the more pairs there are.",
    methods=("rdpo", "cdpo"),
    evidence=(
        Claim(
            statement="With 30 % of 4000 labels flipped, rDPO finds the gold reward of a log-linear policy, "
            "and the more pairs the better; DPO and DPO with smoothed labels do not, nor the policy to it.",
            experiment=LogLinearExperiment(prompts=1000, pairs=4000, flips=FLIPS),
            arms=(
                START,
                Arm("rdpo", RDPO),
                Arm("rdpo, 500 pairs", {**RDPO, "pairs": 500}),
                Arm("dpo", {"objective": {"method": "dpo"}}),
                Arm("cdpo", {"objective": {"method": "cdpo", "smoothing": FLIPS}}),
            ),
            expected=(
                Expectation("rdpo", "dpo", "parameter_error", "lower", by=0.3),
                Expectation("rdpo", "cdpo", "parameter_error", "lower", by=0.3),
                Expectation("rdpo", "rdpo, 500 pairs", "sub_optimality", "lower"),
                Expectation("rdpo", "dpo", "sub_optimality", "lower"),
                Expectation("rdpo", "cdpo", "sub_optimality", "lower"),
                Expectation("rdpo", "rdpo, 500 pairs", "parameter_error", "lower", by=0.1, counts=False),
                Expectation("rdpo", "dpo", "accuracy", counts=False),
            ),
            refuted_by="an estimate that is as far from the gold reward as DPO's or that of smoothed labels, "
            "or a policy worth no more, less its KL, than theirs, or than with an eighth of the pairs",
            seconds=30,
            seeds=10,
            judged_from=200,
        ),
        Check(
            statement="Beside: from few pairs the corrected loss mostly has no smallest value, and rDPO runs "
            "away.",
            run=runs_away,
            refuted_by="an rDPO that mostly stays at the size of the gold reward on 60 pairs of 8 features, "
            "or a DPO that mostly does not",
            seconds=30,
            judged_from=200,
        ),
    ),
    note="DPO's estimate is too small, not wrong in direction, and so it ranks held-out responses as well. "
    "The flip rate that rDPO is given is the true one. With few pairs rDPO has no smallest loss, which the "
    "paper excludes by bounded parameters: some seeds run away with 500 pairs already. Such "
    "errors were seen to be so uneven that 500 and 4000 pairs are now compared by what the policies are "
    "worth, as the paper's bound is, and on other seeds.",
)
