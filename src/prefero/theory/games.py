"""Preference games on finitely many responses: winners, equilibria, duality gaps, self-play, and critics.

``preference[i, j]`` is the probability that response i beats response j, usually with ``preference +
preference.T = 1``; it may be cyclic. Nesterov's extrapolation between rounds: He et al., 2024, arXiv
2410.06293. The adversarial critic: Ji et al., 2024, arXiv 2406.04274 (SPAC).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
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
    """A policy that loses to no other on average: argmax_p min_q pᵀ P q, the minimax winner, by a linear
    program. Swamy et al., 2024, arXiv 2401.04056; Wang et al., 2023, arXiv 2306.14111."""
    from scipy.optimize import linprog

    payoff = preference.detach().double().cpu().numpy()
    count = len(payoff)
    # the largest v with pᵀP ≥ v for every reply, over distributions p
    program = linprog(
        [0.0] * count + [-1.0],
        A_ub=np.column_stack([-payoff.T, np.ones(count)]),
        b_ub=np.zeros(count),
        A_eq=[[1.0] * count + [0.0]],
        b_eq=[1.0],
        bounds=[(0, 1)] * count + [(None, None)],
        method="highs-ds",
    )
    winner = preference.new_tensor(program.x[:-1]).clamp(min=0)
    return winner / winner.sum()


def game_value(preference: Matrix) -> Float[Tensor, ""]:
    """What the winner is sure to win: ½ where ``preference + preference.T = 1``."""
    return worst_case_win_rate(preference, von_neumann_winner(preference))


def duality_gap(
    preference: Matrix, policy: Policy, reference: Policy | None = None, beta: float = 0.0
) -> Float[Tensor, ""]:
    """max_p V(p, π) − min_q V(π, q) ≥ 0, with V(p, q) = pᵀPq − β KL(p ‖ π_ref) + β KL(q ‖ π_ref): 0 only at
    an equilibrium."""
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
    """The ``step`` of gradient descent with this rate on the online IPO loss over all ordered pairs."""
    return 4 * learning_rate / responses


def regularised_equilibrium(preference: Matrix, reference: Policy, beta: float) -> Policy:
    """The policy that is its own best reply: π ∝ π_ref e^{Pπ/β}, by about 80 (1 + 1/β) extragradient steps.
    Munos et al., 2023, arXiv 2312.00886 (Nash learning from human feedback)."""
    game, anchor = preference.double(), reference.double().log()
    spread = float((game - 0.5).abs().max())
    # half of the rate for which Cen et al., 2021, prove convergence without a condition on the game
    step = beta / (2 * beta + 4 * spread)
    logits = anchor
    for _ in range(math.ceil(math.log(1e-17) / math.log1p(-step))):
        _, logits = extragradient_step(game, logits, anchor, beta, step)
    return reward_optimum(reference.double(), game @ logits.softmax(-1), beta).to(reference.dtype)


def win_rate_rewards(preference: Matrix) -> Float[Tensor, " response"]:
    """How often each of k responses beats the others: SPO's reward in a batch, whose mean is always ½. Raises
    :class:`PreferoError` for fewer than two. Swamy et al., 2024, arXiv 2401.04056."""
    count = len(preference)
    if count < 2:
        raise PreferoError(f"a win rate among the responses of a batch needs at least two; got {count}")
    return (preference.sum(-1) - preference.diagonal()) / (count - 1)


def soft_policy_iteration(
    preference: Matrix, initial: Policy, eta: float, steps: int
) -> Float[Tensor, "step response"]:
    """Self-play π ← π e^{Pπ/η} / Z: the policies from ``initial`` on. Their average approaches the minimax
    winner; the last may circle around it. Swamy et al., 2024, arXiv 2401.04056."""
    path = [initial]
    for _ in range(steps):
        path.append(reward_optimum(path[-1], preference @ path[-1], eta))
    return torch.stack(path)


def reward_of_preference(win_rate: Float[Tensor, " *response"], bound: float) -> Float[Tensor, " *response"]:
    """The reward over a fixed baseline, in [−bound, bound], whose σ is nearest to the rate of beating it
    (P2R). The error is up to that of the rate over σ′(bound). Wang et al., 2023, arXiv 2306.14111."""
    return torch.logit(win_rate).clamp(-bound, bound)


@dataclass(frozen=True, slots=True)
class Extrapolated:
    """Log-probabilities, and the log of what normalised them."""

    logps: Float[Tensor, "*prompt response"]
    log_z: Float[Tensor, " *prompt"]


def extrapolate(
    following: Float[Tensor, "*prompt response"], current: Float[Tensor, "*prompt response"], alpha: float
) -> Extrapolated:
    """π̂₊ (π̂₊/π̂)^α / Z from the logits of two successive policies, both before their extrapolation; of
    log-linear policies the same as :func:`extrapolate_parameters`."""
    following, current = following.log_softmax(-1), current.log_softmax(-1)
    combined = following + alpha * (following - current)
    log_z = combined.logsumexp(-1)
    return Extrapolated(combined - log_z[..., None], log_z)


def extrapolate_parameters(following: Tensor, current: Tensor, alpha: float) -> Tensor:
    """θ̂₊ + α (θ̂₊ − θ̂), for the parameters of a network; of adapters, for the merged weights."""
    return following + alpha * (following - current)


@dataclass(frozen=True, slots=True)
class ProximalPath:
    """``policies`` round by round from the reference, each π_ref e^{c r/β} / Z with its coefficient c;
    ``before`` extrapolation likewise."""

    policies: Float[Tensor, "round response"]
    before: Float[Tensor, "round response"]
    coefficients: Float[Tensor, " round"]
    coefficients_before: Float[Tensor, " round"]


def proximal_path(
    reference: Float[Tensor, " response"],
    reward: Float[Tensor, " response"],
    beta: float,
    rounds: int,
    alpha: float = 0.0,
) -> ProximalPath:
    """Exact rounds: π̂₊ ∝ π e^{r/β}, then the extrapolation π₊ ∝ π̂₊ (π̂₊/π̂)^α. With ``alpha`` = 0 (iterated
    DPO) the coefficient grows by 1 a round; else its increments tend to 1/(1 − α)."""
    extrapolated, plain = [0.0], [0.0]
    for _ in range(rounds):
        plain.append(extrapolated[-1] + 1.0)
        extrapolated.append(plain[-1] + alpha * (plain[-1] - plain[-2]))
    after, before = (reward.new_tensor(coefficients) for coefficients in (extrapolated, plain))

    def policies(coefficients: Tensor) -> Tensor:
        return (reference.log() + coefficients[:, None] * reward / beta).softmax(-1)

    return ProximalPath(policies(after), policies(before), after, before)


def critic_loss(
    critic: Float[Tensor, " response"],
    policy: Float[Tensor, " response"],
    wins: Float[Tensor, "response response"],
    weight: float,
) -> Float[Tensor, ""]:
    """E_{y∼π} f(y) + λ · the mean of −log σ(f(y_w) − f(y_l)) over the comparisons."""
    fit = -(wins * F.logsigmoid(critic[:, None] - critic)).sum() / wins.sum().clamp(min=1e-300)
    return policy @ critic + weight * fit


def adversarial_critic(
    policy: Float[Tensor, " response"],
    wins: Float[Tensor, "response response"],
    weight: float,
    bound: float,
    steps: int = 4000,
) -> Float[Tensor, " response"]:
    """The critic in [0, ``bound``] with the smallest :func:`critic_loss` (0 for what was never compared), by
    projected gradient descent. ``wins[i, j]`` counts how often i was preferred to j, ``weight`` is λ."""
    share = wins / wins.sum().clamp(min=1e-300)
    met = share + share.T
    # the curvature of a comparison is at most ¼, and a response's is coupled to those that it met
    rate = 1 / (weight * 0.5 * met.sum(1).max()).clamp(min=1e-12)
    here = ahead = torch.full_like(policy, bound / 2)
    for step in range(steps):
        wrong = share * torch.sigmoid(ahead - ahead[:, None])
        slope = policy + weight * (wrong.sum(0) - wrong.sum(1))
        following = (ahead - rate * slope).clamp(0, bound)
        moved = following - here
        ahead, here = following + step / (step + 3) * moved, following
        if float(moved.abs().max()) < 1e-13:
            break
    return here


@dataclass(frozen=True, slots=True)
class AdversarialPath:
    """The policies round by round from the reference, their critics, and the mixture of the policies."""

    policies: Float[Tensor, "round response"]
    critics: Float[Tensor, "round response"]
    mixture: Float[Tensor, " response"]


def adversarial_path(
    reference: Float[Tensor, " response"],
    wins: Float[Tensor, "response response"],
    *,
    weight: float,
    eta: float,
    bound: float = 1.0,
    rounds: int = 10,
) -> AdversarialPath:
    """π ← π e^{η f} / Z with f the critic of π, round after round. ``eta`` is one over the loss's β; the
    theory takes ``weight`` of the order of the root of the number of comparisons."""
    policies, critics = [reference], []
    for _ in range(rounds):
        critics.append(adversarial_critic(policies[-1], wins, weight, bound))
        policies.append((policies[-1].log() + eta * critics[-1]).softmax(-1))
    path = torch.stack(policies)
    return AdversarialPath(path, torch.stack(critics), path[1:].mean(0))
