"""Dr. DPO: pairs that look mislabelled lose their weight."""

from prefero_lab.papers.experiments.log_linear import LogLinearExperiment
from prefero_lab.papers.paper import Arm, Claim, Expectation, Paper

DPO = Arm("dpo", {"objective": {"method": "dpo"}, "learning_rate": 0.5})
DR = {"objective": {"method": "dr_dpo", "beta_prime": 1.0}, "learning_rate": 0.5}


def noisy(flips: float) -> LogLinearExperiment:
    return LogLinearExperiment(norms=(6.0,), features=10, pairs=300, flips=flips, steps=400)


PAPER = Paper(
    id="p098",
    title="Towards Robust Alignment of Language Models: Distributionally Robustifying Direct Preference "
    "Optimization",
    citation="Wu et al., 2024, arXiv 2407.07880",
    adds="In place of the mean loss of the pairs a soft minimum of it, under which pairs of high loss, which "
    "are likely mislabelled, count less.",
    methods=("dr_dpo",),
    evidence=(
        Claim(
            statement="With 20 % of the labels flipped, Dr. DPO gives wrong labels less of its gradient than "
            "DPO does and ranks held-out responses better.",
            experiment=noisy(0.2),
            arms=(
                DPO,
                Arm("dr_dpo", DR),
                Arm("dr_dpo, steps of 64", {**DR, "examples_per_step": 64, "max_steps": 150}),
            ),
            expected=(
                Expectation("dr_dpo", "dpo", "accuracy", by=0.015),
                Expectation("dr_dpo", "dpo", "flipped_weight", "lower"),
                Expectation("dr_dpo", "dpo", "gold_reward"),
                Expectation("dr_dpo, steps of 64", "dpo", "accuracy", counts=False),
            ),
            refuted_by="an accuracy on held-out pairs that is DPO's or lower, or wrong labels that weigh as "
            "much as they do for DPO",
            seconds=50,
            seeds=8,
        ),
        Claim(
            statement="Without flips Dr. DPO ranks held-out responses as well as DPO, to within a point.",
            experiment=noisy(0.0),
            arms=(DPO, Arm("dr_dpo", DR)),
            expected=(Expectation("dr_dpo", "dpo", "accuracy", by=-0.01),),
            refuted_by="an accuracy more than a point below DPO's",
            seconds=15,
            seeds=8,
        ),
        Claim(
            statement="With 40 % of the labels flipped, too, Dr. DPO gives wrong labels less of its gradient "
            "than DPO does.",
            experiment=noisy(0.4),
            arms=(DPO, Arm("dr_dpo", DR)),
            expected=(
                Expectation("dr_dpo", "dpo", "flipped_weight", "lower"),
                Expectation("dr_dpo", "dpo", "accuracy", counts=False),
            ),
            refuted_by="wrong labels that weigh as much as they do for DPO",
            seconds=15,
            seeds=8,
        ),
    ),
    note="Wrong labels do lose weight at 20 %. The gain in accuracy is about a point and uneven: labels are "
    "Bradley and Terry's draws, so that the soft minimum drops close pairs with right labels too, which "
    "costs a point without flips. At 40 % of flips, which the paper also reports gains for, the comparison "
    "of accuracies stands beside: there the soft minimum can settle on the wrong labels as well as on the "
    "right ones.",
)
