"""The language-model head: log-probabilities of the targets, without keeping the logits.

The head runs only on rows that are read, chunk by chunk. A plain linear head has its own forward and
backward, which need at most one buffer of rows × vocabulary; every other head is called as the module that it
is, recomputed in backward where its logits would not fit.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from prefero.models.signals import Meter

KEPT_BYTES = 512 * 2**20
"""Largest probability buffer that is kept from forward to backward."""

CHUNK_BYTES = 128 * 2**20
"""Largest block of float32 logits that is made at once where nothing is kept …"""

FEWEST_ROWS = 256
"""… unless it would have fewer rows than this: every chunk reads the whole weight."""


@dataclass(frozen=True, slots=True)
class LogitRule:
    """A family's logits of ``head(hidden)``: times a factor, then a soft-cap ``c · tanh(z / c)``."""

    factor: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, config: Any) -> LogitRule:
        """The rule in a text configuration, where families name the same thing differently."""
        factor = 1.0
        for name in ("logit_scale", "lm_head_multiplier", "output_multiplier"):
            factor *= getattr(config, name, None) or 1.0
        if scaling := getattr(config, "logits_scaling", None):
            factor = factor * scaling if config.model_type.startswith("hyperclovax") else factor / scaling
        if getattr(config, "scale_decoder_outputs", config.model_type == "umt5"):
            factor /= config.d_model**0.5
        return cls(factor, getattr(config, "final_logit_softcapping", None))

    def __call__(self, logits: Tensor) -> Tensor:
        if self.factor != 1.0:
            logits = logits * self.factor
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits


class BiasedHead(nn.Module):
    """A head with a bias that its family keeps as a weight of its own, as BART does."""

    def __init__(self, head: nn.Module, bias: Float[Tensor, "1 vocabulary"]) -> None:
        super().__init__()
        self.head, self.bias = head, bias
        self.out_features = bias.shape[-1]

    def forward(self, hidden: Float[Tensor, "readout hidden"]) -> Float[Tensor, "readout vocabulary"]:
        return self.head(hidden) + self.bias


def read_head(
    head: nn.Module,
    rule: LogitRule,
    hidden: Float[Tensor, "readout hidden"],
    slot: Int[Tensor, "scored"],
    target: Int[Tensor, "scored"],
    meter: Meter,
) -> tuple[Float[Tensor, "scored"], list[Float[Tensor, "readout"]]]:
    """Log-probability of each ``target`` under the row ``slot``, and the meter's signals of each row."""
    detached = all(dict(signal.options).get("detached") for signal in meter.signals)
    if not _is_plain(head, rule) or (torch.is_grad_enabled() and not detached):
        return _read_module(head, rule, hidden, slot, target, meter)
    plain: Any = head
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else plain.weight.dtype
    weight, bias = plain.weight.to(dtype), None if plain.bias is None else plain.bias.to(dtype)
    with torch.autocast(device, enabled=False):
        logps, *signals = _PlainLogps.apply(hidden.to(dtype), weight, bias, rule.factor, slot, target, meter)
    return logps, signals


def _is_plain(head: nn.Module, rule: LogitRule) -> bool:
    """Whether the head is a matrix and nothing more, so that its weight may be read past its module.
    ``ds_id`` marks a weight that DeepSpeed gathers only around the module's own call."""
    return (
        type(head) is nn.Linear
        and type(head.weight) in (nn.Parameter, Tensor)
        and head.weight.is_floating_point()
        and not hasattr(head.weight, "ds_id")
        and rule.softcap is None
        and not head._forward_hooks
        and not head._forward_pre_hooks
        and "forward" not in vars(head)
    )


def _chunks(rows: int, vocabulary: int) -> Iterator[tuple[int, int]]:
    size = max(FEWEST_ROWS, CHUNK_BYTES // (4 * vocabulary))
    for start in range(0, max(rows, 1), size):
        yield start, min(start + size, rows)


def _read_module(
    head: nn.Module, rule: LogitRule, hidden: Tensor, slot: Tensor, target: Tensor, meter: Meter
) -> tuple[Tensor, list[Tensor]]:
    def read(rows: Tensor, slot: Tensor, target: Tensor, start: int) -> tuple[Tensor, ...]:
        logits = wide(rule(head(rows)))
        normaliser = logits.logsumexp(-1)
        logps = logits[slot, target] - normaliser[slot]
        return logps, *meter(start, logits, normaliser)

    order = slot.argsort(stable=True)
    spans = list(_chunks(len(hidden), _outputs(head)))
    edges = torch.searchsorted(slot[order], slot.new_tensor([stop for _, stop in spans])).tolist()
    blocks = 1 + 2 * len(meter.signals)
    fits = len(hidden) * _outputs(head) * 4 * blocks <= KEPT_BYTES
    chunks = []
    for (start, stop), first, last in zip(spans, [0, *edges], edges, strict=False):
        own = order[first:last]
        arguments = (hidden[start:stop], slot[own] - start, target[own], start)
        if torch.is_grad_enabled() and not fits:
            chunks.append(checkpoint(read, *arguments, use_reentrant=False))
        else:
            chunks.append(read(*arguments))
    logps, *signals = (torch.cat(chunk) for chunk in zip(*chunks, strict=True))
    return torch.empty_like(logps).index_copy(0, order, logps), signals


def _outputs(head: nn.Module) -> int:
    return int(getattr(head, "out_features", 0)) or 2**17


def wide(tensor: Tensor) -> Tensor:
    """At least float32, which sums over a vocabulary need."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


class _PlainLogps(torch.autograd.Function):
    """``log softmax(factor · (h W + b))`` at the targets, and the meter's signals, which have no gradient."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, factor: float,
                slot: Tensor, target: Tensor, meter: Meter) -> tuple[Tensor, ...]:  # fmt: skip
        needs_hidden, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        trains = needs_weight or needs_bias
        rows, vocabulary = len(hidden), len(weight)
        sums = torch.promote_types(hidden.dtype, torch.float32)
        keeps = trains and rows * vocabulary * hidden.element_size() <= KEPT_BYTES
        kept = hidden.new_empty(rows, vocabulary) if keeps else None
        in_place = keeps and sums == hidden.dtype
        expected = torch.empty_like(hidden) if needs_hidden and not trains else None
        normaliser, mass = hidden.new_empty(2, rows, dtype=sums)
        logps = hidden.new_empty(len(slot), dtype=sums)
        measured = []
        for start, stop in [(0, rows)] if in_place else _chunks(rows, vocabulary):
            block = wide(_logits(hidden[start:stop], weight, bias, factor, out=kept if in_place else None))
            inside = (slot >= start) & (slot < stop)
            place = (slot - start).clamp(0, max(stop - start - 1, 0))
            logps = torch.where(inside, block[place, target], logps)
            if meter.signals:
                measured.append(meter(start, block, block.logsumexp(-1)))
            peak = block.amax(-1)
            block.sub_(peak[:, None]).exp_()
            mass[start:stop] = block.sum(-1)
            normaliser[start:stop] = peak + mass[start:stop].log()
            if kept is not None and not in_place:
                kept[start:stop] = block
            if expected is not None:
                expected[start:stop] = (block / mass[start:stop, None]).to(weight.dtype) @ weight
        logps -= normaliser[slot]
        ctx.kept, ctx.factor = kept, factor
        ctx.save_for_backward(hidden, weight, bias, slot, target, normaliser, mass, logps, expected)
        signals = [torch.cat(chunks) for chunks in zip(*measured, strict=True)]
        ctx.mark_non_differentiable(*signals)
        return logps, *signals

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, slot, target, normaliser, mass, logps, expected = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias, *_rest = ctx.needs_input_grad
        gradient = gradient * ctx.factor
        total = torch.zeros_like(normaliser).index_add_(0, slot, gradient)
        if expected is not None:
            pulled = (gradient[:, None] * weight[target]).to(hidden.dtype)
            d_hidden = (expected * -total[:, None]).to(hidden.dtype).index_add_(0, slot, pulled)
            return d_hidden, None, None, None, None, None, None

        d_hidden = torch.empty_like(hidden) if needs_hidden else None
        d_weight = torch.empty_like(weight) if needs_weight else None
        d_bias = torch.zeros_like(weight[:, 0]) if needs_bias else None
        row, column, at_target = _at_targets(slot, target, gradient, total, logps, len(weight))
        kept, ctx.kept = ctx.kept, None
        for start, stop in [(0, len(hidden))] if kept is not None else _chunks(len(hidden), len(weight)):
            if kept is None:
                block = wide(_logits(hidden[start:stop], weight, bias, ctx.factor))
                block.sub_(normaliser[start:stop, None]).exp_().mul_(-total[start:stop, None])
            else:
                block = kept.mul_((-total / mass)[:, None])
            inside = (row >= start) & (row < stop)
            block[row[inside] - start, column[inside]] = at_target[inside].to(block.dtype)
            block = block.to(hidden.dtype)
            if d_hidden is not None:
                torch.mm(block, weight, out=d_hidden[start:stop])
            if d_weight is not None:
                torch.addmm(d_weight, block.T, hidden[start:stop], beta=0 if start == 0 else 1, out=d_weight)
            if d_bias is not None:
                d_bias += block.sum(0)
        return d_hidden, d_weight, d_bias, None, None, None, None


def _logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, factor: float, out: Tensor | None = None
) -> Tensor:
    if bias is None:
        logits = torch.mm(hidden, weight.T, out=out)
    else:
        logits = torch.addmm(bias, hidden, weight.T, out=out)
    return logits if factor == 1.0 else logits.mul_(factor)


def _at_targets(
    slot: Tensor, target: Tensor, gradient: Tensor, total: Tensor, logps: Tensor, vocabulary: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The logit gradient at each (row, target), ``Σ g - total · p``, which cancels where p is near 1: a
    half-precision buffer would lose it. A pair that is scored twice stands here once."""
    pairs, place = torch.unique(slot * vocabulary + target, return_inverse=True)
    row = pairs // vocabulary
    gathered = gradient.new_zeros(len(pairs)).index_add_(0, place, gradient)
    probability = torch.empty_like(gathered).index_copy_(0, place, logps.exp())
    return row, pairs % vocabulary, gathered - total[row] * probability


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's ``mallopt``."""


def keep_freed_memory() -> bool:
    """Keep freed memory in the process until it ends; returns whether it was set (glibc on Linux only).

    By default every buffer above some megabytes, logits first of all, is a fresh mapping, and faulting its
    pages in costs between 1 and 10 % of a training step on the CPU. Call it before the first large tensor.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
