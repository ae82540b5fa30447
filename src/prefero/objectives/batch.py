"""What an objective sees: the token log-probabilities of some models on some responses, and annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Bool, Float
from torch import Tensor

from prefero.data.schema import Axes


@dataclass(frozen=True, slots=True)
class Signal:
    """Something beyond log-probabilities that a model adapter measures on request.

    ``against`` names the second model of a two-model signal: the divergence of two next-token distributions
    belongs to no single model. A state has a trailing ``hidden`` axis behind ``axes``.
    """

    name: str
    axes: Axes = "example response token"
    against: str | None = None
    options: tuple[tuple[str, float | str], ...] = ()


@dataclass(frozen=True, slots=True)
class TokenLogps:
    """What one model gives the responses: ``logps`` are 0 where ``mask`` is False."""

    logps: Float[Tensor, "example response token"]
    mask: Bool[Tensor, "example response token"]
    signals: Mapping[Signal, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PreferenceBatch:
    """Examples as an objective reads them; also the type of a view (the same examples under another prompt,
    image or response).

    ``models`` maps ``"policy"``, ``"reference"``, ``"previous"``, … to what they gave; who has a gradient is
    the provider's business. ``roles`` names the response axis, ``()`` for unnamed candidates. ``progress`` is
    the share of the optimizer steps done, for schedules.
    """

    models: Mapping[str, TokenLogps]
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    roles: tuple[str, ...] = ("chosen", "rejected")
    views: Mapping[str, PreferenceBatch] = field(default_factory=dict)
    progress: float = 0.0

    @property
    def mask(self) -> Bool[Tensor, "example response token"]:
        return self.models["policy"].mask

    @property
    def lengths(self) -> Float[Tensor, "example response"]:
        """Number of scored tokens of each response."""
        return self.mask.sum(-1).to(self.models["policy"].logps.dtype)
