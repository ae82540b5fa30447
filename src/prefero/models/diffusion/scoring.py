"""Errors of denoisers on noisy states, whose negatives stand for log-probabilities. A sampled time step, or a
masked patch, of an image or a sound is one token of a response."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prefero.data.packing import OnDevice
from prefero.errors import PreferoError
from prefero.models.diffusion.process import NoiseProcess, squared_error
from prefero.objectives.batch import TokenLogps
from prefero.objectives.signals import NOISE_LEVEL, prediction_distance

Denoiser = Callable[..., Any]
"""Gives a prediction for noisy states, ``timestep`` and conditions, as diffusers' models do."""

Error = Callable[[Tensor, Tensor], Tensor]
"""Maps predictions and targets ``[row *element]`` to the mean error over the elements, ``[row]``."""

Weight = Callable[[Tensor], Tensor]
"""ω: maps log signal-to-noise ratios λ of time steps to weights."""

Times = Literal["uniform", "logit_normal"]
"""The distribution of time steps: uniform, or σ(N(0, 1)) along the schedule, the middle more often."""


@dataclass(frozen=True, slots=True)
class Images(OnDevice):
    """Candidates of a condition, padded where examples have fewer than others.

    ``conditions`` are the model's other arguments, by name, the same for all responses of an example: tensors
    with an example axis in front, or mappings of such. ``mask`` says which responses there are, and
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
class NoisyStates(OnDevice):
    """Inputs and targets of a denoiser: drawn once, scored by every model. ``index`` is the place of the time
    step in the process's schedule."""

    images: Images
    index: Int[Tensor, "example response token"]
    states: Float[Tensor, "example response token *element"]
    targets: Float[Tensor, "example response token *element"]


def uniform(log_snr: Tensor) -> Tensor:
    """ω = 1, the weight of training in practice."""
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
        """Forward noise: ``tokens`` time steps an example, the same for all its responses, drawn uniformly
        for diffusions, logit-normally for flows. The noise is one for all responses of an example too
        (Diffusion-DPO), or every response's own (``"response"``; RankDPO)."""
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
        """Places of the schedule, drawn at random."""
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

    def score(
        self,
        model: Denoiser,
        states: NoisyStates,
        others: Mapping[str, Denoiser] = MappingProxyType({}),
    ) -> TokenLogps:
        """Score the images in one call of a denoiser; gradients follow the caller's grad mode.

        Its signals are the noise level, and the distance of its predictions from those of every one of the
        ``others``, which have no gradient. Raises :class:`PreferoError` for predictions of another shape than
        the images.
        """
        rows = states.images.present[:, :, None].expand(states.index.shape)
        given, targets, index = states.states[rows], states.targets[rows], states.index[rows]
        conditions = rows_of(states.images.conditions, rows.nonzero()[:, 0])
        times = self.process.times.to(index.device)[index]
        predicted = denoise(model, given, times, conditions)
        strength = self.scale * self.weight(self.process.log_snr(index)).to(targets)
        logps = -strength * self.errors(predicted, targets, states.images, rows)
        signals = {NOISE_LEVEL: self.process.noise_level(index).to(targets)}
        for name, other in others.items():
            with torch.no_grad():
                second = denoise(other, given, times, conditions)
            signals[prediction_distance(name)] = self.errors(
                predicted, second, states.images, rows, squared_error
            )
        empty = torch.zeros(rows.shape, dtype=targets.dtype, device=targets.device)
        return TokenLogps(
            empty.masked_scatter(rows, logps),
            rows,
            {signal: empty.masked_scatter(rows, values) for signal, values in signals.items()},
        )

    def errors(
        self,
        predicted: Float[Tensor, "row *element"],
        targets: Float[Tensor, "row *element"],
        images: Images,
        rows: Bool[Tensor, "example response token"],
        error: Error | None = None,
    ) -> Float[Tensor, " row"]:
        """The error of every row over the elements that count, by ``error`` or the adapter's own."""
        measure, size = error or self.error, targets[0].numel()
        if images.elements is None:
            return measure(predicted, targets) * (size if self.reduce == "sum" else 1)
        counted = images.elements[:, :, None].expand(*rows.shape, *targets.shape[1:])[rows]
        total = size * measure(*(torch.where(counted, part, 0) for part in (predicted, targets)))
        return total if self.reduce == "sum" else total / counted.flatten(1).sum(1).clamp(min=1)


def denoise(
    model: Denoiser,
    given: Float[Tensor, "row *element"],
    times: Tensor,
    conditions: Mapping[str, Any],
) -> Float[Tensor, "row *element"]:
    """The predictions of a denoiser for rows, in one call, in their own precision. Raises
    :class:`PreferoError` for another shape than the model was given."""
    output: Any = model(given, timestep=times, **conditions)
    predicted: Tensor = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
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
    return mapped(conditions, lambda values: values[examples])


def mapped(conditions: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Conditions with every tensor in them changed; everything else stays."""
    if isinstance(conditions, Mapping):
        return {name: mapped(values, change) for name, values in conditions.items()}
    return change(conditions) if isinstance(conditions, Tensor) else conditions


@dataclass(frozen=True, slots=True)
class NoisyRow(OnDevice):
    """Noisy states of some examples, by view; its length is how many there are."""

    views: Mapping[str, NoisyStates]

    def __len__(self) -> int:
        return sum(int(states.images.present.sum()) * states.index.shape[2] for states in self.views.values())

    @property
    def whole(self) -> NoisyStates:
        """All views as examples of one, for a single call of a model."""
        first, *more = self.views.values()
        return joined([first, *more]) if more else first

    def parted(self, scored: TokenLogps) -> dict[str, TokenLogps]:
        """The numbers of the whole, by view."""
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
