"""Reference policies in DPO: how strong the pull to them should be, and to whom."""

from typing import Any

from prefero_lab.papers.experiments.references import References
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper


def dpo(beta: float, **settings: str) -> dict[str, Any]:
    """One step size for all, as in the paper: the best one of β = 0.1."""
    return {"objective": {"method": "dpo", "beta": beta}, "learning_rate": 2e-3, **settings}


PAPER = Paper(
    id="p044",
    title="Understanding Reference Policies in Direct Preference Optimization",
    citation="Liu, Liu and Cohan, 2024, arXiv 2407.13709",
    adds="How strongly DPO should be held to its reference, and by which: β has an optimum, and a stronger "
    "reference helps where it is of the policy's kind.",
    methods=("dpo",),
    evidence=(
        Claim(
            statement="Over three decades of β the reward rises and falls; held by a stronger model of its "
            "own kind a policy gets further than held by its start, and held by an unrelated one less far.",
            experiment=References(pairs=1024, epochs=2.0, prompts=256),
            arms=(
                START,
                Arm("β 0.01", dpo(0.01)),
                Arm("β 0.1", dpo(0.1)),
                Arm("β 1", dpo(1.0)),
                Arm("β 10", dpo(10.0)),
                Arm("β 1, stronger", dpo(1.0, reference="stronger")),
                Arm("β 1, unrelated", dpo(1.0, reference="unrelated")),
            ),
            expected=(
                Expectation("β 0.1", "β 10", "gold_reward"),
                Expectation("β 0.1", "β 0.01", "gold_reward"),
                Expectation("β 1, stronger", "β 1", "gold_reward", by=0.02),
                Expectation("β 1, unrelated", "β 1", "gold_reward", "lower", by=0.02),
                Expectation("β 0.01", "β 10", "kl", counts=False),
                Expectation("β 1, stronger", "β 1", "valid", counts=False),
            ),
            refuted_by="a reward that only falls, or only rises, with β, or one that does not depend on who "
            "the reference is",
            seconds=120,
            first_seconds=120,
        ),
    ),
    note="The start had 300 steps of supervised training, the stronger model 750 from the same seed, the "
    "unrelated one 300 from another seed on responses to other prompts. On average rewards lie as the paper "
    "says, but start models of 300 steps differ more by their seeds (a standard deviation of 0.27 in reward) "
    "than by the strength, and the unrelated reference does no harm: it writes grammar as well.",
)
