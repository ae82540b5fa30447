"""Several people or several goals: preferences that hold for a user, or for one of the objectives."""

from __future__ import annotations

from typing import Literal

from prefero.objectives.compare import Compare, Objective
from prefero.objectives.presets.pairs import LINKS, ipo
from prefero.objectives.quantities import Column, log_ratio
from prefero.objectives.ranges import NonZeroShare, Positive
from prefero.objectives.registry import Equal, published


@published(
    title="MODPO: multi-objective DPO",
    paper="p067",
    citation="Zhou et al., 2023, arXiv 2310.03708",
    equation="−log σ((1/w) [β h − (1−w) (r(y_w) − r(y_l))]), r: the other objectives' reward",
    feedback={"pairs", "scores"},
    settings={"default": {"beta": 0.1, "learning_rate": 1e-4}},
    relatives=(
        "With several other objectives the column holds their mean by their own weights: "
        "Σ_{j≠k} w_j r_j / (1 − w_k). The rewards may be implicit ones, β log π_j/π_ref. odpo's margin "
        "comes from the same objective and is added."
    ),
    pitfalls=(
        "The margin is subtracted: a pair whose chosen response the other objectives favour too must win by "
        "more. 1/w multiplies everything, β included."
    ),
    equals=(Equal("dpo", at={"share": 1.0}),),
)
def modpo(
    beta: Positive = 0.1, share: NonZeroShare = 0.5, link: Literal["logistic", "hinge"] = "logistic"
) -> Objective:
    """Pairs of one objective, and frozen rewards for the others: the optimum of their weighted sum.

    ``share`` is the weight of the objective whose pairs these are. The policy that fits them all is
    π_ref exp(Σ w_i r_i / β) / Z.
    """
    others = (1 - share) * Column("other_score")
    return Compare((beta * log_ratio().sum() - others) / share, link=LINKS[link])


@published(
    title="FSPO: few-shot preference optimization",
    paper="p129",
    citation="Singh et al., 2025, arXiv 2502.19312; code Asap7772/fewshot-preference-optimization",
    equation="(h − 1/(2τ))², prompts hold some labelled pairs of the same user",
    feedback={"pairs"},
    settings={"default": {"tau": 0.01, "learning_rate": 1e-6}},
    relatives="IPO summed over tokens on prompts with a user's few shots: it is the data that are new.",
    pitfalls=(
        "The target prompt must not stand among the shots, and data are split by user, not by row. At the "
        "start the loss is 1/(4τ²), 2500 at τ = 0.01."
    ),
    equals=(Equal("ipo", given={"tokens": "sum"}),),
)
def fspo(tau: Positive = 0.01) -> Objective:
    """Every user is a task: IPO on a pair whose prompt shows what else that user preferred."""
    return ipo(tau=tau, tokens="sum")
