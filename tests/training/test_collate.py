"""A micro-batch is made of its examples alone: columns filled up, noise out of seed, epoch and example."""

from __future__ import annotations

import numpy as np
import torch

from prefero.data.schema import SCHEMA
from prefero.data.trie import Cell, TokenExample
from prefero.objectives.batch import PreferenceBatch, Signal, TokenLogps
from prefero.training.batches import Collator, Draw, collated, joined, mapped
from tests.language import LANGUAGE


def example(index: int, responses: int = 2, tokens: int = 3) -> TokenExample:
    cells = tuple(Cell(np.array([1, 2]), np.arange(2, 2 + tokens + r)) for r in range(responses))
    return TokenExample(cells, {"score": np.arange(responses, dtype=float), "tie": index == 0}, index)


def noise(name: str, index: int, *, epoch: int = 0, seed: int = 0, beside: int = 9) -> torch.Tensor:
    drawn = [(Draw(beside, epoch), example(beside, tokens=7)), (Draw(index, epoch), example(index))]
    return Collator(LANGUAGE, [name], seed=seed)(drawn).columns[name][1]


def test_noise_belongs_to_seed_epoch_and_example() -> None:
    for name in ("pair_noise", "noise"):
        first = noise(name, 3)
        cut = first[..., :5] if name == "noise" else first
        again = noise(name, 3, beside=8)
        assert torch.equal(cut, again[..., :5] if name == "noise" else again)
        for other in (noise(name, 4), noise(name, 3, epoch=1), noise(name, 3, seed=1)):
            assert not torch.equal(first, other)
    values = noise("noise", 3)[0, :3]
    assert ((values > 0) & (values < 1)).all()


def test_noise_columns_differ_from_each_other() -> None:
    columns = Collator(LANGUAGE, ["noise", "pair_noise"])([(Draw(1, 0), example(1))]).columns
    assert columns["noise"][0, 0, 0] != columns["pair_noise"][0]


def test_short_lists_are_filled_up() -> None:
    batch = Collator(LANGUAGE, ["score", "tie"])([(Draw(0, 0), example(0, 3)), (Draw(1, 0), example(1, 1))])
    torch.testing.assert_close(
        batch.columns["score"],
        torch.tensor([[0.0, 1.0, 2.0], [0.0, torch.nan, torch.nan]]),
        equal_nan=True,
    )
    assert batch.columns["tie"].tolist() == [True, False]
    assert batch.examples.tolist() == [0, 1] and batch.weight == 1
    ranks = collated([np.array([1, 0]), np.array([0])], SCHEMA["rank"])
    assert ranks.tolist() == [[1, 0], [0, -1]]


def test_a_dummy_weighs_nothing() -> None:
    assert Collator(LANGUAGE)([(Draw(0, 0, dummy=True), example(0))]).weight == 0


def batch(examples: int, responses: int, tokens: int, offset: float) -> PreferenceBatch:
    shape = (examples, responses, tokens)
    values = torch.arange(examples * responses * tokens, dtype=torch.float32).view(shape) + offset
    state = torch.ones(examples, responses, 4) * offset
    signals = {Signal("entropy"): values + 0.5, Signal("state", "example response"): state}
    logps = TokenLogps(values.requires_grad_(), torch.ones(shape, dtype=torch.bool), signals)
    columns = {"score": torch.ones(examples, responses) * offset, "tie": torch.tensor([True] * examples)}
    inner = PreferenceBatch({"policy": logps}, roles=())
    return PreferenceBatch({"policy": logps}, columns, (), {"mismatched": inner}, 0.25)


def test_joined_batches_keep_every_number_and_its_gradient() -> None:
    small, large = batch(2, 1, 2, 1.0), batch(1, 3, 4, 9.0)
    whole = joined([small, large])
    policy = whole.models["policy"]
    assert policy.logps.shape == (3, 3, 4) and whole.progress == 0.25
    assert torch.equal(policy.logps[:2, :1, :2], small.models["policy"].logps)
    assert not policy.mask[:2, 1:].any() and not policy.mask[:2, :, 2:].any() and policy.mask[2].all()
    assert whole.columns["score"][0].isnan().tolist() == [False, True, True]
    assert whole.views["mismatched"].models["policy"].signals[Signal("entropy")].shape == (3, 3, 4)
    assert policy.signals[Signal("state", "example response")].shape == (3, 3, 4)
    policy.logps[policy.mask].sum().backward()
    for part in (small, large):
        gradient = part.models["policy"].logps.grad
        assert gradient is not None and (gradient == 1).all()
    order = torch.tensor([2, 0])
    some = mapped(whole, lambda values: values[order])
    assert torch.equal(some.models["policy"].logps, policy.logps[order])
    assert torch.equal(some.columns["score"][0], whole.columns["score"][2])
    assert torch.equal(some.views["mismatched"].models["policy"].logps, policy.logps[order])
