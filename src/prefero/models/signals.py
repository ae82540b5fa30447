"""What a language model can measure beside log-probabilities, read off the same logits in the same pass.

Per response token, from the next-token distribution p that scores it: ``entropy``, ``log_max_p``,
``log_sum_p_squared``, ``top_k_mass`` (probability of the k likeliest tokens) and ``top_k_entropy`` (entropy
of these, renormalised), in nats; ``log_z`` is the logarithm of what normalises p. With a second model's
distribution q: ``forward_kl`` is KL(q‖p), ``reverse_kl`` is KL(p‖q), ``nested_risk`` a risk measure of
log q − log p under q (:mod:`prefero.models.risk`), ``divergence`` one of :mod:`prefero.models.divergences`
from p to q. Per response: ``state`` is the last hidden state at its final token, ``prompt_state`` the one at
the final token of its context. Per response token, at the position that predicts it: ``token_state`` is the
last hidden state, ``token_states`` those after every layer, ``mean_activations`` the mean over the hidden
dimension of what a ``part`` of every layer gives (``"mlp"``, ``"attention"``, ``"residual"``: the whole
layer), without a gradient.

Options: ``("k", 5)`` for the top-k signals; ``("detached", 1)`` where no gradient is wanted, which costs one
pass over logits that exist anyway (monitors ask for this) instead of a recomputed chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from prefero.errors import PreferoError, nearest
from prefero.models.divergences import divergence, kl
from prefero.models.risk import nested_risk
from prefero.objectives.batch import Signal

TOP_K = 5
ROWS_AT_ONCE = 128

OtherLogits = Callable[[int, int], Float[Tensor, "readout vocabulary"]]
"""The logits of a second model for the readout rows from start to stop."""

Measure = Callable[[Float[Tensor, "readout vocabulary"]], Float[Tensor, "readout"]]


def _entropy(logp: Tensor) -> Tensor:
    return -(logp.exp() * logp).sum(-1)


def _log_sum_p_squared(logp: Tensor) -> Tensor:
    return (2 * logp).logsumexp(-1)


def _log_max_p(logp: Tensor) -> Tensor:
    return logp.amax(-1)


def _forward_kl(logp: Tensor, other: Tensor, options: Mapping[str, float | str]) -> Tensor:
    return kl(other, logp)


def _reverse_kl(logp: Tensor, other: Tensor, options: Mapping[str, float | str]) -> Tensor:
    return kl(logp, other)


def _top_k_mass(logp: Tensor, k: int) -> Tensor:
    return logp.topk(min(k, logp.shape[-1]), -1).values.exp().sum(-1)


def _top_k_entropy(logp: Tensor, k: int) -> Tensor:
    return _entropy(logp.topk(min(k, logp.shape[-1]), -1).values.log_softmax(-1))


ONE_MODEL: Mapping[str, Measure] = {
    "entropy": _entropy,
    "log_sum_p_squared": _log_sum_p_squared,
    "log_max_p": _log_max_p,
}
TOP: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "top_k_mass": _top_k_mass,
    "top_k_entropy": _top_k_entropy,
}
TWO_MODELS: Mapping[str, Callable[[Tensor, Tensor, Mapping[str, float | str]], Tensor]] = {
    "forward_kl": _forward_kl,
    "reverse_kl": _reverse_kl,
    "nested_risk": nested_risk,
    "divergence": divergence,
}
LOG_Z = "log_z"
"""The one signal that p does not have: the logits' log-sum-exp."""

STATES = ("state", "prompt_state", "token_state", "token_states", "mean_activations")
"""Signals that are read off inside the model, not off its logits."""


def check_signals(signals: Sequence[Signal], others: Mapping[str, object]) -> None:
    """Raise :class:`PreferoError` for signals that no language model gives, or lack their second model."""
    known = (LOG_Z, *ONE_MODEL, *TOP, *TWO_MODELS, *STATES)
    for signal in signals:
        if signal.name not in known:
            raise PreferoError(
                f"a language model has no signal {signal.name!r}{nearest(signal.name, known)}; "
                f"there are {', '.join(known)}"
            )
        if signal.name in TWO_MODELS and signal.against not in others:
            raise PreferoError(
                f"the signal {signal.name!r} compares with the model {signal.against!r}, which is not among "
                f"the models given: {', '.join(others) or 'none'}"
            )


@dataclass(frozen=True, slots=True)
class Meter:
    """Measures token signals on blocks of logits."""

    signals: tuple[Signal, ...] = ()
    others: Mapping[str, OtherLogits] = field(default_factory=dict)

    @property
    def differentiable(self) -> bool:
        return any(not _detached(signal) for signal in self.signals)

    def __call__(self, start: int, logits: Tensor, normaliser: Tensor) -> list[Tensor]:
        """One tensor a signal, for the rows of ``logits``, which stand from ``start`` on in the readout."""
        if not self.signals:
            return []
        others = {
            name: other(start, start + len(logits)).split(ROWS_AT_ONCE) for name, other in self.others.items()
        }
        blocks = [
            self._measure(block - scale[:, None], scale, {name: parts[n] for name, parts in others.items()})
            for n, (block, scale) in enumerate(
                zip(logits.split(ROWS_AT_ONCE), normaliser.split(ROWS_AT_ONCE), strict=True)
            )
        ]
        return [torch.cat(parts) for parts in zip(*blocks, strict=True)]

    def _measure(self, logp: Tensor, log_z: Tensor, others: Mapping[str, Tensor]) -> list[Tensor]:
        measured = []
        for signal in self.signals:
            block = logp.detach() if _detached(signal) else logp
            if signal.name == LOG_Z:
                measured.append(log_z.detach() if _detached(signal) else log_z)
            elif signal.name in ONE_MODEL:
                measured.append(ONE_MODEL[signal.name](block))
            elif signal.name in TOP:
                measured.append(TOP[signal.name](block, int(dict(signal.options).get("k", TOP_K))))
            else:
                other = others[str(signal.against)].log_softmax(-1)
                measured.append(TWO_MODELS[signal.name](block, other, dict(signal.options)))
        return measured


def _detached(signal: Signal) -> bool:
    return bool(dict(signal.options).get("detached", 0))
