"""TPO: supervised learning and preferences in one stage, from three responses a prompt."""

from typing import Any

from prefero_lab.papers.experiments.triples import Triples
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper


def run(objective: dict[str, Any], learning_rate: float, **settings: Any) -> dict[str, Any]:
    return {"objective": objective, "learning_rate": learning_rate, **settings}


PAPER = Paper(
    id="p083",
    title="Triple Preference Optimization: Achieving Better Alignment with Less Data in a Single Step "
    "Optimization",
    citation="Saeidi et al., 2024, arXiv 2405.16681",
    adds="One stage instead of two: the likelihood of the best of three responses and a preference between "
    "the other two, from a base model and without a reference.",
    methods=("tpo_triple",),
    evidence=(
        Claim(
            statement="From a base model and as many prompts, TPO gets more of the true reward than DPO "
            "does, and than supervised learning on the best responses.",
            experiment=Triples(pairs=1024, prompts=256),
            arms=(
                START,
                Arm("tpo", run({"method": "tpo_triple", "beta": 0.1, "alpha": 0.9}, 5e-3)),
                Arm(
                    "dpo",
                    run({"method": "dpo", "beta": 0.1}, 2e-3, pairs=True),
                    {"learning_rate": (1e-3, 2e-3)},
                ),
                Arm(
                    "supervised",
                    run({"method": "nll", "tokens": "batch"}, 5e-3, pairs=True),
                    {"learning_rate": (2e-3, 5e-3)},
                ),
            ),
            expected=(
                Expectation("tpo", "dpo", "gold_reward", by=0.05),
                Expectation("tpo", "supervised", "gold_reward"),
                Expectation("tpo", "supervised", "valid", counts=False),
                Expectation("tpo", "dpo", "valid", counts=False),
                Expectation("tpo", "start", "gold_reward", by=0.05, counts=False),
            ),
            refuted_by="no more reward than DPO's or supervised learning's from the same start, all with "
            "step sizes of their own",
            seconds=120,
            first_seconds=110,
        ),
    ),
    note="The base model had 300 steps of supervised training; the three responses are samples of the model "
    "that had 750, ordered by gold. TPO has the step size of supervised "
    "learning, and comes to as much. DPO gains most here, and drifts far (KL 9), from a base model whose "
    "texts are whole two times in five.",
)
