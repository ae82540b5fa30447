"""Accepted and rejected responses on their own, and triples with a gold response."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from prefero.objectives import PreferenceBatch, TokenLogps, method
from prefero.objectives.signals import forward_kl
from prefero.theory.optima import pmpo_optimum
from tests.objectives.batches import batch_for, build, pair_batch, slope_of, slopes


def labelled(labels, *, seed: int = 0) -> PreferenceBatch:
    """One response an example, of two tokens, with a divergence of 0.25 at each."""
    numbers = torch.Generator().manual_seed(seed)
    logps = -torch.rand((len(labels), 1, 2), generator=numbers, dtype=torch.float64)
    mask = torch.ones_like(logps, dtype=torch.bool)
    kl = torch.full_like(logps, 0.25).requires_grad_()
    policy = TokenLogps(logps.requires_grad_(), mask, {forward_kl(): kl})
    label = torch.tensor(labels, dtype=torch.float64)[:, None]
    return PreferenceBatch({"policy": policy}, {"label": label}, ())


# PMPO


def test_accepted_alone_without_divergence_is_their_likelihood() -> None:
    batch = labelled([1, -1, 1])
    loss = build("pmpo", alpha=1.0, beta=0.0).loss(batch)
    own = batch.models["policy"].logps[[0, 2]]
    torch.testing.assert_close(loss, -own.sum((1, 2)).mean())


def test_every_label_is_averaged_on_its_own() -> None:
    """One mean over all would weigh three accepted and one rejected example alike."""
    batch = labelled([1, 1, 1, -1])
    slope = slope_of(build("pmpo", alpha=0.4, beta=0.0).loss(batch), batch)
    assert slope[:, 0, 0].tolist() == pytest.approx([-0.4 / 3] * 3 + [0.6])


@pytest.mark.parametrize("label", [1.0, -1.0])
def test_a_step_of_one_label_has_no_term_for_the_other(label: float) -> None:
    batch = labelled([label, label])
    loss = build("pmpo", alpha=0.5, beta=0.0).loss(batch)
    mean = batch.models["policy"].logps.sum((1, 2)).mean()
    torch.testing.assert_close(loss, -label * 0.5 * mean)
    assert slope_of(loss, batch).isfinite().all()


def test_the_divergence_is_summed_over_tokens_and_averaged_over_all_responses() -> None:
    batch = labelled([1, -1, 1])
    with_divergence, without = (build("pmpo", beta=beta).loss(batch) for beta in (2.0, 0.0))
    torch.testing.assert_close(with_divergence - without, torch.tensor(2.0 * 0.5).double())
    kl = batch.models["policy"].signals[forward_kl()]
    (slope,) = torch.autograd.grad(build("pmpo", beta=2.0).loss(batch), kl)
    torch.testing.assert_close(slope, torch.full_like(kl, 2.0 / 3))


def test_a_reference_log_probability_is_not_read() -> None:
    batch = labelled([1, -1])
    assert "reference" not in batch.models
    assert build("pmpo").loss(batch).isfinite()


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 4.0), (1.0, 0.5), (0.0, 4.0)])
def test_descent_on_finitely_many_responses_reaches_the_closed_form(alpha: float, beta: float) -> None:
    """Accepted: the first; rejected: the second, of four. A divergence with the policy first leads
    elsewhere."""
    reference = torch.tensor([0.3, 0.4, 0.2, 0.1], dtype=torch.float64)
    logits = reference.log().clone().requires_grad_()
    objective = method("pmpo", alpha=alpha, beta=beta).double()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=200, line_search_fn="strong_wolfe", tolerance_change=1e-14
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        logp = logits.log_softmax(0)
        kl = (reference * (reference.log() - logp)).sum().expand(2, 1, 1)
        policy = TokenLogps(logp[:2, None, None], torch.ones(2, 1, 1, dtype=torch.bool), {forward_kl(): kl})
        value = objective.loss(
            PreferenceBatch({"policy": policy}, {"label": torch.tensor([[1.0], [-1.0]])}, ())
        )
        value.backward()
        return value

    optimizer.step(loss)
    accepted, rejected = torch.eye(4, dtype=torch.float64)[:2]
    expected = pmpo_optimum(reference, accepted, rejected, alpha, beta)
    assert expected is not None
    torch.testing.assert_close(logits.detach().softmax(0), expected, rtol=1e-5, atol=1e-6)


# KTO


def test_kto_starts_at_half_of_each_labels_weight() -> None:
    objective = build("kto", desirable=2.0, undesirable=1.0)
    batch = batch_for(objective)
    same = dict.fromkeys(batch.models, batch.models["reference"])
    views = {"mismatched": replace(batch.views["mismatched"], models=dict.fromkeys(same, same["reference"]))}
    start = replace(batch, models=same, views=views)
    there, label = start.mask.any(-1), start.columns["label"]
    expected = torch.where(label > 0, 2.0, 1.0)[there].mean() / 2
    torch.testing.assert_close(objective.loss(start), expected.double())


def test_ktos_baseline_does_not_fall_below_nothing() -> None:
    """A policy that writes other examples' responses less often than the reference has the baseline 0."""
    objective = build("kto", beta=0.1)
    batch = batch_for(objective)

    def with_drift(drift: float) -> torch.Tensor:
        view = batch.views["mismatched"]
        reference = view.models["reference"]
        moved = TokenLogps(torch.where(view.mask, reference.logps + drift, 0), view.mask)
        models = {"policy": moved, "reference": reference}
        return objective.loss(replace(batch, views={"mismatched": replace(view, models=models)})).detach()

    assert with_drift(-1.0) == with_drift(0.0)
    assert with_drift(1.0) != with_drift(0.0)


# triples


ROLES = ("chosen", "rejected", "gold")


@pytest.mark.parametrize("key", ["tpo_triple", "tpo_l"])
def test_no_reference_is_read(key: str) -> None:
    batch = batch_for(build(key))
    assert set(batch.models) == {"policy"}


def test_without_its_likelihood_it_is_dpo_with_a_uniform_reference() -> None:
    pair = pair_batch([0.3, -1.0], [0.5, 0.1])
    logps = pair.models["policy"].logps
    three = torch.cat([logps, torch.full_like(logps[:, :1], -0.5)], 1)
    batch = PreferenceBatch({"policy": TokenLogps(three, three < 1)}, {}, ROLES)
    loss = build("tpo_triple", alpha=0.0, beta=0.3).loss(batch)
    torch.testing.assert_close(loss, build("dpo", beta=0.3).loss(pair))


def test_the_gold_response_as_the_chosen_is_cpo() -> None:
    batch = batch_for(build("tpo_triple"))
    places = torch.tensor([0, 1, 0])
    policy = batch.models["policy"]
    again = TokenLogps(policy.logps[:, places], policy.mask[:, places])
    doubled = PreferenceBatch({"policy": again}, {}, ROLES)
    pair = PreferenceBatch({"policy": TokenLogps(policy.logps[:, :2], policy.mask[:, :2])})
    triple = build("tpo_triple", beta=0.1, alpha=0.7).loss(doubled)
    plain = build("cpo", beta=0.1, lam=0.7).loss(pair)
    torch.testing.assert_close(triple, plain)
    assert all(
        torch.allclose(one, other)
        for one, other in zip(slopes(triple, batch), slopes(plain, batch), strict=True)
    )


def test_every_gold_token_of_the_step_pulls_alike() -> None:
    """A mean of means would pull the tokens of short answers harder."""
    batch = batch_for(build("tpo_triple"))
    slope = slope_of(build("tpo_triple", alpha=0.9).loss(batch), batch)
    gold = batch.mask[:, 2]
    torch.testing.assert_close(slope[:, 2][gold], torch.full((int(gold.sum()),), -0.9 / gold.sum()).double())


def test_tpo_l_reads_means_and_takes_its_margin_outside_beta() -> None:
    objective = build("tpo_l", alpha=0.0, beta=0.01, gamma=0.5)
    batch = batch_for(objective)
    policy = batch.models["policy"]
    twice = TokenLogps(policy.logps.repeat(1, 1, 2), policy.mask.repeat(1, 1, 2))
    torch.testing.assert_close(
        objective.loss(batch), objective.loss(PreferenceBatch({"policy": twice}, {}, ROLES))
    )
    level = TokenLogps(torch.where(policy.mask, -1.0, 0.0).double(), policy.mask)
    loss = objective.loss(PreferenceBatch({"policy": level}, {}, ROLES))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(0.5)))
