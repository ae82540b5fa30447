"""Several references, none, and the one without a prompt."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from prefero.errors import PreferoError
from prefero.objectives import PreferenceBatch, TokenLogps, method
from prefero.objectives.presets.rewards import CombinedReference
from tests.objectives.batches import build, slope_of


def referred(*references: tuple[float, float], policy: tuple[float, float] = (-4.0, -5.0)) -> PreferenceBatch:
    """One pair of one-token responses, with what each reference gives to them."""

    def of(pair: tuple[float, float]) -> TokenLogps:
        logps = torch.tensor([[[pair[0]], [pair[1]]]], dtype=torch.float64)
        return TokenLogps(logps, torch.ones_like(logps, dtype=torch.bool))

    names = ("reference", "reference_2", "reference_3", "reference_4")
    models = dict(zip(names, map(of, references), strict=False))
    own = of(policy)
    return PreferenceBatch({"policy": TokenLogps(own.logps.requires_grad_(), own.mask), **models})


def combined(role: str, count: int = 2, epsilon_max: float = 1.0, weights: str = "adaptive"):
    return CombinedReference(
        role, ("reference", "reference_2", "reference_3", "reference_4")[:count], epsilon_max, weights
    )


@pytest.mark.parametrize("weights", ["adaptive", "uniform", "swapped"])
def test_equal_references_are_one(weights: str) -> None:
    batch = referred((-3.0, -3.5), (-3.0, -3.5))
    first, second = build("mrpo", weights=weights).loss(batch), build("dpo").loss(batch)
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(slope_of(first, batch), slope_of(second, batch))


@pytest.mark.parametrize("weights", ["adaptive", "uniform"])
def test_the_joint_reference_is_harmonic_not_geometric(weights: str) -> None:
    """At most the geometric mean, and between the smallest and the largest; with 2 or 3 references."""
    for references in ([(-3.0, -6.0), (-5.0, -5.5)], [(-3.0, -6.0), (-5.0, -5.5), (-9.0, -2.0)]):
        batch = referred(*references)
        for role in ("chosen", "rejected"):
            quantity = combined(role, len(references), weights=weights)
            value, parts, shares = quantity(batch), quantity.clipped(batch), quantity.shares(batch)
            assert float(shares.sum()) == pytest.approx(1)
            geometric = float((shares * parts).sum())
            assert float(parts.min()) <= float(value) < geometric <= float(parts.max())
            exact = -torch.log((shares * torch.exp(-parts)).sum())
            assert float(value) == pytest.approx(float(exact), rel=1e-12)


def test_a_reference_that_tells_nothing_apart_has_no_weight() -> None:
    """Gaps 0 and 2: DPO with the second reference, held near the first; exchanged weights give the first."""
    batch = referred((-3.0, -3.0), (-3.1, -5.1))
    extra = combined("chosen", epsilon_max=0.1)
    torch.testing.assert_close(extra(batch), extra.clipped(batch)[:, 1:])
    swapped = combined("chosen", epsilon_max=0.1, weights="swapped")
    torch.testing.assert_close(swapped(batch), swapped.clipped(batch)[:, :1], rtol=1e-5, atol=0)


def test_a_pair_divides_its_room_by_the_size_of_its_log_probabilities() -> None:
    batch = referred((-2.0, -6.0), (-8.0, -30.0))
    room = []
    for role, base in (("chosen", -2.0), ("rejected", -6.0)):
        clipped = float(combined(role, epsilon_max=0.3).clipped(batch)[0, 1])
        assert clipped < base, "clipped at the lower end"
        room.append(clipped / base - 1)
    assert sum(room) == pytest.approx(0.3)
    sizes = 5.0, 18.0
    assert room[0] == pytest.approx(0.3 * sizes[0] / sum(sizes))


def test_a_log_probability_of_minus_two_thousand_is_finite() -> None:
    batch = referred((-2000.0, -2100.0), (-1500.0, -2600.0), policy=(-2000.0, -2100.0))
    loss = build("mrpo", epsilon_max=1.0).loss(batch)
    assert loss.isfinite()
    assert slope_of(loss, batch).isfinite().all()


def test_exchanged_weights_are_for_two_references() -> None:
    with pytest.raises(PreferoError, match="two references, not of 3"):
        method("mrpo", weights="swapped", references=3)


def test_multi_dpo_is_a_mean_of_losses_not_a_loss_of_means() -> None:
    batch = referred((-3.0, -6.0), (-5.0, -5.5))
    second = PreferenceBatch({**batch.models, "reference": batch.models["reference_2"]})
    expected = (build("dpo").loss(batch) + build("dpo").loss(second)) / 2
    torch.testing.assert_close(build("multi_dpo").loss(batch), expected)


def test_no_reference_is_a_constant_one() -> None:
    batch = referred((-7.0, -7.0))
    torch.testing.assert_close(build("dpo_posterior").loss(batch), build("dpo").loss(batch))


def likelihood(batch: PreferenceBatch, alone: Tensor) -> Tensor:
    prior = TokenLogps(alone, torch.ones_like(alone, dtype=torch.bool))
    view = PreferenceBatch({"policy": prior, "reference": prior})
    return build("dpo_likelihood").loss(PreferenceBatch(batch.models, views={"unprompted": view}))


def test_responses_alike_without_a_prompt_need_no_reference() -> None:
    batch = referred((-3.0, -6.0))
    alike = torch.full((1, 2, 1), -9.0, dtype=torch.float64)
    torch.testing.assert_close(likelihood(batch, alike), build("dpo_posterior").loss(batch))


def test_the_reference_is_read_without_the_prompt_not_with_it() -> None:
    batch = referred((-3.0, -6.0))
    alone = torch.tensor([[[-2.0], [-1.0]]], dtype=torch.float64)
    other = referred((-2.0, -1.0))
    torch.testing.assert_close(likelihood(batch, alone), build("dpo").loss(other))
