"""What a recipe may say of a diffusion model."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from prefero.models.diffusion import Times, Weight, uniform


class DiffusionOptions(BaseModel):
    """``model.options`` of a recipe.

    ``scale``, ``reduce``, ``weight`` and ``error`` say what stands for a log-probability: minus ``scale``
    ω(λ) times the error, a mean or a sum over elements. The methods made for denoisers have β for the plain
    mean (their default); others want a ``scale`` of some thousands. ``draws`` time steps are drawn for each
    image, with ``noise_per`` example or image. ``pipeline`` is where the autoencoder and the text encoders
    are, if not with the model; ``latents`` are the autoencoder's mean or a seeded sample. ``guidance`` is
    what a distilled model is told, ``sample_steps`` how many steps the report's images take.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    draws: int = Field(default=1, ge=1)
    noise_per: Literal["example", "response"] = "example"
    times: Times | None = None
    scale: float = Field(default=1.0, gt=0)
    reduce: Literal["mean", "sum"] = "mean"
    weight: Literal["uniform", "snr", "min_snr"] = "uniform"
    min_snr_gamma: float = Field(default=5.0, gt=0)
    error: Literal["squared", "pseudo_huber"] = "squared"
    scheduler: str | dict[str, Any] | None = None
    pipeline: str | None = None
    variant: str | None = None
    resolution: int | None = Field(default=None, ge=1)
    latents: Literal["mean", "sample"] = "mean"
    guidance: float = Field(default=3.5, ge=0)
    sample_steps: int = Field(default=20, ge=1)

    def omega(self) -> Weight:
        """ω of log signal-to-noise ratios; min(snr, γ)/snr is Hang et al.'s (2023, arXiv 2303.09556)."""
        match self.weight:
            case "uniform":
                return uniform
            case "snr":
                return Tensor.exp
            case "min_snr":
                return lambda log_snr: (self.min_snr_gamma * (-log_snr).exp()).clamp(max=1)
