"""One behaviour among others: the tokens that show it count more than those around it."""

from __future__ import annotations

from prefero.objectives.compare import Compare, Objective
from prefero.objectives.quantities import log_ratio
from prefero.objectives.ranges import Positive, Share
from prefero.objectives.registry import Equal, published
from prefero.objectives.segments import InSegment


@published(
    title="Relevance-weighted DPO",
    paper="p137",
    citation="Banerjee et al., 2024, arXiv 2406.06496",
    equation="−log σ(β Σ_t w_t Δ_t^w − β Σ_t w_t Δ_t^l), w_t = 1 at relevant tokens, γ at others",
    feedback={"pairs", "spans"},
    settings={"default": {"beta": 0.1}},
    relatives=(
        "The chosen response is the rejected one, edited as little as the unwanted behaviour allows; tokens "
        "that belong to the behaviour are marked by segment above 0. Sums, not means. The paper tries γ = 0 "
        "and ½ among others."
    ),
    pitfalls=(
        "Where lines were only deleted the chosen response has no relevant token: at γ = 0 its reward is 0 "
        "and the rejected part is pushed down alone. Such pairs belong to the data. What both texts share "
        "after the first edit does not cancel, because its context differs."
    ),
    equals=(Equal("dpo", at={"gamma": 1.0}), Equal("sdpo_segment", at={"gamma": 0.0})),
)
def relevance_weighted_dpo(beta: Positive = 0.1, gamma: Share = 0.5) -> Objective:
    """DPO that switches off one behaviour and leaves alone, as far as γ is small, what is unrelated to it."""
    weight = gamma + (1 - gamma) * InSegment()
    return Compare(beta * (weight * log_ratio()).sum())
