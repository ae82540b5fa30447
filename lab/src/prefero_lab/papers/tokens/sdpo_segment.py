"""SDPO: the turns of a talk that decided it, neither one alone nor all of them."""

from typing import Any

from prefero_lab.papers.experiments.turns import TurnsExperiment
from prefero_lab.papers.paper import START, Arm, Claim, Expectation, Paper

STEP_SIZES = {"learning_rate": (5e-4, 1e-3, 2e-3)}


def on(turns: str, learning_rate: float) -> dict[str, Any]:
    """The same loss on the same pairs, with these turns for the segment."""
    objective = {"method": "sdpo_segment", "beta": 0.1}
    return {"objective": objective, "learning_rate": learning_rate, "data": turns}


PAPER = Paper(
    id="p050",
    title="SDPO: Segment-Level Direct Preference Optimization for Social Agents",
    citation="Kong et al., 2025, arXiv 2501.01821; code AlibabaResearch/DAMO-ConvAI",
    adds="Of two talks only the turns are compared that decided how they went, as many on either side, so "
    "that the partition functions cancel and what follows adds no noise.",
    methods=("sdpo_segment",),
    evidence=(
        Claim(
            statement="A buyer who learns from the key segment of a talk, from its first wrong turn to the "
            "deal, succeeds more often at new talks than one who learns from that turn alone, or from whole "
            "sessions, all from the same pairs.",
            experiment=TurnsExperiment(),
            arms=(
                START,
                Arm("segment", on("segment", 1e-3), STEP_SIZES),
                Arm("turn", on("turn", 1e-3), STEP_SIZES),
                Arm("session", on("session", 1e-3), STEP_SIZES),
            ),
            expected=(
                Expectation("segment", "start", "success", by=0.05),
                Expectation("segment", "turn", "success", by=0.02),
                Expectation("segment", "session", "success", by=0.02),
            ),
            refuted_by="a buyer who succeeds less than 2 points more often than after learning from single "
            "turns, or from whole sessions",
            seconds=90,
            first_seconds=60,
            tuning_seeds=(0,),
        ),
    ),
    note="Single turns do best here on every seed: a failed talk's late turns are often right as things then "
    "stood, and segments and sessions push them down with the wrong one. On one seed in three, answers to "
    "the seller's price are lost so (the metric answer).",
)
