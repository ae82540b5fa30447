"""The weights in a checkpoint, under the names that the model itself has for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedModel

from prefero.errors import PreferoError


def saved_weights(checkpoint: Path, model: nn.Module) -> dict[str, Tensor]:
    """What ``save_pretrained`` wrote of ``model``, ready for ``load_state_dict``.

    Families whose files have other names and shapes than the model (experts, one file entry each) are read as
    ``from_pretrained`` reads them. Raises :class:`PreferoError` if a weight of the model is not there.
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
