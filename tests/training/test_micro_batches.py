"""A micro-batch stays one object on its way through PyTorch's, accelerate's and transformers' loops."""

from __future__ import annotations

import os
import pickle
import socket
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import DataLoaderConfiguration, gather_object, send_to_device
from torch import Tensor
from torch.utils.data import DataLoader

from prefero.data.trie import Cell, TokenExample
from prefero.models.kind import PackedBatching
from prefero.training.batches import Collator, DrawnItems, MicroBatch, RankBatches, StepPlan
from prefero.training.trainer import PreferenceTrainer
from tests.language import LANGUAGE
from tests.processes import run_workers

COUNT = 12


def examples() -> list[TokenExample]:
    cells = [
        tuple(Cell(np.array([1, 2]), np.arange(2, 4 + index % 3 + r)) for r in range(2))
        for index in range(COUNT)
    ]
    return [TokenExample(pair, {"score": np.array([1.0, 0.0])}, index) for index, pair in enumerate(cells)]


def loader(workers: int = 0) -> DataLoader:
    plan = StepPlan(COUNT, PackedBatching([4] * COUNT), examples_per_step=4, tokens_per_row=8)
    reference = {"reference": lambda cells: np.zeros((len(cells), 2, 6), np.float32)}
    collate = Collator(LANGUAGE, ["score", "noise"], cached=reference if workers == 0 else {})
    data: Any = examples()
    return DataLoader(
        DrawnItems(data), batch_sampler=RankBatches(plan), collate_fn=collate, num_workers=workers
    )


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors inside a micro-batch, in order."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        for part in fields(value):
            yield from tensors(getattr(value, part.name))
    elif isinstance(value, dict):
        for inner in value.values():
            yield from tensors(inner)


def same(one: MicroBatch, other: MicroBatch) -> bool:
    pairs = zip(tensors(one), tensors(other), strict=True)
    return one.weight == other.weight and all(torch.equal(mine, its) for mine, its in pairs)


def test_every_tensor_goes_to_the_device() -> None:
    batch = next(iter(loader()))
    assert len(batch) == 2 and len(batch.inputs) > 0 and len(list(tensors(batch))) > 10
    for move in (batch.to, lambda device: send_to_device(batch, device, non_blocking=True)):
        moved = move("meta")
        assert isinstance(moved, MicroBatch) and moved.weight == batch.weight
        assert all(tensor.device.type == "meta" for tensor in tensors(moved))
    assert all(tensor.device.type == "cpu" for tensor in tensors(batch)), "the first one stays"


def test_it_comes_whole_out_of_worker_processes_and_pickles() -> None:
    expected = [batch.columns["noise"] for batch in loader()]
    for batch, noise in zip(loader(workers=1), expected, strict=True):
        assert isinstance(batch, MicroBatch) and torch.equal(batch.columns["noise"], noise)
        assert same(pickle.loads(pickle.dumps(batch)), batch)


def test_skipping_what_was_trained_leaves_the_rest() -> None:
    whole = list(loader())
    rest = list(skip_first_batches(loader(), 4))
    assert len(rest) == len(whole) - 4
    assert all(same(one, other) for one, other in zip(rest, whole[4:], strict=True))


def passes_through_accelerate(rank: int, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    accelerator = Accelerator(
        cpu=True, dataloader_config=DataLoaderConfiguration(even_batches=False, dispatch_batches=False)
    )
    assert accelerator.num_processes == 2
    whole = list(loader())
    prepared = accelerator.prepare(loader())
    mine = list(prepared)
    assert len(mine) == len(whole) // 2
    assert all(same(one, other) for one, other in zip(mine, whole[rank::2], strict=True))
    rest = list(skip_first_batches(prepared, 1))
    assert all(same(one, other) for one, other in zip(rest, mine[1:], strict=True))
    everyone = gather_object(mine)
    order = [*whole[::2], *whole[1::2]]
    assert all(same(one, other) for one, other in zip(everyone, order, strict=True))


def test_two_processes_of_accelerate_pass_it_through() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run_workers(passes_through_accelerate, port)


@pytest.mark.parametrize(
    "options", [{}, {"dataloader_num_workers": 1}, {"include_num_input_tokens_seen": "no"}]
)
def test_the_training_loop_gets_micro_batches(
    trainer: Callable[..., PreferenceTrainer], options: dict[str, Any]
) -> None:
    run = trainer(max_steps=1, tokens_per_row=30, **options)
    seen: list[MicroBatch] = []
    begin = run.update.begin
    run.update.begin = lambda batches: (seen.extend(batches), begin(batches))[1]  # type: ignore[method-assign]
    run.train()
    assert len(seen) == run.plan.micro_batches and all(isinstance(batch, MicroBatch) for batch in seen)
    assert sum(len(batch) for batch in seen if batch.weight) == 6
    assert run.state.total_flos == 0, "several models, and some more than once: nothing is claimed"
