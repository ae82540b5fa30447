"""A second model, for signals that compare two."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, slots=True)
class SecondModel:
    """The model that a two-model signal compares with; ``context`` is entered around each of its forwards:
    ``SecondModel(policy, partial(adapters_off, policy))`` is the policy without its adapters."""

    model: nn.Module
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
