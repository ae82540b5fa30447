"""The signals that objectives and monitors ask model adapters for, by name.

``p`` is the model's next-token distribution at the position that predicts a response token.
"""

from __future__ import annotations

from prefero.objectives.batch import Signal

ENTROPY = Signal("entropy")
"""−Σ p log p, in nats."""

LOG_SUM_P_SQUARED = Signal("log_sum_p_squared")
"""log Σ p²: what a token sampled from the model scores on average."""

LOG_MAX_P = Signal("log_max_p")
"""log max p: what the greedy token scores."""

STATE = Signal("state", axes="example response")
"""Last hidden state of the final response token; a trailing ``hidden`` axis."""

PROMPT_STATE = Signal("prompt_state", axes="example response")
"""Last hidden state of the final context token; a trailing ``hidden`` axis."""


def forward_kl(against: str = "reference") -> Signal:
    """KL(``against`` ‖ model) over the full vocabulary, in nats per token."""
    return Signal("forward_kl", against=against)


def reverse_kl(against: str = "reference") -> Signal:
    """KL(model ‖ ``against``) over the full vocabulary, in nats per token."""
    return Signal("reverse_kl", against=against)


def top_k_mass(k: int = 5) -> Signal:
    """Probability of the ``k`` likeliest tokens together."""
    return Signal("top_k_mass", options=(("k", k),))


def top_k_entropy(k: int = 5) -> Signal:
    """Entropy of the ``k`` likeliest tokens, renormalised, in nats."""
    return Signal("top_k_entropy", options=(("k", k),))
