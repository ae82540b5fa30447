"""Two processes that each score half of the examples take the single process's steps."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import peft
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from prefero.data.packing import pack
from prefero.models.causal.scoring import Language
from prefero.models.loading import adapters_off, innermost
from prefero.models.signals import SecondModel
from prefero.objectives.batch import Signal
from tests.models.brute_force import PAIRS, examples
from tests.models.causal.families import build
from tests.processes import run_workers

DIVERGENCE = Signal("forward_kl", against="reference")
BATCH = [*PAIRS, (5, (2, 11))]
CASES = ["untied", "tied", "second-model", "adapters", "adapters-on-head"]
WRAPPERS = ["ddp", "sharded", "sharded-head"]


def model_of(case: str, seed: int = 0) -> nn.Module:
    model = build("llama", tie_word_embeddings=case == "tied", seed=seed)
    if case.startswith("adapters"):
        targets = ["q_proj", "lm_head"] if case.endswith("head") else ["q_proj", "down_proj"]
        model = peft.get_peft_model(model, peft.LoraConfig(target_modules=targets, init_lora_weights=False))
    Language.adapt(model)
    return model


def reference_of(case: str, model: nn.Module, wrapper: str | None) -> dict[str, SecondModel]:
    if case == "second-model":
        return {"reference": SecondModel(wrap(model_of(case, seed=5).requires_grad_(False), case, wrapper))}
    if case.startswith("adapters"):
        return {"reference": SecondModel(model, partial(adapters_off, model))}
    return {}


def wrap(model: nn.Module, case: str, wrapper: str | None) -> nn.Module:
    trains = any(parameter.requires_grad for parameter in model.parameters())
    if wrapper is None or (wrapper == "ddp" and not trains):
        return model
    if wrapper == "ddp":
        return DistributedDataParallel(model)
    mesh, inner = init_device_mesh("cpu", (2,)), innermost(model)
    for layer in inner.model.layers:
        fully_shard(layer, mesh=mesh)
    if wrapper == "sharded-head" and case != "tied":
        fully_shard([inner.model.norm, inner.lm_head], mesh=mesh, reshard_after_forward=False)
    return fully_shard(model, mesh=mesh)


def loss_of(model: nn.Module, batch, others: dict[str, SecondModel]) -> torch.Tensor:
    scored = Language.score(model, pack(batch), frozenset({DIVERGENCE} if others else ()), others=others)[""]
    margin = scored.logps.sum(-1).diff(dim=-1)
    loss = nn.functional.softplus(margin).sum() / len(BATCH)
    for values in scored.signals.values():
        loss = loss + 0.1 * values.sum() / len(BATCH)
    return loss


def train(model: nn.Module, case: str, wrapper: str | None, batch, scale: int) -> None:
    model = wrap(model, case, wrapper)
    others = reference_of(case, model, wrapper)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for _ in range(2):
        (loss_of(model, batch, others) * scale).backward()
        optimizer.step()
        optimizer.zero_grad()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    batch = examples(*BATCH)[rank::2]
    for wrapper in WRAPPERS:
        for case in CASES:
            model = model_of(case)
            train(model, case, wrapper, batch, scale=2)
            parameters = {name: whole(parameter) for name, parameter in model.named_parameters()}
            if rank == 0:
                torch.save(parameters, folder / f"{wrapper} {case}")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("two_processes")
    run_workers(worker, path)
    return path


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_two_processes_take_the_same_steps(wrapper: str, case: str, folder: Path) -> None:
    found = torch.load(folder / f"{wrapper} {case}", weights_only=True)
    model = model_of(case)
    before = copy.deepcopy(dict(model.named_parameters()))
    train(model, case, None, examples(*BATCH), scale=1)
    expected = dict(model.named_parameters())
    with torch.no_grad():
        assert max(float((expected[name] - before[name]).abs().max()) for name in expected) > 1e-3
        for name, parameter in expected.items():
            assert (parameter - found[name]).abs().max() < 2e-6, name
