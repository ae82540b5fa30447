"""Pairs by where responses come from, and whether that alone tells the two sides apart.

Wang et al., 2025, More is less, arXiv 2504.02193: pairs of a stronger model's response against one's own are
told apart by their style, and what is learnt is the style.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.feedback.pairing import Pair, best_and_worst, ordered


@dataclass(frozen=True, slots=True)
class Candidate:
    """A response's source (``self``, ``strong``, ``human``, ``human_rejected``) and its score."""

    source: str
    score: float


def source_pairs(pool: Sequence[Candidate]) -> dict[str, Pair | None]:
    """The pairs of a prompt, by recipe; None where a recipe lacks a response, or its two tie.

    ``self_rm`` best and worst of the model's own samples; ``hc_self`` the human's chosen response against the
    first own sample; ``hc_human`` the original pair; ``strong_self`` the first response of a stronger model
    against the first own sample; ``pool_rm`` best and worst of everything generated.
    """
    places = {
        source: [place for place, candidate in enumerate(pool) if candidate.source == source]
        for source in ("self", "strong", "human", "human_rejected")
    }

    def extremes(among: Sequence[int]) -> Pair | None:
        if len(among) < 2:
            return None
        scores = [pool[place].score for place in among]
        pair = ordered(*best_and_worst(scores), scores)
        return None if pair is None else (among[pair[0]], among[pair[1]])

    def first(better: str, worse: str) -> Pair | None:
        both = places[better] and places[worse]
        return (places[better][0], places[worse][0]) if both else None

    return {
        "self_rm": extremes(places["self"]),
        "hc_self": first("human", "self"),
        "hc_human": first("human", "human_rejected"),
        "strong_self": first("strong", "self"),
        "pool_rm": extremes(sorted([*places["self"], *places["strong"]])),
    }


@dataclass(frozen=True, slots=True)
class Separation:
    """A linear probe's weights and the centre of its features, its accuracy on what it was fitted to, and the
    distance of the two sides' means."""

    weights: Float[Tensor, " feature"]
    centre: Float[Tensor, " feature"]
    accuracy: float
    distance: float

    def accuracy_on(
        self, chosen: Float[Tensor, "pair feature"], rejected: Float[Tensor, "other feature"]
    ) -> float:
        """The share of responses on their own side; of other prompts, this is what counts."""
        right = ((chosen - self.centre) @ self.weights > 0).sum()
        right = right + ((rejected - self.centre) @ self.weights < 0).sum()
        return float(right / (len(chosen) + len(rejected)))


def separation(
    chosen: Float[Tensor, "pair feature"], rejected: Float[Tensor, "other feature"], ridge: float = 1.0
) -> Separation:
    """How well a line tells chosen from rejected responses by their features: a ridge regression of ±1 on
    centred features. The paper does not say which probe it used."""
    features = torch.cat([chosen, rejected])
    centre = features.mean(0)
    centred = features - centre
    label = torch.cat([chosen.new_ones(len(chosen)), -rejected.new_ones(len(rejected))])
    penalty = ridge * torch.eye(features.shape[1], dtype=features.dtype, device=features.device)
    weights = torch.linalg.solve(centred.T @ centred + penalty, centred.T @ label)
    accuracy = float((torch.sign(centred @ weights) == label).to(features.dtype).mean())
    return Separation(weights, centre, accuracy, float((chosen.mean(0) - rejected.mean(0)).norm()))
