"""Fully sharded data parallelism (FSDP2) by ``fully_shard``, on any device; accelerate's needs an
accelerator.

The units are those that accelerate makes: each layer, the embedding, the norm and head together, and the
root. Where the embedding is the head, both stay with the root.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from prefero.errors import PreferoError
from prefero.models.loading import unwrapped

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def shard(model: nn.Module, device: torch.device) -> None:
    """Shard ``model`` in place over all processes."""
    inner: Any = unwrapped(model)
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    layers = set(getattr(inner, "_no_split_modules", None) or ())
    units = [module for module in inner.modules() if type(module).__name__ in layers]
    if not units:
        raise PreferoError(
            f"{type(inner).__name__} does not say what its layers are, so it cannot be sharded; "
            "leave training.parallel out"
        )
    for layer in units:
        fully_shard(layer, mesh=mesh)
    embedding, head = inner.get_input_embeddings(), inner.get_output_embeddings()
    if head is not None and head.weight is not embedding.weight:
        fully_shard(embedding, mesh=mesh)
        norm = getattr(inner.base_model, "norm", None)
        last = [norm, head] if isinstance(norm, nn.Module) else [head]
        fully_shard(last, mesh=mesh, reshard_after_forward=False)
    fully_shard(model, mesh=mesh)


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def whole_state(model: nn.Module) -> dict[str, Any]:
    """The state with whole tensors, on the main process; all processes have to call it. Tied weights are in
    it once."""
    state = get_model_state_dict(model, options=_WHOLE)
    seen: set[int] = set()
    for name, weight in model.named_parameters(remove_duplicate=False):
        if id(weight) in seen:
            state.pop(name, None)
        seen.add(id(weight))
    return state


def whole_trained(model: nn.Module) -> dict[str, Tensor]:
    """The weights that are trained, whole; all processes have to call it."""
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    return {name: whole(weight.detach()).cpu().contiguous() for name, weight in trained.items()}


def load_whole_state(model: nn.Module, state: dict[str, Any]) -> None:
    set_model_state_dict(model, state, options=StateDictOptions(full_state_dict=True, strict=False))


def save_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, file: Path, *, main: bool) -> None:
    """Save whole tensors under parameter names; all processes have to take part, the main one writes."""
    state = get_optimizer_state_dict(model, optimizer, options=_WHOLE)
    if main:
        torch.save(state, file)


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, file: Path) -> None:
    state = torch.load(file, map_location="cpu", weights_only=True)
    set_optimizer_state_dict(model, optimizer, state, options=StateDictOptions(full_state_dict=True))


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded; all processes have to call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def saved_weights(checkpoint: Path, model: nn.Module) -> dict[str, Tensor]:
    """The weights that ``save_pretrained`` wrote of ``model``, ready for ``load_state_dict``.

    Families whose files have other names and shapes than the model (experts, one file entry each) are read as
    ``from_pretrained`` reads them. Raises :class:`PreferoError` if a weight of the model is missing.
    """
    state: dict[str, Tensor] = {}
    for file in sorted(checkpoint.glob("*model*.safetensors")):
        state |= load_file(file)
    if _missing(state, model):
        state = _converted(checkpoint, model)
    if missing := _missing(state, model):
        raise PreferoError(f"{checkpoint} lacks {len(missing)} weights of the model, such as {missing[0]}")
    return state


def _missing(state: dict[str, Tensor], model: nn.Module) -> list[str]:
    """Weights that are not in the state under any of their names."""
    names: dict[int, list[str]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(weight), []).append(name)
    return [aliases[0] for aliases in names.values() if not any(name in state for name in aliases)]


def _converted(checkpoint: Path, model: nn.Module) -> dict[str, Tensor]:
    loaded: Any = _family(model).from_pretrained(checkpoint, dtype=model.dtype)
    return loaded.state_dict()


def _family(model: nn.Module) -> type[PreTrainedModel]:
    """The model's own class; sharding derives another one from it."""
    return next(
        kind
        for kind in type(model).__mro__
        if issubclass(kind, PreTrainedModel) and not issubclass(kind, FSDPModule)
    )
