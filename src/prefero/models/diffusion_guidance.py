"""Classifier-free guidance: a policy that samples with it is scored with it, or its steps are another
policy's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from prefero.models.diffusion import Denoiser, denoise, rows_of


def with_guidance(model: Denoiser, unconditional: Mapping[str, Any], scale: float) -> Denoiser:
    """The denoiser that says u + s (c − u), for what the model says with the conditions, c, and with
    ``unconditional`` ones in their place, u: each a tensor with one row, or as many as are asked for.

    ``scale`` 1 is the model itself, 0 the model without conditions. Ho and Salimans, 2022, arXiv 2207.12598.
    """

    def guided(given: Tensor, timestep: Tensor, **conditions: Any) -> Tensor:
        first = torch.zeros(len(given), dtype=torch.int64, device=given.device)
        nothing = {
            name: rows_of(value, first) if is_one_row(value) else value
            for name, value in unconditional.items()
        }
        without = denoise(model, given, timestep, {**conditions, **nothing})
        return without + scale * (denoise(model, given, timestep, conditions) - without)

    return guided


def is_one_row(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, Tensor) and len(value) == 1)
