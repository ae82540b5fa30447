"""Learned values beside the policy: of a reasoning step, of every state on the way, of a prompt."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from prefero.objectives.batch import PreferenceBatch
from prefero.objectives.compare import Compare, Objective, penalty
from prefero.objectives.contrasts import Each, EachOf, TotalOf
from prefero.objectives.heads import Head, Projection
from prefero.objectives.links import identity, rectified, squared
from prefero.objectives.quantities import Column, Measured, Quantity, Unary, log_ratio
from prefero.objectives.ranges import NonNegative, Positive
from prefero.objectives.reductions import mean_of_all, mean_of_means
from prefero.objectives.registry import Equal, published
from prefero.objectives.segments import step_index
from prefero.objectives.signals import PROMPT_STATE, STATE, TOKEN_STATE, reverse_kl

Level = Literal["token", "step", "response"]
"""What one action of a trajectory is."""


def value_head(state: Quantity, detached: bool, *after: nn.Module) -> Head:
    """A value linear in a state, whose gradient reaches the model unless ``detached``."""
    bias = None if after else 0.0
    return Head(nn.Sequential(Projection(1, bias=bias), *after), state.detach() if detached else state)


def step_values(
    value: Quantity, beta: float, mse_weight: float, margin_weight: float, margin: float
) -> Objective:
    """:func:`svpo` with any quantity as the value of a step."""
    error = (value - Column("score")).map(torch.square)
    regression = Compare(error, EachOf("chosen", "rejected"), identity, reduce=mean_of_means)
    ranking = Compare(value, link=rectified, target=margin)
    return Compare(beta * log_ratio().sum()) + mse_weight * regression + margin_weight * ranking


@published(
    title="Step-level value preference optimization",
    paper="p019",
    citation="Chen et al., 2024, arXiv 2406.10858",
    equation=(
        "−log σ(β h) + c_v ½ Σ_{s ∈ {s_w, s_l}} (V(s) − Q(s))² + c_m max(0, m − [V(s_w) − V(s_l)]), "
        "V = tanh(w · state at the step's last token)"
    ),
    feedback={"pairs", "scores"},
    relatives=(
        "Both responses are one reasoning step after the same steps, and the column score is the step's "
        "value in the search, Q in [−1, 1]. No training code and no weights are published: the weights and "
        "the margin are a suggestion. The paper's likelihood of correct paths is `plus: {nll: …}`."
    ),
    equals=(Equal("dpo", at={"mse_weight": 0.0, "margin_weight": 0.0}),),
    pitfalls=(
        "Steps that the search never visited have no value, Q = 0 is not one: leave them out. The head wants "
        "a larger learning rate than the policy: objective_learning_rate."
    ),
)
def svpo(
    beta: Positive = 0.1,
    mse_weight: NonNegative = 1.0,
    margin_weight: NonNegative = 0.5,
    margin: NonNegative = 0.3,
    detach_value: bool = False,
) -> Objective:
    """DPO on reasoning steps with a value head that regresses on and ranks by the search's values.

    With ``detach_value`` the value reads the policy's states without shaping them.
    """
    value = value_head(Measured(STATE), detach_value, nn.Tanh())
    return step_values(value, beta, mse_weight, margin_weight, margin)


def action_starts(batch: PreferenceBatch, level: Level) -> Bool[Tensor, "example response token"]:
    """The first scored token of each action; a response without steps is one."""
    if level == "token":
        return batch.mask
    first = batch.mask & (batch.mask.cumsum(-1) == 1)
    if level == "response":
        return first
    index = step_index(batch)
    before = torch.cat([index[..., :1], index[..., :-1]], -1)
    return first | (batch.mask & (index > before))


class PerAction(Quantity):
    """A number per token, gathered over the actions of a response."""

    def __init__(self, of: Quantity, level: Level) -> None:
        super().__init__()
        self.of, self.level = of, level


class ActionSum(PerAction):
    """The sum of a number per token over each action, at the action's first token; 0 elsewhere."""

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response token"]:
        values, starts = torch.where(batch.mask, self.of(batch), 0), action_starts(batch, self.level)
        action = (starts.cumsum(-1) - 1).clamp(min=0)
        sums = torch.zeros_like(values).scatter_add(-1, action, values)
        return torch.where(starts, sums.gather(-1, action), 0)


class ActionMean(PerAction):
    """The mean of a number per token over the first tokens of a response's actions."""

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response"]:
        starts = action_starts(batch, self.level)
        return torch.where(starts, self.of(batch), 0).sum(-1) / starts.sum(-1).clamp(min=1)


class Remaining(Unary):
    """The sum of a number per token over this and all later scored tokens of the response."""

    def forward(self, batch: PreferenceBatch) -> Float[Tensor, "example response token"]:
        return torch.where(batch.mask, self.of(batch), 0).flip(-1).cumsum(-1).flip(-1)


def soft_bellman(value: Quantity, beta: float, kappa: float, level: Level) -> Objective:
    """:func:`oreo` with any quantity as the value before each token."""
    ratio = log_ratio()
    current = ActionSum(ratio, level)
    ahead = beta * Remaining(ratio.detach()) - Column("score").per_token()
    of_policy = value.detach() + ahead + beta * (current - current.detach())
    fit = [
        penalty(ActionMean(residual.map(torch.square), level), reduce=mean_of_all)
        for residual in (value + ahead, of_policy)
    ]
    objective = fit[0] + fit[1]
    if kappa:
        drift = penalty(Measured(reverse_kl()).mean(), reduce=mean_of_all)
        objective = objective + kappa * drift
    return objective


@published(
    title="OREO: offline reasoning optimization",
    paper="p079",
    citation="Wang et al., 2024, arXiv 2412.16145; code jwhj/OREO",
    equation=(
        "mean_t (V_t − R + β Σ_{i≥t} sg Δ_i)² + mean_t (sg V_t − R + β Δ_t + β Σ_{i>t} sg Δ_i)² "
        "+ κ mean_t KL(π ‖ π_ref), Δ = log π/π_ref"
    ),
    feedback={"unpaired", "scores"},
    settings={"default": {"beta": 0.03, "kappa": 0.01, "learning_rate": 5e-6}},
    relatives=(
        "The column score is the reward at the end of a trajectory, 0 or 1. The authors' value is a model of "
        "its own that starts as the policy; here it is a head that reads the policy's states, without "
        "shaping them unless detach_value is off. They alternate two optimizers; here both parts are one "
        "step. The value of a step is read before its first token, as the column step has it."
    ),
    pitfalls=(
        "The two squares have the same value and different gradients: their sum says nothing about which of "
        "the two fits badly. V is that of the state before a token."
    ),
)
def oreo(
    beta: Positive = 0.03, kappa: NonNegative = 0.01, level: Level = "token", detach_value: bool = True
) -> Objective:
    """Policy and value fitted together to the soft Bellman equation of trajectories with a reward at the end.

    ``level`` is what one action is: a token, a reasoning step (column ``step``) or the whole response; later
    actions get no gradient.
    """
    return soft_bellman(value_head(Measured(TOKEN_STATE), detach_value), beta, kappa, level)


def regression_on_rewards(value: Quantity, tau: float, divide_policy_gradient: bool) -> Objective:
    """:func:`dro_v` with any quantity as the value of the prompt."""
    ratio = log_ratio().sum()
    # the same numbers either way; as ratio + (τ − 1) sg(ratio) the policy's gradient is divided by τ
    reward = ratio + (tau - 1) * ratio.detach() if divide_policy_gradient else tau * ratio
    target = TotalOf(Column("score") - value)
    return Compare(reward, Each(), squared, target=target, weight=0.5, reduce=mean_of_all)


@published(
    title="DRO-V: direct reward optimisation",
    paper="p091",
    citation="Richemond et al., 2024, arXiv 2405.19107",
    equation="½ (r(x, y) − V(x) − τ log π(y)/π_ref(y))²",
    feedback={"unpaired", "scores"},
    settings={"t5": {"tau": 1.0, "learning_rate": 1e-4}},
    relatives=(
        "Single responses with a scalar reward, standardised; nothing is compared. Not the robust "
        "optimisation that is called DRO too, nor the quadratic loss with a given advantage. The authors' "
        "value is a separate model, averaged over the prompt; here it is a head on the policy's state at the "
        "prompt's last token, which it does not shape unless detach_value is off."
    ),
    pitfalls=(
        "Dividing the policy's gradient by τ is not a scaling of the loss: the value's gradient stays. A "
        "value that lags behind biases the policy, so let objective_learning_rate be larger."
    ),
)
def dro_v(tau: Positive = 1.0, divide_policy_gradient: bool = True, detach_value: bool = True) -> Objective:
    """The log-ratio regressed on rewards above a learned value of the prompt.

    The paper's practical rule divides the policy's gradient by τ; ``divide_policy_gradient: false`` is the
    gradient of the loss.
    """
    value = value_head(Measured(PROMPT_STATE), detach_value)
    return regression_on_rewards(value, tau, divide_policy_gradient)
