"""Optima of reward modelling, DPO and online DPO with unlimited data but too small a class: log-linear
policies on finitely many responses, π_θ ∝ π_ref e^{θ·φ}, and rewards φ·w with w = βθ. Shi et al., 2025, arXiv
2505.19770."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.theory.optima import kl, reward_optimum_value

Parameters = Float[Tensor, " feature"]


@dataclass(frozen=True, slots=True)
class LogLinearBandit:
    """One prompt: the ``features`` and true ``reward`` of each response, the reference, and β."""

    features: Float[Tensor, "response feature"]
    reward: Float[Tensor, " response"]
    reference: Float[Tensor, " response"]
    beta: float

    def policy(self, theta: Parameters) -> Float[Tensor, " response"]:
        return (self.reference.log() + self.features @ theta).softmax(-1)

    def value(self, theta: Parameters) -> Float[Tensor, ""]:
        """E[r] − β KL(π_θ ‖ π_ref), by the true reward: what to compare methods by."""
        policy = self.policy(theta)
        return policy @ self.reward - self.beta * kl(policy, self.reference)

    def best_value(self) -> Float[Tensor, ""]:
        """The largest value that any policy has, in the class or not."""
        return reward_optimum_value(self.reference, self.reward, self.beta)

    def residual(self, weights: Parameters, sampling: Float[Tensor, " response"]) -> Parameters:
        """The slope, in the weights w of a reward φ·w, of Bradley and Terry's expected loss when both
        responses are drawn from ``sampling`` and labelled by the true reward."""
        fitted = self.features @ weights
        error = torch.sigmoid(gaps(fitted)) - torch.sigmoid(gaps(self.reward))
        return 2 * (sampling[:, None] * sampling * error).sum(1) @ self.features

    def reward_weights(self, sampling: Float[Tensor, " response"]) -> Parameters:
        """The reward of the class that fits the preferences best."""
        start = self.features.new_zeros(self.features.shape[1])
        return newton(lambda weights: self.residual(weights, sampling), start)

    def rlhf(self, sampling: Float[Tensor, " response"]) -> Parameters:
        """Fit the reward, then take the best policy for it, which this class contains: θ = w/β."""
        return self.reward_weights(sampling) / self.beta

    def dpo(self, sampling: Float[Tensor, " response"]) -> Parameters:
        """The smallest expected DPO loss over policies, found by DPO's own condition."""
        start = self.features.new_zeros(self.features.shape[1])
        return newton(lambda theta: self.residual(self.beta * theta, sampling), start)

    def online_dpo(self) -> Parameters:
        """The stationary point that gradient descent from θ = 0 flows to when pairs come from the current
        policy, whose change with θ has no gradient. There may be others."""

        def slope(theta: Tensor) -> Tensor:
            return self.residual(self.beta * theta, self.policy(theta))

        start = self.features.new_zeros(self.features.shape[1])
        return newton(slope, flow(slope, start))

    def class_optimum(self, sampling: Float[Tensor, " response"]) -> Parameters:
        """The best stationary point of the value from 0 and from the optima of DPO and online DPO."""
        starts = (self.features.new_zeros(self.features.shape[1]), self.dpo(sampling), self.online_dpo())
        found = [self.ascent(start) for start in starts]
        return max(found, key=lambda theta: float(self.value(theta)))

    def ascent(self, start: Parameters) -> Parameters:
        """A local maximum of the value near the start."""
        theta = start.detach().clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [theta], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = -self.value(theta)
            loss.backward()
            return loss

        optimizer.step(closure)
        return newton(self.value_slope, theta.detach())

    def value_slope(self, theta: Parameters) -> Parameters:
        """The covariance, under the policy, of the features and what the reward exceeds βθ·φ by."""
        policy, excess = self.policy(theta), self.reward - self.beta * self.features @ theta
        return (policy * (excess - policy @ excess)) @ self.features


def gaps(values: Float[Tensor, " response"]) -> Float[Tensor, "response response"]:
    return values[:, None] - values


def flow(slope: Callable[[Tensor], Tensor], start: Parameters, steps: int = 400) -> Parameters:
    """Where the flow −slope ends up from a start, in implicit steps that grow by a tenth each."""
    here, time = start, 0.1
    identity = torch.eye(len(start), dtype=start.dtype)
    for _ in range(steps):
        jacobian = torch.autograd.functional.jacobian(slope, here)
        steepest = float(torch.linalg.eigvals(jacobian).real.min())
        # an implicit step longer than this would turn around where the flow runs apart
        safe = min(time, -0.5 / steepest) if steepest < 0 else time
        step = torch.linalg.solve(identity / safe + jacobian, slope(here))
        here, time = here - step, 1.1 * time
        if float(step.abs().max()) < 1e-14:
            break
    return here


def newton(slope: Callable[[Tensor], Tensor], start: Parameters, steps: int = 100) -> Parameters:
    """A root of the slope by Newton's method with halved steps; directions without a slope stay as they
    are."""
    here = start
    for _ in range(steps):
        value = slope(here)
        jacobian = torch.autograd.functional.jacobian(slope, here)
        step = torch.linalg.pinv(jacobian) @ value
        size = value.norm()
        for _ in range(40):
            following = here - step
            if slope(following).norm() < size:
                break
            step = step / 2
        else:
            return here
        here = following
    return here
