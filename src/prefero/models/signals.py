"""Signals: what a scoring pass gives besides log-probabilities, measured on next-token distributions.

A signal is measured block by block where the logits are, so that they are never kept. Some need the policy's
distribution p alone (entropy, the mass of the likeliest tokens), others compare it with a second model's, q.
Distributions come as log-probabilities over the vocabulary; results are in nats or without a unit.
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
Options = Mapping[str, float | str]
"""A signal's options, by name."""


# Divergences of p and q: 0 at p = q and positive elsewhere


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
    """Σ |cumulative p − cumulative q|: the exact transport where moving mass by one place in the vocabulary's
    order, which says little of meaning, costs 1."""
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


def divergence(p: LogDistribution, q: LogDistribution, options: Options) -> Rows:
    """The divergence that ``options`` name as their ``measure``, with the other options as its arguments."""
    arguments = {name: value for name, value in options.items() if name not in ("measure", "detached")}
    return DIVERGENCES[str(options["measure"])](p, q, **arguments)


# Nested risk of x = log q/p under q: how far p falls short of q


def released_cvar(p: LogDistribution, q: LogDistribution, confidence: float, split: bool) -> Rows:
    """Σ q x over the vocabulary entries whose x exceeds the (1 − confidence) quantile of x.

    So computes the code of Zhang et al.: the quantile counts every entry once, whatever its probability, and
    interpolates; the entry at it is left out, and nothing is renormalised. ``split`` does the same for the
    two halves of the vocabulary and adds.
    """
    if split:
        half = p.shape[-1] // 2
        return released_cvar(p[..., :half], q[..., :half], confidence, split=False) + released_cvar(
            p[..., half:], q[..., half:], confidence, split=False
        )
    if not p.shape[-1]:
        return p.sum(-1)
    ratio = q - p
    return torch.where(ratio > _quantile(ratio.detach(), 1 - confidence), q.exp() * ratio, 0).sum(-1)


def _quantile(values: Tensor, share: float) -> Float[Tensor, "*rows 1"]:
    """The quantile along the last axis, interpolated; ``torch.quantile`` refuses large vocabularies."""
    place = share * (values.shape[-1] - 1)
    # kthvalue finds two of them faster, but refuses to run deterministically
    ordered = values.sort(-1).values
    low, high = ordered[..., [math.floor(place)]], ordered[..., [math.ceil(place)]]
    return low.lerp(high, place - math.floor(place))


def cvar(p: LogDistribution, q: LogDistribution, tail: float) -> Rows:
    """The mean of x over the worst ``tail`` of q's probability; at 1 it is KL(q ‖ p)."""
    ratio = q - p
    order = ratio.detach().argsort(-1, descending=True)
    mass = q.exp().gather(-1, order)
    before = mass.cumsum(-1) - mass
    kept = torch.minimum(mass, (tail - before).clamp(min=0))
    return (kept * ratio.gather(-1, order)).sum(-1) / tail


def entropic(p: LogDistribution, q: LogDistribution, mu: float) -> Rows:
    """(1/μ) log Σ q e^{μ x}: KL(q ‖ p) as μ → 0, growing with μ; the Rényi divergence of order 2 at μ = 1."""
    return (q + mu * (q - p)).logsumexp(-1) / mu


def nested_risk(p: LogDistribution, q: LogDistribution, options: Options) -> Rows:
    """The risk that ``options`` name as their ``measure``, with the other options as its arguments."""
    if options["measure"] == "cvar":
        return cvar(p, q, float(options["tail"]))
    if options["measure"] == "entropic":
        return entropic(p, q, float(options["mu"]))
    return released_cvar(p, q, float(options["confidence"]), bool(options["split"]))


# Measures of p alone


def entropy(p: LogDistribution) -> Rows:
    """−Σ p log p. Of some entries of a distribution it is their part of its entropy."""
    p = p.clamp(min=torch.finfo(p.dtype).min / 4)  # a token that is ruled out adds nothing, but 0 · −∞ is NaN
    return -(p.exp() * p).sum(-1)


def top_k_mass(p: LogDistribution, k: int) -> Rows:
    """The probability of the k likeliest tokens together; with :func:`top_k_entropy` it is watched for
    over-optimisation (Shi et al., 2024, arXiv 2410.11677)."""
    return p.topk(min(k, p.shape[-1]), -1).values.exp().sum(-1)


def top_k_entropy(p: LogDistribution, k: int) -> Rows:
    """The entropy of the k likeliest tokens, renormalised: how even they are."""
    return entropy(p.topk(min(k, p.shape[-1]), -1).values.log_softmax(-1))


# Signals by name

ONE_MODEL: Mapping[str, Callable[[Tensor], Tensor]] = {
    "entropy": entropy,
    "log_sum_p_squared": lambda p: (2 * p).logsumexp(-1),
    "log_max_p": lambda p: p.amax(-1),
}
TOP: Mapping[str, Callable[[Tensor, int], Tensor]] = {
    "top_k_mass": top_k_mass,
    "top_k_entropy": top_k_entropy,
}
"""Signals of the ``k`` likeliest tokens, an option."""

TOP_K = 5
"""``k`` where a signal gives none."""

TWO_MODELS: Mapping[str, Callable[[Tensor, Tensor, Options], Tensor]] = {
    "forward_kl": lambda p, q, _: kl(q, p),
    "reverse_kl": lambda p, q, _: kl(p, q),
    "nested_risk": nested_risk,
    "divergence": divergence,
}
LOG_Z = "log_z"
"""The one signal that p does not have: the log-sum-exp of the logits."""

ROUTER_LOSS = Signal("router_loss", "example")
"""The loss that balances experts, of the micro-batch that an example was scored in, without the model's
coefficient."""

STATES = ("state", "prompt_state", "token_state", "token_states", "mean_activations", ROUTER_LOSS.name)
"""Signals that are read inside the model, not at its logits."""


def check_signals(signals: Sequence[Signal], others: Mapping[str, object]) -> None:
    """Raise :class:`PreferoError` for unknown signals and those that lack their second model."""
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


# Measuring


@dataclass(frozen=True, slots=True)
class SecondModel:
    """The model that a two-model signal compares with; ``context`` is entered around each of its forwards."""

    model: nn.Module
    context: Callable[[], AbstractContextManager[Any]] = nullcontext


OtherLogits = Callable[[int, int], Float[Tensor, "readout vocabulary"]]
"""The logits of a second model for the readout rows from start to stop."""

ROWS_AT_ONCE = 128
"""Rows of logits that are measured together: the measures make temporary tensors of this size."""


@dataclass(frozen=True, slots=True)
class Meter:
    """Measures token signals on blocks of logits; ``others`` are the second models by name."""

    signals: tuple[Signal, ...] = ()
    others: Mapping[str, OtherLogits] = field(default_factory=dict)

    def __call__(self, start: int, logits: Tensor, normaliser: Tensor) -> list[Tensor]:
        """One tensor per signal for rows of ``logits`` from ``start`` on; ``normaliser`` is their
        log-sum-exp."""
        if not self.signals:
            return []
        others = {
            name: other(start, start + len(logits)).split(ROWS_AT_ONCE) for name, other in self.others.items()
        }
        measured: list[list[Tensor]] = [[] for _ in self.signals]
        blocks = zip(logits.split(ROWS_AT_ONCE), normaliser.split(ROWS_AT_ONCE), strict=True)
        for number, (block, log_z) in enumerate(blocks):
            p = block - log_z[:, None]
            for signal, values in zip(self.signals, measured, strict=True):
                other = others[str(signal.against)][number] if signal.name in TWO_MODELS else None
                values.append(_measured(signal, p, log_z, other))
        return [torch.cat(values) for values in measured]


def _measured(signal: Signal, p: Tensor, log_z: Tensor, other: Tensor | None) -> Tensor:
    """One signal of a block of rows; ``other`` are the second model's logits, where it compares with one."""
    options = dict(signal.options)
    if options.get("detached"):
        p, log_z = p.detach(), log_z.detach()
    if signal.name == LOG_Z:
        return log_z
    if signal.name in ONE_MODEL:
        return ONE_MODEL[signal.name](p)
    if signal.name in TOP:
        return TOP[signal.name](p, int(options.get("k", TOP_K)))
    assert other is not None
    return TWO_MODELS[signal.name](p, other.log_softmax(-1), options)
