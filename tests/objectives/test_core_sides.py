"""Sides that pull unequally: how much each pulls, and what a pilot, a factor or a prior must not change."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from prefero.objectives import PreferenceBatch, TokenLogps
from tests.objectives.batches import batch_for, build, pair_batch, slope_of

LENGTHS = ((6, 3), (1, 4), (2, 2))


def ragged(seed: int = 0, lengths=LENGTHS) -> PreferenceBatch:
    """Pairs of these lengths, with noise for draws."""
    numbers = torch.Generator().manual_seed(seed)

    def uniform() -> Tensor:
        return torch.rand((len(lengths), 2, 6), generator=numbers, dtype=torch.float64)

    mask = torch.arange(6) < torch.tensor(lengths)[..., None]
    policy, reference = (torch.where(mask, -2 * uniform(), 0) for _ in range(2))
    models = {
        "policy": TokenLogps(policy.requires_grad_(), mask),
        "reference": TokenLogps(reference, mask),
    }
    return PreferenceBatch(models, {"noise": uniform()})


def ratios(batch: PreferenceBatch) -> Tensor:
    return (batch.models["policy"].logps - batch.models["reference"].logps).detach()


def test_a_drawn_token_is_not_pulled_twice_and_each_side_has_a_strength_of_its_own() -> None:
    """Fails for a pilot with a gradient, and for the strengths of DPO, which are the same on both sides."""
    batch, beta = ragged(), 0.7
    objective = build("sgdpo", beta=beta, chosen_ratio=0.5, rejected_ratio=1.0)
    slope = slope_of(objective.loss(batch), batch)
    up, down = objective.parts
    arguments = [part.comparisons(batch).margins[:, 0].detach() for part in (up, down)]
    strengths = [-0.5 * beta * torch.sigmoid(-z) / len(LENGTHS) for z in arguments]
    for role, (sign, strength) in enumerate(zip((1, -1), strengths, strict=True)):
        expected = torch.where(batch.mask[:, role], sign * strength[:, None], 0)
        torch.testing.assert_close(slope[:, role], expected)
    assert ((strengths[0] / strengths[1] - 1).abs() > 1e-3).all()


@pytest.mark.parametrize(
    ("ratio", "lengths", "size"),
    [(0.9, (6, 3), 2), (0.6, (3, 5), 1), (0.1, (6, 6), 1), (1.0, (1, 4), 1), (0.7, (6, 10), 4)],
)
def test_a_pilot_has_a_share_of_the_shorter_length_and_at_least_one_token(ratio, lengths, size) -> None:
    """Fails for a share of each response's own length."""
    batch = ragged(lengths=(tuple(min(n, 6) for n in lengths),))
    ones = PreferenceBatch(
        {
            "policy": TokenLogps(batch.mask.double().requires_grad_(), batch.mask),
            "reference": TokenLogps(torch.zeros_like(ratios(batch)), batch.mask),
        },
        batch.columns,
    )
    up, down = build("sgdpo", beta=1.0, chosen_ratio=ratio, rejected_ratio=ratio).parts
    assert float(up.reward(ones)[0, 1].detach()) == size
    assert float(down.reward(ones)[0, 0].detach()) == size


def test_pilots_of_all_tokens_have_the_value_of_dpo_and_half_its_gradient() -> None:
    batch = ragged(lengths=((4, 4), (1, 1), (6, 6)))
    sgdpo, dpo = build("sgdpo", beta=0.4, chosen_ratio=1.0, rejected_ratio=1.0), build("dpo", beta=0.4)
    first, second = sgdpo.loss(batch), dpo.loss(batch)
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(slope_of(first, batch), slope_of(second, batch) / 2)


def test_the_draw_follows_the_noise_and_evaluation_draws_nothing() -> None:
    batch = ragged()
    objective = build("sgdpo", beta=1.0)
    again = PreferenceBatch(batch.models, {"noise": ragged(seed=5).columns["noise"]})
    assert objective.loss(batch) != objective.loss(again)
    assert objective.eval().loss(batch) == objective.loss(again)


def test_the_reference_of_the_rejected_response_is_shifted_too() -> None:
    """At π = π_ref the loss is log 2 for every factor; scaling the policy's part alone gives another one."""
    batch = pair_batch([0.0], [0.0])
    for key, arguments in (
        ("dpo_shift", {"factor": 0.5}),
        ("flex_dpo", {"beta_minus": 0.01}),
        ("mappo", {}),
    ):
        columns = {"score": torch.tensor([[0.6, 0.3]])}
        loss = build(key, **arguments).loss(PreferenceBatch(batch.models, columns))
        assert float(loss.detach()) == pytest.approx(math.log(2), rel=1e-12), key


@pytest.mark.parametrize(
    ("key", "arguments", "share"),
    [
        ("dpo_shift", {"factor": 0.75}, 0.75),
        ("dpo_shift", {"factor": 0.0}, 0.0),
        ("flex_dpo", {"beta_plus": 0.2, "beta_minus": 0.05}, 0.25),
    ],
)
def test_the_rejected_side_pulls_a_share_of_the_chosen_one(key, arguments, share) -> None:
    batch = pair_batch([0.3], [-0.8])
    chosen, rejected = slope_of(build(key, **arguments).loss(batch), batch)[0, :, 0]
    assert float(-rejected / chosen) == pytest.approx(share, abs=1e-15)


@pytest.mark.parametrize(("progress", "factor"), [(0.0, 0.75), (0.005, 0.75125), (0.5, 0.875), (1.0, 1.0)])
def test_the_shift_follows_the_optimizer_steps(progress: float, factor: float) -> None:
    batch = pair_batch([0.0], [1.0])
    batch = PreferenceBatch(batch.models, progress=progress)
    shift = build("dpo_shift", beta=1.0, factor=0.75, final_factor=1.0)
    assert float(shift.reward(batch)[0, 1].detach()) == pytest.approx(factor)


PLUGGED = [
    ("mappo", "dpo", {}, {}),
    ("mappo_simpo", "simpo", {}, {}),
    ("mappo_ipo", "ipo", {}, {"tokens": "sum"}),
    ("mappo_cpo", "dpo_posterior", {"lam": 0.0}, {}),
]


def with_scores(batch: PreferenceBatch, chosen: float, rejected: float) -> PreferenceBatch:
    scores = torch.tensor([[chosen, rejected]] * len(batch.mask), dtype=torch.float64)
    return PreferenceBatch(batch.models, {"score": scores})


@pytest.mark.parametrize(("key", "base", "own", "given"), PLUGGED)
def test_a_prior_of_one_is_the_base_method_and_of_zero_leaves_the_rejected_response(
    key, base, own, given
) -> None:
    batch = ragged()
    objective = build(key, **own)
    shared = {name: value for name, value in objective.arguments.items() if name in ("beta", "gamma", "tau")}
    first = objective.loss(with_scores(batch, 1.0, 0.0))
    second = build(base, **shared, **given).loss(batch)
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(slope_of(first, batch), slope_of(second, batch))
    alone = slope_of(objective.loss(with_scores(batch, 0.4, 0.4)), batch)
    assert torch.equal(alone[:, 1], torch.zeros_like(alone[:, 1]))
    assert (alone[:, 0][batch.mask[:, 0]] < 0).all()


def test_a_prior_belongs_to_its_pair_not_to_the_batch() -> None:
    batch = ragged()
    scores = torch.tensor([[0.9, 0.1], [0.5, 0.4], [1.0, 0.0]], dtype=torch.float64)
    slope = slope_of(build("mappo").loss(PreferenceBatch(batch.models, {"score": scores})), batch)
    torch.testing.assert_close(-slope[:, 1, 0] / slope[:, 0, 0], scores[:, 0] - scores[:, 1])
    slope = slope_of(build("mappo_simpo").loss(PreferenceBatch(batch.models, {"score": scores})), batch)
    chosen, rejected = batch.lengths.T
    expected = (scores[:, 0] - scores[:, 1]) * chosen / rejected
    torch.testing.assert_close(-slope[:, 1, 0] / slope[:, 0, 0], expected)


@pytest.mark.parametrize(
    ("scores", "chosen", "rejected", "expected"),
    [
        ("unit", 0.2, 0.9, 0.0),
        ("unit", 7.0, 3.0, 1.0),
        ("sigmoid", 2.0, -1.0, 1 / (1 + math.exp(-2)) - 1 / (1 + math.e)),
    ],
)
def test_gaps_are_held_between_zero_and_one_and_logits_are_squashed_before_they_are_subtracted(
    scores, chosen, rejected, expected
) -> None:
    batch = with_scores(pair_batch([0.0], [1.0]), chosen, rejected)
    reward = build("mappo", beta=1.0, scores=scores).reward(batch)
    assert float(reward[0, 1].detach()) == pytest.approx(expected)


def test_far_margins_stay_finite() -> None:
    for key in (
        "sgdpo",
        "dpo_shift",
        "mappo",
        "flex_dpo",
        "gamma_dpo",
        "gamma_simpo",
        "mrpo",
        "asft",
        "typo",
    ):
        objective = build(key)
        batch = batch_for(objective, spread=1e3)
        loss = objective.loss(batch)
        assert loss.isfinite(), key
        assert slope_of(loss, batch).isfinite().all(), key
