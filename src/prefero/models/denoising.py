"""Errors of denoisers, whose negatives stand for log-probabilities, and the noisy states they belong to.

A sampled time step, or a masked patch, of an image or a sound is one token of a response.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def squared_error(
    prediction: Float[Tensor, "example *element"], target: Float[Tensor, "example *element"]
) -> Float[Tensor, " example"]:
    """The mean squared error over all elements."""
    return (prediction - target).square().flatten(1).mean(1)


def pseudo_huber(
    prediction: Float[Tensor, "example *element"], target: Float[Tensor, "example *element"], c: float = 1e-3
) -> Float[Tensor, " example"]:
    """The mean of √(d² + c²) − c over all elements: the absolute error as c → 0.

    What consistency models are trained by (Song and Dhariwal, 2023, arXiv 2310.14189).
    """
    difference = prediction - target
    # (√(d² + c²) − c) loses its digits where d is far below c
    huber = difference.square() / ((difference.square() + c * c).sqrt() + c)
    return huber.flatten(1).mean(1)


def rectified_flow(
    data: Float[Tensor, "example *element"],
    noise: Float[Tensor, "example *element"],
    sigma: Float[Tensor, " example"],
) -> tuple[Float[Tensor, "example *element"], Float[Tensor, "example *element"]]:
    """The state (1 − σ) x + σ ε, where σ = 1 is noise alone, and the velocity ε − x that is to be predicted.

    The velocity contains the data, so the two sides of a pair have different targets even for one noise.
    """
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
    posterior's variance β (1 − ᾱ_{t−1}) / (1 − ᾱ_t).

    ``beta`` and ``alpha_bar`` belong to the state's time step, ``noise`` is added.
    """
    beta, alpha_bar = (values.view(-1, *[1] * (state.dim() - 1)) for values in (beta, alpha_bar))
    previous = alpha_bar / (1 - beta)
    mean = (state - beta / (1 - alpha_bar).sqrt() * predicted) / (1 - beta).sqrt()
    return mean + (beta * (1 - previous) / (1 - alpha_bar)).sqrt() * noise
