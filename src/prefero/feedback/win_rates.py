"""Win rates of the samples of a prompt among themselves."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def preference_matrix(scores: Float[Tensor, " response"]) -> Float[Tensor, "response response"]:
    """σ(s_i − s_j): how likely Bradley and Terry's model prefers the row's response to the column's."""
    return torch.sigmoid(scores[:, None] - scores[None, :])


def shares_of_wins(scores: Float[Tensor, "judge response"]) -> Float[Tensor, " response"]:
    """How many of its comparisons with the other responses each one wins, over all judges; equal scores win
    neither. Karthik et al., 2024, arXiv 2410.18013."""
    judges, responses = scores.shape
    wins = (scores[:, :, None] > scores[:, None, :]).sum((0, 2))
    return wins.to(scores.dtype) / max(judges * (responses - 1), 1)


def group_win_rates(preference: Float[Tensor, "response response"]) -> Float[Tensor, " response"]:
    """P(y ≻ π) estimated by the group: the mean of each row, the ½ of a response against itself included.

    Wu et al., 2024, arXiv 2405.00675. The reward of :func:`prefero.theory.games.win_rate_rewards` leaves the
    response itself out.
    """
    return preference.mean(1)
