"""Preference games on finitely many responses: winners, equilibria, duality gaps, and self-play.

``preference[i, j]`` is the probability that response i beats response j, usually with
``preference + preference.T = 1``. Preferences may be cyclic: then no reward explains them.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.errors import PreferoError
from prefero.theory.optima import kl, reward_optimum, reward_optimum_value

Matrix = Float[Tensor, "response response"]
Policy = Float[Tensor, " response"]


def worst_case_win_rate(preference: Matrix, policy: Policy) -> Float[Tensor, ""]:
    """min over opponents of P(π ≻ opponent): ½ for a von Neumann winner, less for any other policy."""
    return (policy @ preference).min()


def von_neumann_winner(preference: Matrix) -> Policy:
    """A policy that loses to no other on average: argmax_p min_q pᵀ P q, exact up to rounding.

    It is also called the minimax winner (Swamy et al., 2024, arXiv 2401.04056; Wang et al., 2023, arXiv
    2306.14111). Where several policies win, this is one of them, with small support. A linear program,
    solved by the simplex method.
    """
    payoff = preference.double()
    responses = len(payoff)
    shift = 1 - payoff.min()
    # the opponent's program: the largest Σ q with A q ≤ 1, q ≥ 0; the winner is its dual solution
    table = torch.zeros(responses + 1, 2 * responses + 1, dtype=torch.float64)
    table[:-1, :responses] = payoff + shift
    table[:-1, responses:-1] = torch.eye(responses, dtype=torch.float64)
    table[:-1, -1] = 1
    table[-1, :responses] = -1
    basis = list(range(responses, 2 * responses))
    while bool((table[-1, :-1] < -1e-12).any()):
        # Bland's rule, the first of all that would do, cannot cycle
        column = int((table[-1, :-1] < -1e-12).nonzero()[0])
        slope, held = table[:-1, column], table[:-1, -1]
        ratios = torch.where(slope > 1e-12, held.clamp(min=0) / slope, torch.inf)
        tied = (ratios <= ratios.min() + 1e-12).nonzero().flatten().tolist()
        row = min(tied, key=lambda one: basis[one])
        table[row] /= table[row, column].clone()
        others = [one for one in range(responses + 1) if one != row]
        table[others] -= table[others, column, None] * table[row]
        basis[row] = column
    dual = table[-1, responses:-1].clamp(min=0)
    return (dual / dual.sum()).to(preference.dtype)


def game_value(preference: Matrix) -> Float[Tensor, ""]:
    """What the winner is sure to win: ½ where ``preference + preference.T = 1``."""
    return worst_case_win_rate(preference, von_neumann_winner(preference))


def duality_gap(
    preference: Matrix, policy: Policy, reference: Policy | None = None, beta: float = 0.0
) -> Float[Tensor, ""]:
    """max_p V(p, π) − min_q V(π, q) ≥ 0, and 0 only at an equilibrium.

    V(p, q) = pᵀPq − β KL(p ‖ π_ref) + β KL(q ‖ π_ref). ``beta`` = 0 is the game without a reference.
    """
    gain, loss = preference @ policy, policy @ preference
    if beta == 0:
        return gain.max() - loss.min()
    if reference is None:
        raise PreferoError("the duality gap of a regularised game (beta > 0) needs its reference policy")
    own = beta * kl(policy, reference)
    best = reward_optimum_value(reference, gain, beta) + own
    worst = -reward_optimum_value(reference, -loss, beta) - own
    return best - worst


def extragradient_step(
    preference: Matrix,
    logits: Float[Tensor, " response"],
    reference_logits: Float[Tensor, " response"],
    beta: float,
    step: float,
) -> tuple[Float[Tensor, " response"], Float[Tensor, " response"]]:
    """EGPO: the logits after the half step, and those after the full step, both taken from ``logits``.

    θ ← (1−s) θ + s (θ_ref + P π/β), where π is the policy of ``logits`` in the half step and that of the half
    step in the full one. The half step alone is online mirror descent. A gradient step of rate η on the
    online IPO loss, averaged over all ordered pairs of n responses, is this with s = 4η/n
    (:func:`online_ipo_step_size`). Zhou et al., 2025, arXiv 2503.08942.
    """

    def moved(opponent: Tensor) -> Tensor:
        target = reference_logits + preference @ opponent / beta
        return (1 - step) * logits + step * target

    half = moved(logits.softmax(-1))
    return half, moved(half.softmax(-1))


def online_ipo_step_size(learning_rate: float, responses: int) -> float:
    """The ``step`` that gradient descent with this rate takes on the online IPO loss over all ordered pairs
    of so many responses."""
    return 4 * learning_rate / responses


def regularised_equilibrium(preference: Matrix, reference: Policy, beta: float) -> Policy:
    """The policy that is its own best reply: π ∝ π_ref e^{Pπ/β}, by extragradient steps to rounding.

    Munos et al., 2023, arXiv 2312.00886 (Nash learning from human feedback). Takes about 80 (1 + 1/β) steps,
    so β below 1e-3 is slow.
    """
    game, anchor = preference.double(), reference.double().log()
    spread = float((game - 0.5).abs().max())
    # half of the rate for which Cen et al., 2021, prove convergence without a condition on the game
    step = beta / (2 * beta + 4 * spread)
    logits = anchor
    for _ in range(math.ceil(math.log(1e-17) / math.log1p(-step))):
        _, logits = extragradient_step(game, logits, anchor, beta, step)
    return reward_optimum(reference.double(), game @ logits.softmax(-1), beta).to(reference.dtype)


def win_rate_rewards(preference: Matrix) -> Float[Tensor, " response"]:
    """How often each of k responses beats the others: SPO's reward in a batch, whose mean is always ½.

    No response meets itself. Swamy et al., 2024, arXiv 2401.04056.

    Raises:
        PreferoError: there are fewer than two responses.
    """
    count = len(preference)
    if count < 2:
        raise PreferoError(f"a win rate among the responses of a batch needs at least two; got {count}")
    return (preference.sum(-1) - preference.diagonal()) / (count - 1)


def soft_policy_iteration(
    preference: Matrix, initial: Policy, eta: float, steps: int
) -> Float[Tensor, "step response"]:
    """Self-play π ← π e^{Pπ/η} / Z: the policies, the first of them ``initial``.

    Their average approaches the minimax winner; the last of them may circle around it. Swamy et al., 2024,
    arXiv 2401.04056.
    """
    path = [initial]
    for _ in range(steps):
        path.append(reward_optimum(path[-1], preference @ path[-1], eta))
    return torch.stack(path)


def reward_of_preference(win_rate: Float[Tensor, " *response"], bound: float) -> Float[Tensor, " *response"]:
    """The reward over a fixed baseline, in [−bound, bound], whose σ is nearest to the rate of beating it.

    Turns comparisons with one baseline into rewards for any reinforcement learner (P2R). The error is up to
    that of the rate over σ′(bound), so keep the bound small. Wang et al., 2023, arXiv 2306.14111.
    """
    return torch.logit(win_rate).clamp(-bound, bound)
