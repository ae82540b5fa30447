"""ODPO: how much better is worth a margin."""

from prefero_lab.papers.experiments.frontiers import Frontiers
from prefero_lab.papers.paper import Arm, Claim, Expectation, Paper

BETAS = (0.2, 1.0, 3.0, 10.0)


def arm(name: str, pairs: int, **objective: object) -> Arm:
    settings = {"objective": objective, "betas": BETAS, "groups": pairs, "size": 2}
    return Arm(f"{name}, {pairs} pairs", settings)


PAPER = Paper(
    id="p043",
    title="Direct Preference Optimization with an Offset",
    citation="Amini et al., 2024, arXiv 2402.10571",
    adds="Where scores say how much better one response is, the margin it has to win by grows with that.",
    methods=("odpo",),
    evidence=(
        Claim(
            statement="From few pairs, ODPO gains more reward than DPO for the same KL to the reference.",
            experiment=Frontiers(),
            arms=(
                Arm("optimum", {"optimum": True, "betas": (0.2, 0.5, 1.0, 2.0, 5.0)}),
                *(
                    one
                    for pairs in (32, 256)
                    for one in (
                        arm("odpo", pairs, method="odpo", alpha=1.0),
                        arm("odpo, plain gap", pairs, method="odpo", alpha=1.0, offset="identity"),
                        arm("dpo", pairs, method="dpo"),
                    )
                ),
            ),
            expected=(
                Expectation("odpo, 32 pairs", "dpo, 32 pairs", "reward at 0.25", by=0.01),
                Expectation("odpo, 32 pairs", "dpo, 32 pairs", "reward at 0.5", by=0.01),
                *(
                    Expectation(one, other, "reward at 0.5", counts=False)
                    for one, other in (
                        ("odpo, plain gap, 32 pairs", "dpo, 32 pairs"),
                        ("odpo, 256 pairs", "dpo, 256 pairs"),
                        ("odpo, plain gap, 256 pairs", "dpo, 256 pairs"),
                        ("optimum", "odpo, 32 pairs"),
                    )
                ),
            ),
            refuted_by="a reward no higher than DPO's where both have spent as much KL",
            seconds=40,
            seeds=10,
        ),
    ),
    note="Eight prompts with eight responses each; the better-scored response is always the chosen one, so "
    "that no number of pairs tells DPO how much better it is, and ODPO's lead does not shrink with them.",
)
