"""Mass and evenness of the likeliest tokens, which monitors watch for over-optimisation."""

from __future__ import annotations

import math

import pytest
import torch

from prefero.models.signals import entropy, top_k_entropy, top_k_mass


def logps(sharpness: float = 1.0, count: int = 4, vocabulary: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(count, vocabulary, generator=generator, dtype=torch.float64)
    return (sharpness * logits).log_softmax(-1)


def test_the_whole_vocabulary_is_the_whole_distribution() -> None:
    whole = torch.special.entr(logps().exp()).sum(-1)
    torch.testing.assert_close(entropy(logps()), whole)
    for k in (12, 50):
        torch.testing.assert_close(top_k_mass(logps(), k), torch.ones(4, dtype=torch.float64))
        torch.testing.assert_close(top_k_entropy(logps(), k), whole)


def test_uniform_and_certain_distributions() -> None:
    even = torch.zeros(1, 10).log_softmax(-1)
    assert float(top_k_mass(even, 4)) == pytest.approx(0.4)
    assert float(top_k_entropy(even, 4)) == pytest.approx(math.log(4))
    assert float(entropy(even[:, :4])) == pytest.approx(0.4 * math.log(10)), "the part of these four"
    certain = torch.tensor([[0.0, -torch.inf, -torch.inf]])
    assert float(top_k_mass(certain, 2)) == 1
    assert float(top_k_entropy(certain, 2)) == float(entropy(certain)) == 0


def test_a_ruled_out_token_leaves_the_gradient_of_the_entropy_finite() -> None:
    logits = torch.tensor([1.0, 0.0, -torch.inf], requires_grad=True)
    entropy(logits.log_softmax(-1)).backward()
    assert logits.grad is not None and logits.grad[:2].isfinite().all()


def test_the_renormalised_entropy_is_of_shares() -> None:
    top = logps().exp().topk(5).values
    shares = top / top.sum(-1, keepdim=True)
    torch.testing.assert_close(top_k_entropy(logps(), 5), torch.special.entr(shares).sum(-1))


def test_mass_grows_with_k_and_with_sharpness_and_evenness_falls_with_sharpness() -> None:
    masses = torch.stack([top_k_mass(logps(), k) for k in range(1, 13)])
    assert (masses.diff(dim=0) >= 0).all()
    assert (top_k_mass(logps(2.0), 5) > top_k_mass(logps(), 5)).all()
    assert (top_k_entropy(logps(2.0), 5) < top_k_entropy(logps(), 5)).all()
