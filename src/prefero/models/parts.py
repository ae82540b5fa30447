"""The weights of a model that may be sharded over processes, as this process has them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def parts(model: nn.Module) -> dict[str, Tensor]:
    """The weights; of a sharded model this process's parts, also where a forward has left them whole."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    return dict(model.named_parameters())


def fill(weight: Tensor, whole: Tensor) -> None:
    """``whole`` into a weight, or into this process's part of it."""
    whole = whole.to(weight.device, weight.dtype)
    if isinstance(weight, DTensor):
        whole = distribute_tensor(whole, weight.device_mesh, weight.placements)
    weight.copy_(whole)
