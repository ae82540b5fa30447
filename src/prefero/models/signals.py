"""Divergences of next-token distributions: p, the model that is measured, against q, the second one.

Both come as log-probabilities over the vocabulary; the results are in nats, or without a unit. All are 0 at
p = q and positive elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from prefero.errors import PreferoError, nearest
from prefero.objectives.batch import Signal

LogDistribution = Float[Tensor, "*rows vocabulary"]
Rows = Float[Tensor, "*rows"]


def kl(p: LogDistribution, q: LogDistribution) -> Rows:
    """Σ p log(p/q)."""
    return (p.exp() * (p - q)).sum(-1)


def jensen_shannon(p: LogDistribution, q: LogDistribution) -> Rows:
    """½ KL(p ‖ m) + ½ KL(q ‖ m), m = ½ (p + q); at most log 2."""
    middle = torch.logaddexp(p, q) - math.log(2)
    return (kl(p, middle) + kl(q, middle)) / 2


def renyi(p: LogDistribution, q: LogDistribution, order: float) -> Rows:
    """log(Σ p^a q^{1−a}) / (a − 1), which at order a = 1 is KL(p ‖ q)."""
    return kl(p, q) if order == 1 else (order * p + (1 - order) * q).logsumexp(-1) / (order - 1)


def bhattacharyya(p: LogDistribution, q: LogDistribution) -> Rows:
    """−log Σ √(p q)."""
    return -((p + q) / 2).logsumexp(-1)


def squared_hellinger(p: LogDistribution, q: LogDistribution) -> Rows:
    """1 − Σ √(p q); at most 1."""
    return -torch.expm1(-bhattacharyya(p, q))


def hellinger(p: LogDistribution, q: LogDistribution) -> Rows:
    """√(1 − Σ √(p q)); 0 without a gradient where p and q cannot be told apart."""
    squared = squared_hellinger(p, q)
    apart = squared > torch.finfo(squared.dtype).eps
    return torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)


def wasserstein(p: LogDistribution, q: LogDistribution) -> Rows:
    """Σ |cumulative p − cumulative q|: moving mass by one place in the vocabulary's order costs 1.

    The exact transport for that cost, and differentiable; the order of a vocabulary says little of meaning.
    """
    return (p.exp() - q.exp()).cumsum(-1).abs().sum(-1)


def chi_squared(p: LogDistribution, q: LogDistribution) -> Rows:
    """Σ q (p/q − 1)², held where it is still finite in its own type."""
    log_second_moment = (2 * p - q).logsumexp(-1)
    return torch.expm1(log_second_moment.clamp(max=0.9 * math.log(torch.finfo(p.dtype).max)))


DIVERGENCES: Mapping[str, Callable[..., Tensor]] = {
    "kl": kl,
    "jensen_shannon": jensen_shannon,
    "renyi": renyi,
    "bhattacharyya": bhattacharyya,
    "hellinger": hellinger,
    "squared_hellinger": squared_hellinger,
    "wasserstein": wasserstein,
    "chi_squared": chi_squared,
}
"""The measures by name; ``renyi`` takes an ``order``."""


def divergence(p: LogDistribution, q: LogDistribution, options: Mapping[str, float | str]) -> Rows:
    """The measure that ``options`` name, with their other arguments."""
    arguments = {name: value for name, value in options.items() if name not in ("measure", "detached")}
    return DIVERGENCES[str(options["measure"])](p, q, **arguments)


LogProbabilities = Float[Tensor, "*position vocabulary"]


def released_cvar(
    logp: LogProbabilities, other: LogProbabilities, confidence: float, split: bool
) -> Float[Tensor, "*position"]:
    """Σ q x over the vocabulary entries whose x exceeds the (1 − confidence) quantile of x.

    This is what the code of Zhang et al. computes: the quantile counts every entry once, whatever its
    probability, and interpolates; the entry at the quantile is left out, and nothing is renormalised.
    ``split`` does the same for the first half of the vocabulary and for the rest, and adds.
    """
    if split:
        half = logp.shape[-1] // 2
        parts = zip(
            logp.split([half, logp.shape[-1] - half], -1),
            other.split([half, logp.shape[-1] - half], -1),
            strict=True,
        )
        return sum((released_cvar(*part, confidence, split=False) for part in parts), logp.new_zeros(()))
    if not logp.shape[-1]:
        return logp.sum(-1)
    ratio = other - logp
    return torch.where(ratio > _quantile(ratio.detach(), 1 - confidence), other.exp() * ratio, 0).sum(-1)


def _quantile(values: Tensor, share: float) -> Float[Tensor, "*position 1"]:
    """The quantile along the last axis, interpolated; ``torch.quantile`` refuses large vocabularies."""
    place = share * (values.shape[-1] - 1)
    # kthvalue finds two of them faster, but refuses to run deterministically
    ordered = values.sort(-1).values
    low, high = ordered[..., [math.floor(place)]], ordered[..., [math.ceil(place)]]
    return low.lerp(high, place - math.floor(place))


def cvar(logp: LogProbabilities, other: LogProbabilities, tail: float) -> Float[Tensor, "*position"]:
    """The mean of x over the worst ``tail`` of q's probability: where p falls short of q most. At 1 it is
    KL(q ‖ p)."""
    ratio = other - logp
    order = ratio.detach().argsort(-1, descending=True)
    mass = other.exp().gather(-1, order)
    before = mass.cumsum(-1) - mass
    kept = torch.minimum(mass, (tail - before).clamp(min=0))
    return (kept * ratio.gather(-1, order)).sum(-1) / tail


def entropic(logp: LogProbabilities, other: LogProbabilities, mu: float) -> Float[Tensor, "*position"]:
    """(1/μ) log Σ q e^{μ x}: KL(q ‖ p) as μ → 0, growing with μ; the Rényi divergence of order 2 at μ = 1."""
    return (other + mu * (other - logp)).logsumexp(-1) / mu


def nested_risk(
    logp: LogProbabilities, other: LogProbabilities, options: Mapping[str, float | str]
) -> Float[Tensor, "*position"]:
    """The measure that a signal's options name."""
    if options["measure"] == "cvar":
        return cvar(logp, other, float(options["tail"]))
    if options["measure"] == "entropic":
        return entropic(logp, other, float(options["mu"]))
    return released_cvar(logp, other, float(options["confidence"]), bool(options["split"]))


@dataclass(frozen=True, slots=True)
class SecondModel:
    """The model that a two-model signal compares with; ``context`` is entered around each of its forwards:
    ``SecondModel(policy, partial(adapters_off, policy))`` is the policy without its adapters."""

    model: nn.Module
    context: Callable[[], AbstractContextManager[Any]] = nullcontext


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
