"""Checks that an objective must pass on invented pairs before anything is trained with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from prefero.errors import PreferoError
from prefero.objectives.batch import PreferenceBatch, TokenLogps
from prefero.objectives.compare import Objective
from prefero.objectives.configurations import from_config
from prefero.objectives.needs import Needs, dry_run, materialise, trailing_sizes

ROLES = ("chosen", "rejected")
COLUMNS = {"score", "pair_noise"}
"""Columns that the pairs of a text world have."""

TOKENS = 2
SIZES = (3.0, 30.0, 300.0)
"""Log-ratio gaps at which a lost pair is held against a won one."""


def screened(config: Mapping[str, Any]) -> str | None:
    """Why the objective is not worth training; None if it may be.

    It must be one that the registry builds and that pairs suffice for; have finite values and gradients, at
    the start, in the middle and far off; depend on the policy; and charge more for a pair that is lost than
    for one that is won, at most of three sizes (some good losses turn round the start:
    :func:`~prefero.objectives.presets.discovered.discopop`).
    """
    try:
        objective = materialise(from_config(config))
        needs = dry_run(objective)
        return wrong_data(needs) or wrong_numbers(objective, needs) or wrong_sign(objective, needs)
    except PreferoError as error:
        return str(error)
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        # Arguments of any kind and size come here, and torch has an error for each.
        return f"it cannot be computed on pairs: {str(error).partition(chr(10))[0] or type(error).__name__}"


def wrong_data(needs: Needs) -> str | None:
    unknown = set(needs.roles) - set(ROLES) or needs.columns - COLUMNS or needs.views
    unknown = unknown or set(needs.models) - {"policy", "reference"}
    if unknown or not needs.roles:
        named = ", ".join(sorted(unknown)) or "lists of responses"
        return f"the search trains on pairs with scores, and this reads {named}"
    return None


def wrong_numbers(objective: Objective, needs: Needs) -> str | None:
    numbers = torch.Generator().manual_seed(0)
    middle = 10 * torch.randn(2, 8, generator=numbers, dtype=torch.float64)
    far = torch.tensor([[1000.0, -1000.0, 1000.0], [0.0, 0.0, -1000.0]], dtype=torch.float32)
    trials = {
        "where training starts": torch.zeros_like(middle),
        "at log-ratios of about 10": middle,
        "at log-ratios of 1000": far,
    }
    pull = 0.0
    for place, ratios in trials.items():
        loss, slope = trial(objective, needs, ratios)
        if not loss.isfinite():
            return f"the loss is {loss.item()} {place}"
        if not slope.isfinite().all():
            return f"the gradient is not finite {place}"
        pull += float(slope.abs().sum())
    return None if pull else "the loss has no gradient: it does not depend on the policy"


def wrong_sign(objective: Objective, needs: Needs) -> str | None:
    dearer = 0
    for size in SIZES:
        won, lost = (
            trial(objective, needs, torch.tensor([[gap], [-gap]], dtype=torch.float64).expand(2, 4))[0]
            for gap in (size / 2, -size / 2)
        )
        dearer += int(lost > won) - int(lost < won)
    if dearer > 0:
        return None
    return "it has the wrong sign: a pair that is lost costs no more than one that is won"


def trial(objective: Objective, needs: Needs, ratios: Tensor) -> tuple[Tensor, Tensor]:
    """The loss and its gradient on pairs whose responses have these log-ratios, ``[side, example]``."""
    objective = objective.to(ratios.dtype).train()
    log_ratio = (ratios.T / TOKENS)[..., None].expand(-1, -1, TOKENS)
    reference = -2 - log_ratio.detach().abs().amax().expand_as(log_ratio)
    mask = torch.ones(log_ratio.shape, dtype=torch.bool)
    logps = (reference + log_ratio).clone().requires_grad_()
    signals = {
        name: {
            signal: -torch.ones(
                (*mask.shape[: len(signal.axes.split())], *trailing_sizes(signal)), dtype=ratios.dtype
            )
            for signal in asked
        }
        for name, asked in needs.models.items()
    }
    models = {"policy": TokenLogps(logps, mask, signals.get("policy", {}))}
    models["reference"] = TokenLogps(reference, mask, signals.get("reference", {}))
    examples = len(logps)
    columns = {
        "score": torch.tensor([1.0, 0.0], dtype=ratios.dtype).expand(examples, 2),
        "pair_noise": torch.linspace(0.1, 0.9, examples, dtype=ratios.dtype),
    }
    loss = objective.loss(PreferenceBatch(models, columns, ordered(needs.roles), progress=0.5))
    (slope,) = torch.autograd.grad(loss, logps, allow_unused=True) if loss.requires_grad else (None,)
    return loss.detach(), torch.zeros_like(logps) if slope is None else slope


def ordered(roles: Sequence[str]) -> tuple[str, ...]:
    """All roles of a pair, whichever of them are read."""
    return ROLES if set(roles) <= set(ROLES) else tuple(roles)
