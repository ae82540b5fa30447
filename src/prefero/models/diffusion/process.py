"""The noise that diffusion and flow models are trained with, as diffusers' schedulers describe it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from prefero.errors import PreferoError

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]
"""The prediction of a model: the noise, √ᾱ ε − √(1 − ᾱ) x, the data x, or the velocity ε − x of a flow."""


@dataclass(frozen=True, slots=True)
class NoiseProcess:
    """A schedule of noise levels: the state at a place of it is ``signal`` x + ``noise`` ε, and ``times`` is
    the model's argument there."""

    prediction: Prediction
    signal: Float[Tensor, " step"]
    noise: Float[Tensor, " step"]
    times: Tensor

    @classmethod
    def of(cls, scheduler: Any) -> NoiseProcess:
        """The process that a diffusers scheduler was trained with, whatever its inference steps are set to.
        Raises :class:`PreferoError` for one that is neither a diffusion's with ``alphas_cumprod`` nor a
        flow's."""
        if hasattr(scheduler, "scale_noise") and hasattr(scheduler, "sigmas"):
            # sampling replaces a scheduler's sigmas, so they are made again
            fresh = type(scheduler).from_config(scheduler.config)
            return cls("flow", 1 - fresh.sigmas, fresh.sigmas, fresh.timesteps)
        name = type(scheduler).__name__
        if not hasattr(scheduler, "alphas_cumprod"):
            raise PreferoError(
                f"{name} has no `alphas_cumprod` and is no flow-matching scheduler; give the scheduler that "
                "the model was trained with, such as DDPMScheduler or FlowMatchEulerDiscreteScheduler"
            )
        prediction = scheduler.config.get("prediction_type", "epsilon")
        if prediction not in get_args(Prediction):
            raise PreferoError(f"{name} predicts {prediction!r}; known are {', '.join(get_args(Prediction))}")
        signal = scheduler.alphas_cumprod.double()
        return cls(prediction, signal.sqrt(), (1 - signal).sqrt(), torch.arange(len(signal)))

    def __len__(self) -> int:
        return len(self.times)

    def alpha_bar(self, index: Int[Tensor, "*row"]) -> Float[Tensor, "*row"]:
        """ᾱ of a diffusion's places."""
        return self.signal.to(index.device)[index].square()

    def noise_level(self, index: Int[Tensor, "*row"]) -> Float[Tensor, "*row"]:
        """The noise's variance: 1 − ᾱ, or σ²."""
        return self.noise.to(index.device)[index].square()

    def log_snr(self, index: Int[Tensor, "*row"]) -> Float[Tensor, "*row"]:
        """λ = log of the signal's variance over the noise's."""
        return 2 * (self.signal.log() - self.noise.log()).to(index.device)[index]

    def levels(self, index: Int[Tensor, " row"], like: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of data and noise at the places of rows, for the rows' elements."""
        return over(self.signal.to(like)[index], like), over(self.noise.to(like)[index], like)

    def noised(
        self,
        data: Float[Tensor, "row *element"],
        noise: Float[Tensor, "row *element"],
        index: Int[Tensor, " row"],
    ) -> tuple[Float[Tensor, "row *element"], Float[Tensor, "row *element"]]:
        """The noisy states, and the targets of predictions."""
        if self.prediction == "flow":
            return rectified_flow(data, noise, self.noise.to(data)[index])
        signal, level = self.levels(index, data)
        targets = {"epsilon": noise, "sample": data, "v_prediction": signal * noise - level * data}
        return signal * data + level * noise, targets[self.prediction]

    def noise_of(
        self,
        predicted: Float[Tensor, "row *element"],
        states: Float[Tensor, "row *element"],
        index: Int[Tensor, " row"],
    ) -> Float[Tensor, "row *element"]:
        """The noise in a state by a prediction; a prediction of data does not tell where there is no
        noise."""
        signal, level = self.levels(index, states)
        match self.prediction:
            case "epsilon":
                return predicted
            case "sample":
                return (states - signal * predicted) / level
            case "v_prediction":
                return signal * predicted + level * states
            case "flow":
                return signal * predicted + states


def over(values: Float[Tensor, " row"], like: Tensor) -> Tensor:
    """Numbers of rows, shaped to be multiplied with the rows' elements."""
    return values.to(like).view(-1, *[1] * (like.dim() - 1))


@torch.no_grad()
def latents(
    autoencoder: Any,
    pixels: Float[Tensor, "example response *element"],
    generator: torch.Generator | None = None,
) -> Float[Tensor, "example response *latent"]:
    """Pixels in [−1, 1] through a diffusers autoencoder, shifted and scaled as its denoiser expects: each
    image's most likely latent, or with a generator one that is drawn."""
    posterior = autoencoder.encode(pixels.flatten(0, 1)).latent_dist
    found = posterior.mode() if generator is None else posterior.sample(generator)
    shift = getattr(autoencoder.config, "shift_factor", None) or 0.0
    scaled = (found - shift) * autoencoder.config.scaling_factor
    return scaled.view(*pixels.shape[:2], *found.shape[1:])


@torch.no_grad()
def pixels(autoencoder: Any, found: Float[Tensor, "image *latent"]) -> Float[Tensor, "image *element"]:
    """Latents in the units of the denoiser back as pixels in [−1, 1]."""
    shift = getattr(autoencoder.config, "shift_factor", None) or 0.0
    own = next(autoencoder.parameters())
    return autoencoder.decode((found / autoencoder.config.scaling_factor + shift).to(own)).sample


def shrinks(autoencoder: Any) -> int:
    """The number of pixels that one latent stands for, along a side."""
    return 2 ** (len(autoencoder.config.block_out_channels) - 1)


def squared_error(
    prediction: Float[Tensor, "example *element"], target: Float[Tensor, "example *element"]
) -> Float[Tensor, " example"]:
    """The mean squared error over all elements."""
    return (prediction - target).square().flatten(1).mean(1)


def pseudo_huber(
    prediction: Float[Tensor, "example *element"], target: Float[Tensor, "example *element"], c: float = 1e-3
) -> Float[Tensor, " example"]:
    """The mean of √(d² + c²) − c over all elements: the absolute error as c → 0. Consistency models are
    trained by it (Song and Dhariwal, 2023, arXiv 2310.14189)."""
    difference = prediction - target
    # (√(d² + c²) − c) loses its digits where d is far below c
    huber = difference.square() / ((difference.square() + c * c).sqrt() + c)
    return huber.flatten(1).mean(1)


def rectified_flow(
    data: Float[Tensor, "example *element"],
    noise: Float[Tensor, "example *element"],
    sigma: Float[Tensor, " example"],
) -> tuple[Float[Tensor, "example *element"], Float[Tensor, "example *element"]]:
    """The state (1 − σ) x + σ ε, where σ = 1 is noise alone, and its velocity ε − x, the target. It contains
    the data, so the two sides of a pair have different targets even for one noise."""
    level = sigma.view(-1, *[1] * (data.dim() - 1))
    return (1 - level) * data + level * noise, noise - data


def denoising_step(
    state: Float[Tensor, "example *element"],
    predicted: Float[Tensor, "example *element"],
    beta: Float[Tensor, " example"],
    alpha_bar: Float[Tensor, " example"],
    noise: Float[Tensor, "example *element"],
) -> Float[Tensor, "example *element"]:
    """One reverse step of a denoising diffusion (Ho et al., 2020, arXiv 2006.11239, algorithm 2), with the
    posterior's variance β (1 − ᾱ_{t−1}) / (1 − ᾱ_t). ``beta`` and ``alpha_bar`` are those of the state's time
    step, ``noise`` is added."""
    beta, alpha_bar = (values.view(-1, *[1] * (state.dim() - 1)) for values in (beta, alpha_bar))
    previous = alpha_bar / (1 - beta)
    mean = (state - beta / (1 - alpha_bar).sqrt() * predicted) / (1 - beta).sqrt()
    return mean + (beta * (1 - previous) / (1 - alpha_bar)).sqrt() * noise
