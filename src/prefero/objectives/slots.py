"""What a configuration can put into any method's slots: another reward, a weight, another target, another
reduction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prefero.errors import PreferoError
from prefero.objectives.compare import Compare, Objective, Slot, Sum, fill, is_penalty
from prefero.objectives.contrasts import Comparisons
from prefero.objectives.group_weights import worst_group
from prefero.objectives.reductions import mean_of_all, mean_of_means, mean_of_sums, soft_minimum
from prefero.objectives.targets import length_gap, score_gap
from prefero.objectives.transforms import f_divergence, length_desensitised
from prefero.objectives.weights import given, score_gap as score_gap_weight, wpo

SLOTS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "reward": {"f_dpo": f_divergence, "ld_dpo": length_desensitised},
    "weight": {"wpo": wpo, "score_gap": score_gap_weight, "given": given},
    "target": {"score_gap": score_gap, "length_gap": length_gap},
    "reduce": {"soft_minimum": soft_minimum, "worst_group": worst_group},
}
"""The names that a configuration may give for each slot."""

MEANS = (mean_of_sums, mean_of_means, mean_of_all)
"""Reductions that another one can take the place of."""


def filled(objective: Objective, slot: str, value: Any) -> Objective:
    """The objective whose comparisons have another reward, one more weight (multiplied), one more target
    (added), or another reduction; penalties stay as they are.

    Raises :class:`~prefero.errors.PreferoError` if there is no comparison that it could belong to.
    """
    if objective.update is not None:
        raise PreferoError("it steps by a rule of its own, which reads no slot")
    if isinstance(objective, Sum):
        parts = objective.weighted_parts()
        if slot == "reduce" and sum(not is_penalty(part) for _, part in parts) > 1:
            raise PreferoError("it has several comparisons, and one reduction cannot see them together")
        return Sum(*((c, part if is_penalty(part) else filled(part, slot, value)) for c, part in parts))
    if not isinstance(objective, Compare):
        raise PreferoError("it makes no comparisons of responses, and a slot belongs to those")
    slots = {name: getattr(objective, name) for name in ("target", "scale", "weight", "reduce")}
    reward = objective.reward
    if slot == "reward":
        reward = value(reward)
    elif slot == "weight":
        slots["weight"] = Combined(torch.mul, objective.weight, value)
    elif slot == "target":
        slots["target"] = Combined(torch.add, objective.target, value)
    elif objective.reduce in MEANS:
        slots["reduce"] = value
    else:
        raise PreferoError("it has a reduction of its own")
    return Compare(reward, objective.contrast, objective.link, **slots)


class Combined(nn.Module):
    """Two slots made one; a module, so that a slot's state stays part of the objective."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], first: Slot, second: Slot) -> None:
        super().__init__()
        self.function, self.first, self.second = function, first, second

    def forward(self, comparisons: Comparisons) -> Tensor:
        ones = torch.ones_like(comparisons.margins)
        return self.function(ones * fill(self.first, comparisons), ones * fill(self.second, comparisons))
