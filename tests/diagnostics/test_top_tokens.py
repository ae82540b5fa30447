from __future__ import annotations

import math

import pytest
import torch

from prefero.models.top_tokens import top_tokens


def logits(count: int = 4, vocabulary: int = 12) -> torch.Tensor:
    return 3 * torch.randn(count, vocabulary, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_whole_vocabulary_is_the_whole_distribution() -> None:
    for k in (12, 50):
        found = top_tokens(logits(), k)
        entropy = torch.special.entr(logits().softmax(-1)).sum(-1)
        torch.testing.assert_close(found.mass, torch.ones(4, dtype=torch.float64))
        torch.testing.assert_close(found.entropy, entropy)
        torch.testing.assert_close(found.renormalised_entropy, entropy)


def test_uniform_and_certain_distributions() -> None:
    even = top_tokens(torch.zeros(1, 10), 4)
    assert float(even.mass) == pytest.approx(0.4)
    assert float(even.renormalised_entropy) == pytest.approx(math.log(4))
    assert float(even.entropy) == pytest.approx(0.4 * math.log(10))
    certain = top_tokens(torch.tensor([[0.0, -torch.inf, -torch.inf]]), 2)
    assert [float(one) for one in (certain.mass, certain.entropy, certain.renormalised_entropy)] == [1, 0, 0]


def test_the_entropy_is_of_the_probabilities_as_they_are() -> None:
    top = logits().softmax(-1).topk(5).values
    found = top_tokens(logits(), 5)
    torch.testing.assert_close(found.entropy, torch.special.entr(top).sum(-1))
    shares = top / top.sum(-1, keepdim=True)
    torch.testing.assert_close(found.renormalised_entropy, torch.special.entr(shares).sum(-1))


def test_mass_grows_with_k_and_with_sharpness_and_evenness_falls_with_sharpness() -> None:
    masses = torch.stack([top_tokens(logits(), k).mass for k in range(1, 13)])
    assert (masses.diff(dim=0) >= 0).all()
    plain, sharp = top_tokens(logits(), 5), top_tokens(2 * logits(), 5)
    assert (sharp.mass > plain.mass).all()
    assert (sharp.renormalised_entropy < plain.renormalised_entropy).all()
