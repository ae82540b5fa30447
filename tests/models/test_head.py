"""The head's ways of reading log-probabilities agree, forward and backward, and keep what they promise."""

from __future__ import annotations

import platform

import pytest
import torch
from torch import nn

from prefero.models import head
from prefero.models.head import LogitRule, read_head
from prefero.models.signals import Meter

ROWS, HIDDEN, VOCABULARY = 37, 8, 50


class Wrapped(nn.Linear):
    """Not a plain linear layer any more, so that the module way is taken."""


def case(kind: type[nn.Linear] = nn.Linear, *, bias: bool = False, dtype: torch.dtype = torch.float64):
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    layer = kind(HIDDEN, VOCABULARY, bias=bias, dtype=dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(random(*parameter.shape))
    hidden = random(ROWS, HIDDEN).requires_grad_()
    slot = torch.randint(ROWS, (60,), generator=generator)
    target = torch.randint(VOCABULARY, (60,), generator=generator)
    slot[-3:], target[-3:] = slot[0], target[0]
    return layer, hidden, slot, target


PLAIN = LogitRule()


def run(layer, hidden, slot, target, rule=PLAIN):
    """Log-probabilities, and the gradient of a weighted sum of them to everything that has one."""
    logps, _ = read_head(layer, rule, hidden, slot, target, Meter())
    weights = torch.linspace(-1, 2, len(slot), dtype=logps.dtype)
    leaves = [leaf for leaf in (hidden, *layer.parameters()) if leaf.requires_grad]
    return logps, torch.autograd.grad((logps * weights).sum(), leaves, retain_graph=True)


def direct(layer, hidden, slot, target, rule=PLAIN):
    logps = rule(layer(hidden)).log_softmax(-1)[slot, target]
    weights = torch.linspace(-1, 2, len(slot), dtype=logps.dtype)
    leaves = [leaf for leaf in (hidden, *layer.parameters()) if leaf.requires_grad]
    return logps, torch.autograd.grad((logps * weights).sum(), leaves)


def same(first, second, tolerance: float = 1e-12) -> None:
    for a, b in zip((first[0], *first[1]), (second[0], *second[1]), strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


@pytest.fixture(params=["kept", "recomputed", "chunked"])
def memory(request, monkeypatch) -> str:
    """``chunked`` has several chunks in every way, with rows of one chunk read out of order."""
    if request.param != "kept":
        monkeypatch.setattr(head, "KEPT_BYTES", 0)
    if request.param == "chunked":
        monkeypatch.setattr(head, "FEWEST_ROWS", 5)
        monkeypatch.setattr(head, "CHUNK_BYTES", 1)
    return request.param


RULES = [PLAIN, LogitRule(factor=0.3), LogitRule(softcap=4.0), LogitRule(factor=2.0, softcap=3.0)]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", [nn.Linear, Wrapped])
def test_every_way_equals_a_full_log_softmax(memory: str, kind, bias: bool, rule: LogitRule) -> None:
    arguments = case(kind, bias=bias)
    same(run(*arguments, rule), direct(*arguments, rule))


@pytest.mark.parametrize("bias", [False, True])
def test_frozen_head(memory: str, bias: bool) -> None:
    layer, hidden, slot, target = case(bias=bias)
    layer.requires_grad_(False)
    same(run(layer, hidden, slot, target), direct(layer, hidden, slot, target))


def test_frozen_body_trains_the_head(memory: str) -> None:
    layer, hidden, slot, target = case()
    hidden.requires_grad_(False)
    same(run(layer, hidden, slot, target), direct(layer, hidden, slot, target))


def test_no_gradient_is_made_without_grad_mode(memory: str) -> None:
    arguments = case()
    expected, _ = direct(*arguments)
    with torch.no_grad():
        logps, _ = read_head(arguments[0], PLAIN, *arguments[1:], Meter())
    assert not logps.requires_grad
    torch.testing.assert_close(logps, expected)


def test_a_second_backward_recomputes_what_the_first_consumed() -> None:
    layer, hidden, slot, target = case()
    logps, _ = read_head(layer, PLAIN, hidden, slot, target, Meter())
    first = torch.autograd.grad(logps.sum(), hidden, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(logps.sum(), hidden), first)


def test_extreme_logits_stay_finite() -> None:
    layer, hidden, slot, target = case()
    with torch.no_grad():
        layer.weight.mul_(1e4)
    logps, slopes = run(layer, hidden, slot, target)
    expected, expected_slopes = direct(layer, hidden, slot, target)
    assert logps.isfinite().all() and all(slope.isfinite().all() for slope in slopes)
    torch.testing.assert_close(logps, expected)
    torch.testing.assert_close(slopes, expected_slopes)


def test_half_precision_reduces_in_float32(memory: str) -> None:
    layer, hidden, slot, target = case(dtype=torch.bfloat16)
    wide = nn.Linear(HIDDEN, VOCABULARY, bias=False)
    with torch.no_grad():
        wide.weight.copy_(layer.weight)
    logps, slopes = run(layer, hidden, slot, target)
    expected, expected_slopes = direct(wide, hidden.detach().float().requires_grad_(), slot, target)
    assert logps.dtype == torch.float32
    assert (logps - expected).abs().max() < 0.05
    for slope, wanted in zip(slopes, expected_slopes, strict=True):
        assert (slope.float() - wanted).norm() < 0.01 * wanted.norm()


def test_half_precision_keeps_the_slope_of_a_certain_token() -> None:
    """1 - p of a token that is almost certain is lost when p is rounded first."""
    layer, hidden, _, _ = case(dtype=torch.bfloat16)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[3] = 1.0
        hidden.copy_(torch.full_like(hidden, 1.25))
    slot = torch.zeros(1, dtype=torch.int64)
    logps, _ = read_head(layer, PLAIN, hidden, slot, slot + 3, Meter())
    (slope,) = torch.autograd.grad(logps.sum(), layer.weight)
    wanted = (1 - logps.exp()) * 1.25
    torch.testing.assert_close(slope[3].float(), wanted.detach().expand(HIDDEN), rtol=0.02, atol=0)


def test_nothing_scored() -> None:
    layer, hidden, slot, target = case()
    for kind in (layer, Wrapped(HIDDEN, VOCABULARY, bias=False, dtype=torch.float64)):
        logps, _ = read_head(kind, PLAIN, hidden[:0], slot[:0], target[:0], Meter())
        assert logps.shape == (0,)
        logps.sum().backward()


def test_the_allocator_says_whether_it_was_set(monkeypatch) -> None:
    assert head.keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert not head.keep_freed_memory(), "a request that other systems may decline"
