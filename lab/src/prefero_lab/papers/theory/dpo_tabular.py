"""DPO on a table: the optimum of reinforcement learning under KL, without any."""

from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper
from prefero_lab.papers.tabular import TabularExperiment

BETAS = (0.2, 0.5, 2.0)


def objective(beta: float) -> dict[str, object]:
    return {"method": "dpo", "beta": beta, "weight": "given"}


PAPER = Paper(
    id="p053",
    title="Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
    citation="Rafailov et al., 2023, arXiv 2305.18290, eq. 4",
    adds="A policy is its own reward model, so that a logistic loss on pairs takes the place of a learnt "
    "reward and reinforcement learning.",
    methods=("dpo",),
    evidence=(
        Claim(
            statement="On preferences of a reward, DPO comes to π_ref exp(r/β) / Z, the optimum of the "
            "reward under KL, whatever β is; and the closer the more comparisons there are.",
            experiment=TabularExperiment("reward", BETAS),
            arms=(
                START,
                *(Arm(f"optimum, β = {beta:g}", {"optimum": beta}) for beta in BETAS),
                *(
                    Arm(f"dpo, β = {beta:g}", {"objective": objective(beta), "learning_rate": 0.05 / beta})
                    for beta in BETAS
                ),
                *(
                    Arm(
                        f"dpo, β = 0.5, {count} pairs",
                        {"objective": objective(0.5), "learning_rate": 0.1, "pairs": count},
                    )
                    for count in (100, 10000)
                ),
            ),
            expected=(
                *(
                    Expectation(
                        f"dpo, β = {beta:g}",
                        f"optimum, β = {beta:g}",
                        f"distance {beta:g}",
                        "lower",
                        by=-1e-3,
                    )
                    for beta in BETAS
                ),
                *(
                    Expectation(f"dpo, β = {beta:g}", "start", f"distance {beta:g}", "lower", by=0.05)
                    for beta in BETAS
                ),
                *(
                    Expectation(f"dpo, β = {beta:g}", f"optimum, β = {beta:g}", f"value {beta:g}", by=-1e-3)
                    for beta in BETAS
                ),
                Expectation("dpo, β = 0.5, 10000 pairs", "dpo, β = 0.5, 100 pairs", "distance 0.5", "lower"),
            ),
            refuted_by="a policy that, trained on all pairs in expectation, ends more than a thousandth of "
            "total variation, or of regularised reward, from the closed form; or one that a hundred times "
            "the comparisons bring no closer",
            seconds=40,
            judged_from=200,
        ),
    ),
)
