from __future__ import annotations

from copy import deepcopy
from itertools import product

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from prefero.data.trie import Cell
from prefero.errors import PreferoError
from prefero.evaluate.divergence import divergence, divergences, sampled_divergence

WORDS, END = 5, 2


def model(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=WORDS,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    return LlamaForCausalLM(config).double().eval()


def cells(count: int, seed: int = 0) -> list[Cell]:
    rng = np.random.default_rng(seed)
    return [
        Cell(rng.integers(0, WORDS, rng.integers(1, 6)), rng.integers(0, WORDS, rng.integers(1, 8)))
        for _ in range(count)
    ]


def by_brute_force(policy: LlamaForCausalLM, reference: LlamaForCausalLM, cell: Cell) -> float:
    ids = torch.from_numpy(np.concatenate([cell.context, cell.response]))[None]
    with torch.no_grad():
        ours, theirs = (one(ids).logits[0].log_softmax(-1) for one in (policy, reference))
    at = slice(len(cell.context) - 1, -1)
    return float((ours.exp() * (ours - theirs))[at].sum())


@pytest.mark.parametrize("tokens_per_row", [1, 20, 4096])
def test_equal_to_brute_force_in_any_rows(tokens_per_row: int) -> None:
    policy, reference, responses = model(0), model(1), cells(12)
    found = divergences(policy, reference, responses, tokens_per_row=tokens_per_row)
    np.testing.assert_allclose(found, [by_brute_force(policy, reference, c) for c in responses], rtol=1e-6)
    assert min(found) > 0


def test_zero_from_itself_and_not_symmetric() -> None:
    policy, reference, responses = model(0), model(1), cells(12)
    assert divergence(policy, deepcopy(policy), responses).value == pytest.approx(0, abs=1e-6)
    there, back = divergences(policy, reference, responses), divergences(reference, policy, responses)
    assert not np.allclose(there, back)


def test_the_mean_over_samples_is_the_divergence_of_whole_responses() -> None:
    """The chain rule, over all responses of at most three tokens, weighted by their probability."""
    policy, reference, context = model(0), model(1), np.array([1, 3])
    responses = [
        np.array(words)
        for n in (1, 2, 3)
        for words in product(range(WORDS), repeat=n)
        if END not in words[:-1] and (n == 3 or words[-1] == END)
    ]
    ids = [torch.from_numpy(np.concatenate([context, response]))[None] for response in responses]

    def logp(one: LlamaForCausalLM) -> torch.Tensor:
        with torch.no_grad():
            rows = [one(i).logits[0, 1:-1].log_softmax(-1).gather(-1, i[0, 2:, None]).sum() for i in ids]
        return torch.stack(rows)

    ours, theirs = logp(policy), logp(reference)
    assert ours.exp().sum().item() == pytest.approx(1)
    exact = (ours.exp() * (ours - theirs)).sum().item()
    found = divergences(policy, reference, [Cell(context, response) for response in responses])
    assert (ours.exp() * torch.tensor(found)).sum().item() == pytest.approx(exact)


def test_dropout_is_off_and_the_mode_restored() -> None:
    policy, reference, responses = model(0), model(1), cells(4)
    expected = divergences(policy, reference, responses)
    policy.train()
    policy.model.layers[0].eval()
    before = [module.training for module in policy.modules()]
    assert divergences(policy, reference, responses) == expected
    assert [module.training for module in policy.modules()] == before


def test_too_few_responses_are_an_error() -> None:
    with pytest.raises(PreferoError, match="at least two responses; got 1"):
        divergence(model(0), model(1), cells(1))


def test_sampled_divergences_meet_the_exact_one() -> None:
    rng = np.random.default_rng(0)
    policy, reference = np.array([0.5, 0.3, 0.2]), np.array([0.3, 0.4, 0.3])
    exact = float((policy * np.log(policy / reference)).sum())
    drawn = rng.choice(3, 20_000, p=policy)
    ours, theirs = np.log(policy)[drawn].tolist(), np.log(reference)[drawn].tolist()
    plain = sampled_divergence(ours, theirs)
    positive = sampled_divergence(ours, theirs, estimator="positive")
    squared = sampled_divergence(ours, theirs, estimator="squared")
    assert exact in plain.interval
    assert exact in positive.interval
    assert squared.value == pytest.approx(exact, rel=0.15)
    assert positive.interval.high - positive.interval.low < plain.interval.high - plain.interval.low
    # an estimator of the other direction would give KL(reference || policy)
    other = float((reference * np.log(reference / policy)).sum())
    assert other not in positive.interval


def test_a_sampled_divergence_outlives_a_reference_that_never_says_it() -> None:
    found = sampled_divergence([-5.0, -5000.0], [-5000.0, -5.0], estimator="positive")
    assert np.isfinite(found.value)
    with pytest.raises(PreferoError, match="got 2 and 1"):
        sampled_divergence([1, 2], [1])
