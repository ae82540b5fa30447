"""Risk measures of the log-ratio of two distributions: numbers by hand, limits and order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

from prefero.models.signals import cvar, entropic, released_cvar

HALF = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
FAR = torch.tensor([0.8, 0.2], dtype=torch.float64).log()
KL = 0.22314355131420976


def pair(seed: int, entries: int = 17) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, entries, generator=numbers, dtype=torch.float64)
    log_p, log_q = logits.log_softmax(-1)
    return log_p, log_q


def kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    return (log_q.exp() * (log_q - log_p)).sum(-1)


def test_the_released_measure_by_hand() -> None:
    """It keeps the entry above the quantile, −0.4007, alone; the KL is 0.2231."""
    assert float(released_cvar(FAR, HALF, 0.95, split=False)) == pytest.approx(0.4581453659, rel=1e-9)


def test_the_released_measure_leaves_the_smallest_entry_out_even_at_confidence_one() -> None:
    assert float(released_cvar(FAR, HALF, 1.0, split=False)) == pytest.approx(0.4581453659, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("split", [True, False])
def test_the_released_measure_is_at_least_the_kl_where_what_it_drops_is_negative(
    seed: int, split: bool
) -> None:
    log_p, log_q = pair(seed)
    assert (released_cvar(log_p, log_q, 0.9, split) >= kl(log_p, log_q)).all()


def test_a_single_entry_and_an_empty_half_have_no_risk() -> None:
    one = torch.zeros(2, 1, dtype=torch.float64)
    assert released_cvar(one, one, 0.95, split=True).tolist() == [0.0, 0.0]


def test_equal_distributions_have_no_risk() -> None:
    log_p, _ = pair(0)
    for risk in (
        released_cvar(log_p, log_p, 0.95, True),
        cvar(log_p, log_p, 0.3),
        entropic(log_p, log_p, 2.0),
    ):
        torch.testing.assert_close(risk, torch.zeros_like(risk))


def test_the_whole_tail_is_the_kl() -> None:
    assert float(cvar(FAR, HALF, 1.0)) == pytest.approx(KL, rel=1e-12)
    assert float(cvar(FAR, HALF, 0.5)) == pytest.approx(0.9162907319, rel=1e-9), "log .5/.2: the worst half"


def test_a_small_mu_is_the_kl_and_one_is_the_renyi_divergence_of_order_two() -> None:
    assert float(entropic(FAR, HALF, 1e-4)) == pytest.approx(KL, rel=1e-3)
    renyi = torch.tensor(0.25 / 0.8 + 0.25 / 0.2).log()
    assert float(entropic(FAR, HALF, 1.0)) == pytest.approx(float(renyi), rel=1e-6)


@given(st.integers(0, 50), st.floats(0.05, 3), st.floats(1.01, 3))
def test_more_aversion_is_more_risk(seed: int, mu: float, factor: float) -> None:
    log_p, log_q = pair(seed)
    assert (entropic(log_p, log_q, mu * factor) >= entropic(log_p, log_q, mu) - 1e-12).all()
    tail = min(1.0, mu / 3)
    assert (cvar(log_p, log_q, tail / factor) >= cvar(log_p, log_q, tail) - 1e-12).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_certain_models_have_a_finite_risk(dtype: torch.dtype) -> None:
    log_p = torch.tensor([[500.0, -500.0, 0.0]], dtype=dtype).log_softmax(-1).requires_grad_()
    log_q = torch.tensor([[-500.0, 500.0, 0.0]], dtype=dtype).log_softmax(-1)
    for risk in (
        released_cvar(log_p, log_q, 0.95, False),
        cvar(log_p, log_q, 0.3),
        entropic(log_p, log_q, 1.0),
    ):
        assert risk.isfinite().all()
        assert torch.autograd.grad(risk.sum(), log_p)[0].isfinite().all()
