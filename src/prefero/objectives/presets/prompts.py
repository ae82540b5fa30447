"""Preferences about prompts: one response under two prompts, one pair under two prompts.

A view holds the same responses under another prompt: ``contradicted`` one whose instructions the chosen
response breaks, ``weaker`` one under which the preference is weaker or reversed.
"""

from __future__ import annotations

from prefero.objectives.compare import Compare, Objective
from prefero.objectives.contrasts import Pair
from prefero.objectives.quantities import log_ratio
from prefero.objectives.ranges import NonNegative, Positive
from prefero.objectives.registry import Equal, published

CITATION = "Sun et al., 2025, arXiv 2505.12845"
VIEWS = (
    "The view `contradicted` has the prompt that the response does not satisfy, `weaker` the prompt under "
    "which the pair's preference is weaker."
)


@published(
    title="Multi-level aware preference learning, within a prompt",
    paper="p095",
    citation=CITATION,
    equation="−log σ(β [log π(y|x_w)/π_ref(y|x_w) − log π(y|x_l)/π_ref(y|x_l)])",
    feedback={"pairs"},
    relatives=(
        "One response under two prompts, not two responses: the prompts' normalisers do not cancel and are "
        "dropped. " + VIEWS
    ),
    pitfalls="The response must be the same tokens under both prompts, and truncation must spare the prompt.",
)
def mapl_intra(beta: Positive = 0.1) -> Objective:
    """A response is likelier under the prompt that it satisfies than under one that it does not."""
    return Compare(beta * log_ratio().sum(), Pair("chosen", "chosen@contradicted"))


@published(
    title="Multi-level aware preference learning, between prompts",
    paper="p095",
    citation=CITATION,
    equation="−log σ(M(x₁) − M(x₂)), M(x) = β [u(y_w|x) − u(y_l|x)]",
    feedback={"pairs"},
    relatives=(
        "A reconstruction from the abstract and a review: the preference is stronger under the example's own "
        "prompt x₁ than under x₂. " + VIEWS
    ),
)
def mapl_inter(beta: Positive = 0.1) -> Objective:
    """The margin of a pair is larger under the prompt that asks for what tells the two apart."""
    return Compare(beta * log_ratio().sum(), Pair() - Pair("chosen@weaker", "rejected@weaker"))


@published(
    title="Multi-level aware preference learning",
    paper="p095",
    citation=CITATION,
    equation="−log σ(β h) + λ₁ L_intra + λ₂ L_inter",
    feedback={"pairs"},
    relatives="The weights are a reconstruction too, 1 each. " + VIEWS,
    equals=(
        Equal("mapl_intra", at={"pair": 0.0, "intra": 1.0, "inter": 0.0}),
        Equal("mapl_inter", at={"pair": 0.0, "intra": 0.0, "inter": 1.0}),
        Equal("dpo", at={"intra": 0.0, "inter": 0.0}),
    ),
)
def mapl(
    beta: Positive = 0.1, pair: NonNegative = 1.0, intra: NonNegative = 1.0, inter: NonNegative = 1.0
) -> Objective:
    """DPO with preferences between prompts beside those between responses."""
    reward = beta * log_ratio().sum()
    return pair * Compare(reward) + intra * mapl_intra(beta) + inter * mapl_inter(beta)
