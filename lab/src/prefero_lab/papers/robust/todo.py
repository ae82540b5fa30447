"""TODO: a tie is a label of its own."""

from prefero_lab.papers.experiments.ranking import RankingExperiment
from prefero_lab.papers.paper import Arm, Claim, Expectation, Paper
from prefero_lab.worlds.noisy import Ties

DPO = {"objective": {"method": "dpo", "beta": 0.1}, "learning_rate": 1e-3}

PAPER = Paper(
    id="p148",
    title="TODO: Enhancing LLM Alignment with Ternary Preferences",
    citation="Guo et al., 2024, arXiv 2411.02442",
    adds="Bradley and Terry's model with ties: wins must pass a threshold, and two responses that annotators "
    "find equally good are kept together instead of being ordered by chance or left out.",
    methods=("todo",),
    evidence=(
        Claim(
            statement="Where a quarter of the pairs are ties, TODO keeps new answers that are equally good "
            "closer together than DPO on ties of random order, also by comparison with unequal ones, and "
            "orders those no worse.",
            experiment=RankingExperiment("reviews", pairs=1536, epochs=2.0, prompts=256, labels=(Ties(0.3),)),
            arms=(
                Arm("todo", {"objective": {"method": "todo", "beta": 0.1}, "learning_rate": 1e-3}),
                Arm("dpo, ties tossed", {**DPO, "without": ["tie"]}),
                Arm("dpo, ties left out", DPO),
            ),
            expected=(
                Expectation("todo", "dpo, ties tossed", "equal_margin", "lower", by=0.05),
                Expectation("todo", "dpo, ties tossed", "ternary", by=0.02),
                Expectation("todo", "dpo, ties tossed", "ranking", by=-0.02),
                Expectation("todo", "dpo, ties left out", "equal_margin", "lower", counts=False),
                Expectation("todo", "dpo, ties left out", "ternary", counts=False),
                Expectation("todo", "dpo, ties left out", "ranking", counts=False),
                Expectation("todo", "dpo, ties tossed", "gold_reward", counts=False),
            ),
            refuted_by="log-ratios of equally good answers that are as far apart as DPO's, by themselves or "
            "against those of unequal ones, or unequal answers ordered worse",
            seconds=110,
            first_seconds=90,
        ),
    ),
    note="In three seeds every difference to DPO on tossed ties has the sign that the paper claims, and none "
    "is clear of the spread over seeds, which that arm itself widens (KL 5.6 ± 5.5). Leaving ties out does "
    "nearly as well as TODO here.",
)
