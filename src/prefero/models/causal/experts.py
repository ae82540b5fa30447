"""Mixtures of experts: the loss that balances them, as the model's own forward with labels computes it.

It is one number for a forward, over all tokens that go through the network, each once. Where a token stands
in several padded rows, it counts in one of them; padding does not count.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedModel

_FUNCTION = "load_balancing_loss_func"
_ARGUMENTS = ["gate_logits", "num_experts", "top_k", "attention_mask"]


def balance_of(model: Any) -> tuple[float, str]:
    """The coefficient of the balancing loss that belongs to the loss of a training, 0 for none, and why a
    coefficient in the model's configuration is left out, if it is."""
    config = model.config.get_text_config()
    names = ("router_aux_loss_coef", "aux_loss_coef")
    coefficient = next((value for name in names if (value := getattr(config, name, None))), None)
    coefficient = coefficient or getattr(getattr(config, "ffn_config", None), "moe_loss_weight", None)
    if not coefficient:
        return 0.0, ""
    if not getattr(config, "output_router_logits", False):
        return 0.0, (
            f"the model has a coefficient for balancing its experts ({coefficient:g}), but its configuration "
            "has output_router_logits false: the router's balancing loss is left out, as transformers leaves "
            "it out. Set output_router_logits to true in config.json to train with it"
        )
    if _function(model) is None:
        return 0.0, (
            f"the model asks for a balancing loss of its router, but {type(model).__name__} has none that is "
            "known: it is left out"
        )
    return float(coefficient), ""


def balancing_loss(
    model: PreTrainedModel, router_logits: Sequence[Tensor], length: int, places: Int[Tensor, "node"]
) -> Tensor:
    """The balancing loss over the tokens at ``places`` of an input that is ``length`` tokens long when it is
    flattened."""
    own: Any = model
    config: Any = model.config.get_text_config()
    there = torch.zeros(1, length, dtype=torch.int64, device=places.device)
    there[0, places] = 1
    experts = getattr(own, "num_experts", None) or config.num_experts
    chosen = getattr(own, "num_experts_per_tok", None) or config.num_experts_per_tok
    function = _function(model)
    assert function is not None
    loss = function(tuple(router_logits), experts, chosen, there)
    assert isinstance(loss, Tensor)
    return loss


def _function(model: PreTrainedModel) -> Callable[..., Any] | None:
    """The balancing loss of the model's family, where it is the usual one."""
    function = getattr(sys.modules[type(model).__module__], _FUNCTION, None)
    usual = function is not None and list(inspect.signature(function).parameters) == _ARGUMENTS
    return function if usual else None
