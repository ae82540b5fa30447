"""MRPO: several references, held near the first."""

from prefero_lab.papers.experiments.extra_references import ExtraReferences
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper

EXTRAS = ("good", "bad")


def mrpo(extra: str, epsilon: float) -> Arm:
    objective = {"method": "mrpo", "beta": 0.5, "epsilon_max": epsilon}
    return Arm(f"mrpo, {extra} extra, ε = {epsilon:g}", {"objective": objective, "extra": extra})


PAPER = Paper(
    id="p020",
    title="Multi-Reference Preference Optimization for Large Language Models",
    citation="Le et al., 2024, arXiv 2405.16388",
    adds="DPO against several references at once, in closed form, the others held near the one that the "
    "policy starts from.",
    methods=("mrpo", "multi_dpo"),
    evidence=(
        Claim(
            statement="From few comparisons MRPO with a better extra reference orders unseen pairs better "
            "than DPO and gains more reward; a worse one does next to no harm, because it is held near the "
            "first: let through, or in a mean of losses, it does.",
            experiment=ExtraReferences(),
            arms=(
                START,
                Arm("dpo", {"objective": {"method": "dpo", "beta": 0.5}}),
                *(mrpo(extra, epsilon) for extra in EXTRAS for epsilon in (0.1, 1.0)),
                *(
                    Arm(
                        f"multi-dpo, {extra} extra",
                        {"objective": {"method": "multi_dpo", "beta": 0.5}, "extra": extra},
                    )
                    for extra in EXTRAS
                ),
            ),
            expected=(
                Expectation("mrpo, good extra, ε = 0.1", "dpo", "accuracy"),
                Expectation("mrpo, good extra, ε = 0.1", "dpo", "reward", by=0.01),
                Expectation("mrpo, bad extra, ε = 0.1", "dpo", "accuracy", by=-0.01),
                Expectation("mrpo, bad extra, ε = 0.1", "dpo", "reward", by=-0.05),
                Expectation("mrpo, bad extra, ε = 0.1", "mrpo, bad extra, ε = 1", "accuracy", by=0.01),
                Expectation("mrpo, bad extra, ε = 0.1", "multi-dpo, bad extra", "accuracy", by=0.01),
                Expectation("dpo", "start", "accuracy", by=0.1, counts=False),
                Expectation("mrpo, good extra, ε = 1", "dpo", "accuracy", counts=False),
                Expectation("mrpo, good extra, ε = 0.1", "multi-dpo, good extra", "accuracy", counts=False),
            ),
            refuted_by="an order of unseen pairs no better than DPO's with a better extra reference, or a "
            "worse one that costs more than a hundredth of it, or as much let through as held",
            seconds=30,
            seeds=8,
        ),
    ),
    note="A tenth of log-probabilities that are a few nats moves little (those of texts are hundreds of "
    "nats). A mean of losses, held by nothing, gains more than MRPO from the better reference and "
    "loses more to the worse one.",
)
