"""DPO kernels, the divergences beside them, and doubly robust preference optimization."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from prefero.errors import PreferoError
from prefero.models.signals import DIVERGENCES, bhattacharyya, divergence, hellinger, kl, renyi
from prefero.objectives import PreferenceBatch, dry_run
from prefero.objectives.presets.kernels import Kernel, Mahalanobis, Mixture, Polynomial, RadialBasis, Spectral
from prefero.objectives.signals import PROMPT_STATE, STATE, divergence as divergence_from
from prefero.theory.rewards import doubly_robust_values, total_preference
from tests.objectives.batches import batch_for, build, leaves, slope_of
from tests.objectives.test_needs import PAIR, needs

DOUBLE = torch.float64


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def kernels() -> dict[str, Kernel]:
    four = [RadialBasis(0.8), Polynomial(3.0), Spectral([1.0, 0.5], [1.0, 0.1]), Mahalanobis()]
    names = ["rbf", "polynomial", "spectral", "mahalanobis"]
    return {**dict(zip(names, four, strict=True)), "mixture": Mixture(*four).double()}


@pytest.mark.parametrize("name", kernels())
def test_a_kernel_tells_equal_embeddings_not_apart(name: str) -> None:
    kernel, prompt, response = kernels()[name], random(5, 4), random(5, 4, seed=1)
    torch.testing.assert_close(
        kernel(prompt, response) - kernel(prompt, response.clone()), torch.zeros(5).double()
    )


def test_kernels_that_are_one_another() -> None:
    prompt, response, sigma = random(5, 4), random(5, 4, seed=1), 0.7
    rbf = RadialBasis(sigma)(prompt, response)
    full = Mahalanobis(torch.eye(4).double() / sigma**2)
    diagonal = Mahalanobis(torch.full((4,), 1 / sigma**2, dtype=DOUBLE))
    for same in (full, diagonal, Spectral([1.0], [1 / (2 * sigma**2)])):
        torch.testing.assert_close(same(prompt, response), rbf)
    mixture = Mixture(RadialBasis(sigma), Polynomial(), Spectral([1.0], [3.0]), Mahalanobis()).double()
    for logits in (mixture.local_logits, mixture.top_logits):
        logits.data = torch.tensor([50.0, -50.0], dtype=DOUBLE)
    torch.testing.assert_close(mixture(prompt, response), rbf)


def test_a_wide_radial_basis_sees_nothing() -> None:
    assert RadialBasis(1e6)(random(5, 4), random(5, 4, seed=1)).abs().max() < 1e-10


def test_spectral_terms_that_do_not_pair_up_are_refused() -> None:
    with pytest.raises(PreferoError, match="3 scales and 2 rates"):
        build("dpo_kernels", scales=[1.0, 0.5, 0.1])


def test_a_new_mixture_is_the_mean_of_its_kernels() -> None:
    prompt, response = random(5, 4), random(5, 4, seed=1)
    mixture = kernels()["mixture"]
    mean = torch.stack([one(prompt, response).exp() for one in mixture.kernels]).mean(0)
    torch.testing.assert_close(mixture(prompt, response).exp(), mean)


def distributions(seed: int = 0) -> torch.Tensor:
    return random(6, 9, seed=seed).log_softmax(-1)


OPTIONS = {"renyi": {"order": 0.9}}


def measured(name: str, p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return divergence(p, q, {"measure": name, **OPTIONS.get(name, {})})


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_is_zero_at_equality_and_positive_elsewhere(name: str) -> None:
    p, q = distributions(), distributions(1)
    assert (measured(name, p, q) > 1e-3).all()
    assert measured(name, p, p).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_divergence_has_a_finite_gradient_at_the_start_and_far_away(name: str, dtype: torch.dtype) -> None:
    """The square root of Hellinger's has an infinite slope at 0, where training starts."""
    start = random(4, 5).to(dtype)
    for p, q in ((start, start), (100 * start, -100 * start)):
        p = p.clone().requires_grad_()
        value = measured(name, p.log_softmax(-1), q.log_softmax(-1))
        (slope,) = torch.autograd.grad(value.sum(), p)
        assert value.isfinite().all()
        assert slope.isfinite().all()


def test_divergences_that_are_one_another() -> None:
    p, q = distributions(), distributions(1)
    torch.testing.assert_close(bhattacharyya(p, q), -torch.log1p(-hellinger(p, q).square()))
    torch.testing.assert_close(renyi(p, q, 0.5), 2 * bhattacharyya(p, q))
    torch.testing.assert_close(renyi(p, q, 0.99999), kl(p, q), rtol=1e-4, atol=0)
    assert torch.equal(renyi(p, q, 1.0), kl(p, q))
    assert (measured("jensen_shannon", 50 * p, (50 * q)) <= math.log(2) + 1e-9).all()


def test_what_dpo_kernels_needs() -> None:
    found = dry_run(build("dpo_kernels"))
    encoded = frozenset({STATE, PROMPT_STATE})
    models = {"policy": frozenset({divergence_from("kl")}), "reference": encoded}
    assert found == needs(PAIR, models=models)
    policy = dry_run(build("dpo_kernels", encoder="policy", alpha=0.0)).models
    assert policy == {"policy": encoded, "reference": frozenset()}


@pytest.mark.parametrize("kernel", ["rbf", "polynomial", "spectral", "mahalanobis", "mixture"])
def test_in_the_linear_form_a_kernel_pulls_no_token_and_under_the_sigmoid_it_eases(kernel: str) -> None:
    """κ is a constant there: with a bug in its sign the eased pair would be pulled harder."""
    objective = build("dpo_kernels", kernel=kernel, link="linear", gamma=2.0)
    batch = batch_for(objective)
    plain = torch.where(batch.mask, 1.0 / len(batch.mask), 0).double()
    slope = slope_of(objective.loss(batch), batch)
    torch.testing.assert_close(slope, torch.stack([-plain[:, 0], plain[:, 1]], 1), rtol=1e-6, atol=1e-8)

    sigmoid = build("dpo_kernels", kernel=kernel, gamma=2.0, beta=1.0)
    prompt = torch.tensor([1.0, 0.0], dtype=DOUBLE).expand(1, 2, 2)
    pulls = []
    for angle in (2.0, 1.0, 0.1):
        chosen = torch.tensor([math.cos(angle), math.sin(angle)], dtype=DOUBLE)
        pulls.append(-slope_of(*at_angle(sigmoid, prompt, chosen))[0, 0, 0].item())
    assert pulls[0] > pulls[1] > pulls[2] > 0


def at_angle(objective, prompt: torch.Tensor, chosen: torch.Tensor) -> tuple[torch.Tensor, PreferenceBatch]:
    """The loss of a pair whose rejected embedding stands at a right angle to the prompt's, and the batch."""
    batch = batch_for(objective, examples=1)
    response = torch.stack([chosen, prompt[0, 0].flip(-1)])[None]
    reference = replace(batch.models["reference"], signals={PROMPT_STATE: prompt, STATE: response})
    batch = replace(batch, models={**batch.models, "reference": reference})
    return objective.loss(batch), batch


def test_the_mixture_learns_towards_the_kernel_that_tells_the_pair_apart() -> None:
    objective = build("dpo_kernels", alpha=0.0, entropy=0.0, sigma=0.2)
    prompt = torch.tensor([1.0, 0.0], dtype=DOUBLE).expand(1, 2, 2)
    loss, _ = at_angle(objective, prompt, torch.tensor([math.cos(0.1), math.sin(0.1)], dtype=DOUBLE))
    weights = dict(objective.named_parameters())
    assert len(weights) == 3
    loss.backward()
    (top,) = (weight.grad for name, weight in weights.items() if name.endswith("top_logits"))
    assert top[0] < 0 < top[1], "gradient descent raises the pair of narrow kernels"


def test_entropy_holds_the_mixture_together() -> None:
    objective = build("dpo_kernels", alpha=0.0, gamma=0.0, entropy=1.0)
    (top,) = (weight for name, weight in objective.named_parameters() if name.endswith("top_logits"))
    top.data = torch.tensor([1.0, -1.0], dtype=DOUBLE)
    objective.loss(batch_for(objective)).backward()
    assert top.grad[0] > 0 > top.grad[1]


def test_the_frozen_encoder_gets_no_gradient_and_the_policys_states_do() -> None:
    objective = build("dpo_kernels", encoder="policy", alpha=0.0)
    batch = batch_for(objective)
    states = torch.autograd.grad(objective.loss(batch), leaves(batch)[1:])
    assert all(slope.abs().sum() > 0 for slope in states)
    assert len(leaves(batch_for(build("dpo_kernels", alpha=0.0)))) == 1


def test_the_divergence_is_that_of_the_last_chosen_token() -> None:
    objective = build("dpo_kernels", alpha=0.3)
    batch = batch_for(objective)
    (signal,) = batch.models["policy"].signals.values()
    (slope,) = torch.autograd.grad(objective.loss(batch), signal)
    expected = torch.zeros_like(signal)
    for example, length in enumerate(batch.lengths[:, 0].int().tolist()):
        expected[example, 0, length - 1] = 0.3 / len(signal)
    torch.testing.assert_close(slope, expected)


def samples(key: str = "drpo", **arguments):
    objective = build(key, **arguments)
    batch = batch_for(objective)
    batch.columns["win_rate"].div_(4)  # a probability
    return objective, batch


def test_what_drpo_needs() -> None:
    assert dry_run(build("drpo")) == needs((*PAIR, "sample"), "win_rate")
    assert dry_run(build("drpo", halves="first")) == needs((*PAIR, "sample"), "win_rate", "pair_noise")


def test_drpo_without_a_clip_pulls_each_labelled_token_by_its_surprise() -> None:
    objective, batch = samples(clip=1.0)
    slope = slope_of(objective.loss(batch), batch)
    win_rate, count = batch.columns["win_rate"], len(slope)
    for place, won in ((0, 1.0), (1, 0.0)):
        surprise = (won - win_rate[:, place, None]) / 2
        torch.testing.assert_close(slope[:, place], -surprise * batch.mask[:, place] / count)


def test_a_perfect_preference_model_leaves_the_pair_alone() -> None:
    objective, batch = samples()
    batch.columns["win_rate"][:, :2] = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    slope = slope_of(objective.loss(batch), batch)
    assert slope[:, :2].abs().max() == 0
    assert slope[:, 2].abs().max() > 0


def test_drpos_ratio_is_clipped_and_has_no_gradient() -> None:
    """Detached, the slope of every token of a response is the same multiple of its surprise."""
    objective, batch = samples(clip=1.5)
    slope = slope_of(objective.loss(batch), batch)
    policy, reference = batch.models["policy"], batch.models["reference"]
    ratio = (policy.logps - reference.logps).sum(-1).exp().clamp(1 / 1.5, 1.5).detach()
    assert 0 < ((ratio == 1.5) | (ratio == 1 / 1.5)).sum() < ratio.numel()
    expected = -0.5 * ratio[:, 0] * (1 - batch.columns["win_rate"][:, 0]) / len(slope)
    torch.testing.assert_close(slope[:, 0, 0], expected)


def test_drpo_reads_one_response_of_a_pair_alone_and_both_on_average() -> None:
    first, (both, pair) = build("drpo", halves="first"), samples()
    losses = []
    for noise, read, unread in ((0.25, 0, 1), (0.75, 1, 0)):
        pair.columns["pair_noise"] = torch.full((len(pair.mask),), noise, dtype=DOUBLE)
        losses.append(first.loss(pair))
        slope = slope_of(losses[-1], pair)
        assert slope[:, read].abs().max() > 0 and slope[:, unread].abs().max() == 0
    torch.testing.assert_close(sum(losses) / 2, both.loss(pair))


def test_a_baseline_moves_only_the_samples_pull() -> None:
    (plain, batch), (lower, _) = samples(), samples(baseline=0.5)
    first, second = (slope_of(one.loss(batch), batch) for one in (plain, lower))
    torch.testing.assert_close(first[:, :2], second[:, :2])
    torch.testing.assert_close(second[:, 2] - first[:, 2], 0.5 * batch.mask[:, 2].double() / len(first))


def test_the_estimate_of_the_references_own_policy_is_one_half() -> None:
    reference = random(4).softmax(-1)
    logits = random(4, 4, seed=1)
    antisymmetric = torch.sigmoid(logits - logits.T)
    torch.testing.assert_close(
        total_preference(reference, reference, antisymmetric), torch.tensor(0.5, dtype=DOUBLE)
    )
    pairs = torch.tensor([[0, 1, 1], [3, 2, 0], [1, 1, 1]])
    blind = torch.full((4, 4), 0.5, dtype=DOUBLE)
    torch.testing.assert_close(
        doubly_robust_values(reference, reference, blind, pairs), torch.full((3,), 0.5, dtype=DOUBLE)
    )
