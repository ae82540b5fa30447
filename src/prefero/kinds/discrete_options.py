"""What a recipe says of discrete diffusion, and the noise that it thereby names."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from prefero.errors import PreferoError
from prefero.models.discrete_noise import COSINE, LINEAR, Masking, Noise, Uniform

SCHEDULES = {"linear": LINEAR, "cosine": COSINE}


class DiscreteDiffusionOptions(BaseModel):
    """``model.options`` of a recipe.

    ``noise`` is the ``mask`` token (by default the tokenizer's, or the model's own), or any of the first
    ``vocabulary`` tokens (all). ``draws`` times are drawn for each example, and at each a state for every
    response, or with ``noise_per`` example one that its responses share. ``tokens`` says what the tokens of
    a response are to a method: its positions, or the times. ``scale`` is a factor on everything.
    ``predicts`` is next for models made of causal ones, which give a position's logits at the one before it
    (Dream). Without ``ends``, responses have no end token: strings that are all of one length. With a
    ``canvas``, end tokens fill every response up to so many positions, and are scored, as for models that
    were trained on such (LLaDA); without one nothing stands behind a response's end token, and its length is
    given. ``sample_steps`` is how many steps a sample takes, where it is not one for each position.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    noise: Literal["masking", "uniform"] = "masking"
    mask: str | int | None = None
    vocabulary: int | None = Field(default=None, ge=2)
    schedule: Literal["linear", "cosine"] = "linear"
    draws: int = Field(default=1, ge=1)
    noise_per: Literal["response", "example"] = "response"
    tokens: Literal["position", "time"] = "position"
    scale: float = Field(default=1.0, gt=0)
    predicts: Literal["own", "next"] = "own"
    ends: bool = True
    canvas: int | None = Field(default=None, ge=1)
    sample_steps: int = Field(default=128, ge=1)

    @model_validator(mode="after")
    def _fit_together(self) -> DiscreteDiffusionOptions:
        for name, noise in (("mask", "masking"), ("vocabulary", "uniform")):
            if getattr(self, name) is not None and self.noise != noise:
                raise ValueError(f"{name} belongs to noise: {noise}, but noise is {self.noise}")
        if self.canvas is not None and not self.ends:
            raise ValueError("end tokens fill a canvas, but with ends: false there are none")
        return self


def noise_of(options: DiscreteDiffusionOptions, tokenizer: Any, config: Any) -> Noise:
    """The noise that the options name, with what they leave to the tokenizer and the model.

    Raises :class:`PreferoError` for a mask token that there is not.
    """
    size = config.get_text_config().vocab_size
    if options.noise == "uniform":
        return Uniform(size if options.vocabulary is None else options.vocabulary)
    mask = options.mask
    if isinstance(mask, str):
        mask = tokenizer.get_vocab().get(mask, -1)
    if mask is None:
        mask = tokenizer.mask_token_id
    if mask is None:
        mask = getattr(config, "mask_token_id", None)
    if mask is None:
        raise PreferoError(
            "masking noise needs a mask token, and neither the tokenizer nor the model's configuration has "
            "one (mask_token_id): name it with model.options.mask, or take noise: uniform"
        )
    if not 0 <= mask < size:
        raise PreferoError(
            f"model.options.mask is {options.mask!r}, which is none of the {size} tokens that the model has"
        )
    return Masking(mask)
