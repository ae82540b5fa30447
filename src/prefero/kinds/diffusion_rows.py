"""Noisy states of several examples and views, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from prefero.models.diffusion import Images, NoisyStates
from prefero.objectives.batch import TokenLogps


@dataclass(frozen=True, slots=True)
class NoisyRow:
    """Noisy states of some examples, by view; its length is how many there are."""

    views: Mapping[str, NoisyStates]

    def __len__(self) -> int:
        return sum(int(states.images.present.sum()) * states.index.shape[2] for states in self.views.values())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        return replace(
            self, views={view: states.to(device, non_blocking) for view, states in self.views.items()}
        )

    @property
    def whole(self) -> NoisyStates:
        """All views as examples of one, for a single call of a model."""
        first, *more = self.views.values()
        return joined([first, *more]) if more else first

    def parted(self, scored: TokenLogps) -> dict[str, TokenLogps]:
        """What was measured of the whole, by view."""
        start, found = 0, {}
        for view, states in self.views.items():
            examples, responses, _ = states.index.shape
            own = slice(start, start + examples), slice(responses)
            found[view] = TokenLogps(
                scored.logps[own],
                scored.mask[own],
                {signal: values[own] for signal, values in scored.signals.items()},
            )
            start += examples
        return found


def joined(parts: Sequence[NoisyStates]) -> NoisyStates:
    """The examples of all parts, with as many responses as any of them has; absent ones are zeros."""
    responses = max(part.index.shape[1] for part in parts)

    def filled(values: Tensor) -> Tensor:
        missing = responses - values.shape[1]
        if not missing:
            return values
        return torch.cat([values, values.new_zeros(len(values), missing, *values.shape[2:])], 1)

    images = Images(
        torch.cat([filled(part.images.values) for part in parts]),
        together([part.images.conditions for part in parts]),
        torch.cat([filled(part.images.present) for part in parts]),
    )
    return NoisyStates(
        images,
        torch.cat([filled(part.index) for part in parts]),
        torch.cat([filled(part.states) for part in parts]),
        torch.cat([filled(part.targets) for part in parts]),
    )


def together(parts: Sequence[Any]) -> Any:
    """Conditions of examples, one after the other."""
    first = parts[0]
    if isinstance(first, Mapping):
        return {name: together([part[name] for part in parts]) for name in first}
    return torch.cat(list(parts)) if isinstance(first, Tensor) else first
