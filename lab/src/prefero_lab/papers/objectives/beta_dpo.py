"""β-DPO: β follows the batch's reward gap, and outlying pairs are left out."""

from prefero_lab.papers.experiments.log_linear import LogLinearExperiment
from prefero_lab.papers.paper import Arm, Claim, Expectation, Paper

STEP_SIZES = {"learning_rate": (0.1, 0.3, 1.0, 3.0)}

PAPER = Paper(
    id="p038",
    title="β-DPO: Direct Preference Optimization with Dynamic β",
    citation="Wu et al., 2024, arXiv 2407.08639",
    adds="A β for each batch, larger where its reward gaps are larger than they have been, and pairs whose "
    "gap is an outlier mostly left out.",
    methods=("beta_dpo",),
    evidence=(
        Claim(
            statement="With 20 % of the labels flipped, β-DPO comes closer to the direction of the gold "
            "reward than DPO and ranks held-out responses better.",
            experiment=LogLinearExperiment(
                norms=(3.0,), features=10, pairs=300, flips=0.2, steps=150, examples_per_step=32
            ),
            arms=(
                Arm("beta_dpo", {"objective": {"method": "beta_dpo"}, "learning_rate": 0.3}, STEP_SIZES),
                Arm("dpo", {"objective": {"method": "dpo"}, "learning_rate": 1.0}, STEP_SIZES),
                Arm(
                    "beta_dpo, all pairs",
                    {"objective": {"method": "beta_dpo", "keep": 1.0}, "learning_rate": 0.3},
                ),
                Arm(
                    "beta_dpo, one β",
                    {"objective": {"method": "beta_dpo", "alpha": 0.0}, "learning_rate": 0.3},
                ),
            ),
            expected=(
                Expectation("beta_dpo", "dpo", "accuracy"),
                Expectation("beta_dpo", "dpo", "cosine"),
                Expectation("beta_dpo", "beta_dpo, all pairs", "accuracy", counts=False),
                Expectation("beta_dpo", "beta_dpo, one β", "accuracy", counts=False),
            ),
            refuted_by="a direction, or a ranking of held-out pairs, that DPO finds as well",
            seconds=60,
            seeds=8,
        ),
    ),
    note="The gain is a third of a point in accuracy, less than seeds differ by; with one β, or with all "
    "pairs, it is no other. Gaps are bare log-ratios, as in the authors' code. For a log-linear policy "
    "another β in all only changes the estimate's length: what can help here is which pairs, and which "
    "batches, count.",
)
