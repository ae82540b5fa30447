"""IPO on a table: preferences that no reward explains have a regularised optimum too."""

from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper
from prefero_lab.papers.tabular import TabularExperiment

TAUS = (0.1, 0.3, 1.0)


def objective(tau: float) -> dict[str, object]:
    return {"method": "ipo", "tau": tau, "tokens": "sum", "weight": "given"}


PAPER = Paper(
    id="p035",
    title="A General Theoretical Paradigm to Understand Learning from Human Preferences",
    citation="Azar et al., 2023, arXiv 2310.12036, theorem 2",
    adds="A family of objectives with any function of the preference probability; with the identity (IPO) "
    "the policy stays near its reference even if preferences are deterministic.",
    methods=("ipo",),
    evidence=(
        Claim(
            statement="On preferences of games that no reward explains, IPO comes to the optimum of the win "
            "rate under KL, π_ref exp(p(y ≻ μ)/τ) / Z, whatever τ is; DPO with β = τ does not.",
            experiment=TabularExperiment("identity", TAUS),
            arms=(
                START,
                *(Arm(f"optimum, τ = {tau:g}", {"optimum": tau}) for tau in TAUS),
                *(
                    Arm(f"ipo, τ = {tau:g}", {"objective": objective(tau), "learning_rate": 0.03 / tau})
                    for tau in TAUS
                ),
                Arm(
                    "dpo, β = 0.3",
                    {"objective": {"method": "dpo", "beta": 0.3, "weight": "given"}, "learning_rate": 0.1},
                ),
            ),
            expected=(
                *(
                    Expectation(
                        f"ipo, τ = {tau:g}", f"optimum, τ = {tau:g}", f"distance {tau:g}", "lower", by=-1e-3
                    )
                    for tau in TAUS
                ),
                *(
                    Expectation(f"ipo, τ = {tau:g}", "start", f"distance {tau:g}", "lower", by=0.02)
                    for tau in TAUS
                ),
                Expectation("ipo, τ = 0.3", "dpo, β = 0.3", "distance 0.3", "lower", by=0.02),
            ),
            refuted_by="a policy that, trained on all pairs in expectation, ends more than a thousandth of "
            "total variation from the closed form, or one that DPO's is as close to",
            seconds=45,
        ),
    ),
)
