"""Diffusion and flow models as scorers: minus the denoising error of an image stands for its log-probability.

A response is an image (or a sound, a clip, a latent of one), a token of it a sampled time step. ::

    adapter = DiffusionAdapter.of(scheduler)
    states = adapter.draw(images, generator)
    models = {"policy": adapter.score(policy, states), "reference": adapter.score(reference, states)}
    loss = method("diffusion_dpo").loss(PreferenceBatch(models))

The models are diffusers' denoisers, or anything that is called like them; noise and time steps are drawn
once, for the policy and the reference alike. What a "log-probability" is in units of a paper's β is said by
the adapter's ``weight``, ``scale`` and ``reduce``: the paper of Diffusion-DPO has T ω(λ) times the sum of
squares over the elements, its released code the mean, with T ω(λ) made part of β.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prefero.errors import PreferoError
from prefero.models.denoising import rectified_flow, squared_error
from prefero.objectives.batch import TokenLogps
from prefero.objectives.signals import NOISE_LEVEL

Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]
"""What a model predicts: the noise, √ᾱ ε − √(1 − ᾱ) x, the data x, or the velocity ε − x of a flow."""

Error = Callable[[Tensor, Tensor], Tensor]
"""Of predictions and targets ``[row *element]``: the mean error over the elements, ``[row]``."""

Weight = Callable[[Tensor], Tensor]
"""ω: of log signal-to-noise ratios λ, with the λ of the state's time step, to weights."""

Times = Literal["uniform", "logit_normal"]
"""How time steps are drawn: all alike, or σ(N(0, 1)) along the schedule, the middle more often."""


@dataclass(frozen=True, slots=True)
class Images:
    """Candidates of a condition, padded where examples have fewer than others.

    ``conditions`` are the model's other arguments, by their names, the same for all responses of an example:
    tensors with an example axis in front, or mappings of such. ``mask`` says which responses there are, and
    ``elements`` which elements of them count (frames that are no padding); all, if None.
    """

    values: Float[Tensor, "example response *element"]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    mask: Bool[Tensor, "example response"] | None = None
    elements: Bool[Tensor, "example response *element"] | None = None

    @property
    def present(self) -> Bool[Tensor, "example response"]:
        if self.mask is not None:
            return self.mask
        return torch.ones(self.values.shape[:2], dtype=torch.bool, device=self.values.device)


@dataclass(frozen=True, slots=True)
class NoisyStates:
    """What a denoiser is given and what it should say: drawn once, scored by every model.

    ``index`` is the place of the time step in the process's schedule.
    """

    images: Images
    index: Int[Tensor, "example response token"]
    states: Float[Tensor, "example response token *element"]
    targets: Float[Tensor, "example response token *element"]


@dataclass(frozen=True, slots=True)
class NoiseProcess:
    """A schedule of noise levels: the state at a place of it is ``signal`` x + ``noise`` ε.

    ``times`` is what the model is told there.
    """

    prediction: Prediction
    signal: Float[Tensor, " step"]
    noise: Float[Tensor, " step"]
    times: Tensor

    @classmethod
    def of(cls, scheduler: Any) -> NoiseProcess:
        """The process that a diffusers scheduler was trained with, whatever its inference steps are set to.

        Raises:
            PreferoError: for a scheduler that is neither a diffusion's with ``alphas_cumprod`` nor a flow's.
        """
        if hasattr(scheduler, "scale_noise") and hasattr(scheduler, "sigmas"):
            # sampling replaces a scheduler's sigmas, so they are made anew
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
        """What data and noise are multiplied with at the places of rows, for the rows' elements."""
        return over(self.signal.to(like)[index], like), over(self.noise.to(like)[index], like)

    def noised(
        self,
        data: Float[Tensor, "row *element"],
        noise: Float[Tensor, "row *element"],
        index: Int[Tensor, " row"],
    ) -> tuple[Float[Tensor, "row *element"], Float[Tensor, "row *element"]]:
        """The noisy states, and what is to be predicted of them."""
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
        """The noise that a prediction says is in a state.

        At a place without any noise, as at the end of some flows, data cannot tell it.
        """
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
    """Numbers of rows, to be multiplied with the rows' elements."""
    return values.to(like).view(-1, *[1] * (like.dim() - 1))


def uniform(log_snr: Tensor) -> Tensor:
    """ω = 1, which is what models are trained with in practice."""
    return torch.ones_like(log_snr)


@dataclass(frozen=True, slots=True)
class DiffusionAdapter:
    """Images in, :class:`~prefero.objectives.TokenLogps` out, one token for every time step drawn.

    A token is −``scale`` ω(λ) · the error of the model's own prediction (of noise, velocity, data), as a mean
    over the elements or as a sum of that size. ``error`` is a mean over elements; squares by default.
    """

    process: NoiseProcess
    weight: Weight = uniform
    scale: float = 1.0
    reduce: Literal["mean", "sum"] = "mean"
    error: Error = squared_error

    @classmethod
    def of(cls, scheduler: Any, **options: Any) -> DiffusionAdapter:
        """For models trained with a diffusers scheduler; ``options`` are the adapter's own."""
        return cls(NoiseProcess.of(scheduler), **options)

    def draw(
        self,
        images: Images,
        generator: torch.Generator,
        *,
        tokens: int = 1,
        times: Times | None = None,
        noise_per: Literal["example", "response"] = "example",
    ) -> NoisyStates:
        """Forward noise: ``tokens`` time steps an example, the same for all its responses.

        The noise is one for all responses of an example too (Diffusion-DPO), or every response's own
        (``"response"``; RankDPO). Time steps are drawn uniformly for diffusions, logit-normally for flows.
        """
        values, device = images.values, images.values.device
        examples, responses = values.shape[:2]
        index = self.places(examples, tokens, generator, times)[:, None].expand(-1, responses, -1).to(device)
        sources = responses if noise_per == "response" else 1
        shape = (examples, sources, tokens, *values.shape[2:])
        noise = torch.randn(shape, generator=generator, dtype=values.dtype, device=generator.device)
        return self.noisy(images, index, noise.to(device).expand(-1, responses, *shape[2:]))

    def places(
        self, examples: int, tokens: int, generator: torch.Generator, times: Times | None = None
    ) -> Int[Tensor, "example token"]:
        """Places of the schedule, drawn."""
        chosen = times or ("logit_normal" if self.process.prediction == "flow" else "uniform")
        draw = torch.randn if chosen == "logit_normal" else torch.rand
        share = draw(examples, tokens, generator=generator, device=generator.device)
        share = share.sigmoid() if chosen == "logit_normal" else share
        return (share * len(self.process)).long().clamp(max=len(self.process) - 1)

    def noisy(
        self,
        images: Images,
        index: Int[Tensor, "example response token"],
        noise: Float[Tensor, "example response token *element"],
    ) -> NoisyStates:
        """The states with a given noise at given places of the schedule."""
        data = images.values[:, :, None].expand_as(noise)
        states, targets = self.process.noised(data.flatten(0, 2), noise.flatten(0, 2), index.flatten())
        return NoisyStates(images, index, states.view_as(noise), targets.view_as(noise))

    def score(self, model: Callable[..., Any], states: NoisyStates) -> TokenLogps:
        """What a denoiser gives the images, in one call of it; gradients follow the caller's grad mode.

        Raises:
            PreferoError: what it predicts has not the shape of the images.
        """
        rows = states.images.present[:, :, None].expand(states.index.shape)
        targets, index = states.targets[rows], states.index[rows]
        conditions = rows_of(states.images.conditions, rows.nonzero()[:, 0])
        predicted = denoise(
            model, states.states[rows], self.process.times.to(index.device)[index], conditions
        )
        values = torch.zeros(rows.shape, dtype=targets.dtype, device=targets.device)
        strength = self.scale * self.weight(self.process.log_snr(index)).to(targets)
        values = values.masked_scatter(rows, -strength * self.errors(predicted, targets, states.images, rows))
        level = self.process.noise_level(states.index).to(targets)
        return TokenLogps(values, rows, {NOISE_LEVEL: torch.where(rows, level, 0)})

    def errors(
        self,
        predicted: Float[Tensor, "row *element"],
        targets: Float[Tensor, "row *element"],
        images: Images,
        rows: Bool[Tensor, "example response token"],
    ) -> Float[Tensor, " row"]:
        """The error of every row, over the elements that count."""
        size = targets[0].numel()
        if images.elements is None:
            return self.error(predicted, targets) * (size if self.reduce == "sum" else 1)
        counted = images.elements[:, :, None].expand(*rows.shape, *targets.shape[1:])[rows]
        total = size * self.error(*(torch.where(counted, part, 0) for part in (predicted, targets)))
        return total if self.reduce == "sum" else total / counted.flatten(1).sum(1).clamp(min=1)


def denoise(
    model: Callable[..., Any],
    given: Float[Tensor, "row *element"],
    times: Tensor,
    conditions: Mapping[str, Any],
) -> Float[Tensor, "row *element"]:
    """What a denoiser says of rows, in one call, in their own precision.

    Raises:
        PreferoError: it has not the shape of what the model was given.
    """
    output = model(given, timestep=times, **conditions)
    predicted = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
    if predicted.dim() == given.dim() and predicted.shape[1] == 2 * given.shape[1]:
        # the other half is a learned variance, which is no part of the error
        predicted = predicted.chunk(2, dim=1)[0]
    if predicted.shape != given.shape:
        raise PreferoError(
            f"{type(model).__name__} predicts {tuple(predicted.shape[1:])} for an image of "
            f"{tuple(given.shape[1:])}; a denoiser gives back the shape that it gets"
        )
    return predicted.to(given.dtype)


def rows_of(conditions: Any, examples: Int[Tensor, " row"]) -> Any:
    """Conditions of examples as conditions of rows."""
    if isinstance(conditions, Mapping):
        return {name: rows_of(values, examples) for name, values in conditions.items()}
    return conditions[examples] if isinstance(conditions, Tensor) else conditions
