"""The signals that objectives and monitors ask model adapters for, by name.

``p`` is the model's next-token distribution at the position that predicts a response token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from prefero.objectives.batch import Signal

ENTROPY = Signal("entropy")
"""−Σ p log p, in nats."""

LOG_SUM_P_SQUARED = Signal("log_sum_p_squared")
"""log Σ p²: what a token sampled from the model scores on average."""

LOG_MAX_P = Signal("log_max_p")
"""log max p: what the greedy token scores."""

LOG_Z = Signal("log_z")
"""log Σ exp(logits): what normalises p, and what p does not show."""

STATE = Signal("state", axes="example response")
"""Last hidden state of the final response token; a trailing ``hidden`` axis."""

PROMPT_STATE = Signal("prompt_state", axes="example response")
"""Last hidden state of the final context token; a trailing ``hidden`` axis."""

TOKEN_STATE = Signal("token_state")
"""Last hidden state of the position that predicts a response token: what the model knows before it. A
trailing ``hidden`` axis."""

TOKEN_STATES = Signal("token_states")
"""The states after every layer at the position that predicts a response token; trailing ``layer hidden``
axes."""


def forward_kl(against: str = "reference") -> Signal:
    """KL(``against`` ‖ model) over the full vocabulary, in nats per token."""
    return Signal("forward_kl", against=against)


def reverse_kl(against: str = "reference") -> Signal:
    """KL(model ‖ ``against``) over the full vocabulary, in nats per token."""
    return Signal("reverse_kl", against=against)


def divergence(measure: str, against: str = "reference", **options: float) -> Signal:
    """A divergence D(model ‖ ``against``) over the full vocabulary, per token, by its name in
    :mod:`prefero.models.signals`; ``options`` are its arguments."""
    return Signal("divergence", against=against, options=(("measure", measure), *sorted(options.items())))


def mean_activations(part: Literal["mlp", "attention", "residual"]) -> Signal:
    """The mean over the hidden dimension of what each layer's feed-forward (``mlp``), ``attention``, or the
    layer itself (``residual``) gives at the position that predicts a response token, without a gradient; a
    trailing ``layer`` axis."""
    return Signal("mean_activations", options=(("part", part),))


def nested_risk(
    measure: Literal["released_cvar", "cvar", "entropic"], against: str = "reference", **options: float
) -> Signal:
    """A risk measure of log ``against`` − log model under ``against``, over the full vocabulary, in nats per
    token; ``options`` are those of the measure (:mod:`prefero.models.signals`)."""
    return Signal("nested_risk", against=against, options=(("measure", measure), *sorted(options.items())))


def top_k_mass(k: int = 5) -> Signal:
    """Probability of the ``k`` likeliest tokens together."""
    return Signal("top_k_mass", options=(("k", k),))


def top_k_entropy(k: int = 5) -> Signal:
    """Entropy of the ``k`` likeliest tokens, renormalised, in nats."""
    return Signal("top_k_entropy", options=(("k", k),))


NOISE_LEVEL = Signal("noise_level")
"""Of a denoiser: the variance of the noise in the state that a token stands for, 1 − ᾱ or σ²; 0 to 1."""


def prediction_distance(against: str = "reference") -> Signal:
    """Of a denoiser: the mean squared difference of its prediction from that of ``against``, per token."""
    return Signal("prediction_distance", against=against)


DENOISERS = (NOISE_LEVEL.name, prediction_distance().name)
"""The names of the signals that only denoisers give."""

States = Literal["forward noise", "flow", "inversion", "trajectory", "consistency", "corrupted tokens"]
"""The states of a response in which a denoiser is asked."""

STATES: Mapping[States, str] = {
    "forward noise": "states of drawn noise (forward noise)",
    "flow": "the states and velocities of a rectified flow (flow)",
    "inversion": "states that the policy's sampler reaches from the data, turned around (inversion)",
    "trajectory": "states that a sampler stored on its way (trajectory)",
    "consistency": "two neighbouring states between which a consistency model jumps (consistency)",
    "corrupted tokens": "texts with tokens that a discrete diffusion corrupted (corrupted tokens)",
}
