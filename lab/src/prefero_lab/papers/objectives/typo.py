"""TYPO: what preferences imply, and the reference, with nothing lost between them."""

from prefero_lab.papers.experiments.two_groups import TwoGroups
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper

STRENGTHS = (1e-4, 0.1, 1.0, 100.0)
BETAS = (0.05, 0.2, 1.0, 5.0)


def typo(strength: float) -> str:
    return f"typo, λ = {strength:g}"


PAPER = Paper(
    id="p036",
    title="New Desiderata for Direct Preference Optimization",
    citation="Hu et al., 2024, arXiv 2407.09072",
    adds="What a method should do between preferences and reference, which DPO and its like cannot do all "
    "of, and a loss that can: preferences without a reference, and a pull to it beside.",
    methods=("typo",),
    evidence=(
        Claim(
            statement="With less and less regularisation TYPO comes to the policy that the preferences "
            "imply, with more and more to the reference, and where the reference is right already it stays, "
            "whatever the strength; DPO and IPO leave it there at every strength that does anything where it "
            "is wrong, and with little regularisation know the best response alone.",
            experiment=TwoGroups(),
            arms=(
                START,
                Arm("implied by the preferences", {"right": True}),
                *(
                    Arm(
                        typo(strength),
                        {"objective": {"method": "typo", "lam": strength, "divergence": "whole"}},
                    )
                    for strength in STRENGTHS
                ),
                *(
                    Arm(f"dpo, β = {beta:g}", {"objective": {"method": "dpo", "beta": beta}})
                    for beta in BETAS
                ),
                *(
                    Arm(
                        f"ipo, τ = {beta:g}",
                        {"objective": {"method": "ipo", "tau": beta, "tokens": "sum"}},
                    )
                    for beta in BETAS
                ),
            ),
            expected=(
                Expectation(typo(1e-4), "implied by the preferences", "bad group", "lower", by=-1e-3),
                Expectation(typo(100.0), "start", "from the reference", "lower", by=-0.02),
                *(
                    Expectation(typo(strength), "start", "good group", "lower", by=-1e-3)
                    for strength in STRENGTHS
                ),
                Expectation(typo(0.1), "start", "bad group", "lower", by=0.1),
                *(
                    Expectation(typo(0.1), f"dpo, β = {beta:g}", "good group", "lower", by=0.02)
                    for beta in BETAS
                ),
                *(
                    Expectation(typo(0.1), f"ipo, τ = {beta:g}", "good group", "lower", by=0.02)
                    for beta in BETAS[:-1]
                ),
                Expectation(typo(1e-4), "dpo, β = 0.05", "bad group", "lower", by=0.1),
                Expectation(typo(1e-4), "ipo, τ = 0.05", "bad group", "lower", by=0.1),
                Expectation("dpo, β = 0.05", "start", "from the best response", "lower", counts=False),
                Expectation(typo(0.1), "ipo, τ = 5", "good group", "lower", counts=False),
                Expectation(typo(0.1), "dpo, β = 1", "bad group", "lower", counts=False),
            ),
            refuted_by="a limit other than the implied policy and the reference, a strength at which TYPO "
            "leaves a reference that is right, or a strength with which DPO or IPO keeps it",
            seconds=10,
        ),
    ),
)
