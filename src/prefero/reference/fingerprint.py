"""What a model is, as one hash: two models with the same one give the same log-probabilities."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_CHUNK = 1 << 24
"""Numbers that are brought to the CPU at a time."""

_INCIDENTAL = {"_name_or_path", "transformers_version", "use_cache", "dtype", "torch_dtype", "architectures"}
"""Settings of a model's configuration that change no number."""


def model_fingerprint(model: nn.Module, *, adapters: bool = True, precision: str = "") -> str:
    """SHA-256 over the configuration and all weights of ``model``, dtype included.

    ``adapters=False`` leaves PEFT adapters out: the model as it is with its adapters switched off.
    ``precision`` names what else decides the arithmetic (autocast to bfloat16).
    """
    digest = hashlib.sha256(f"{type(_bare(model)).__name__} {precision}".encode())
    digest.update(json.dumps(_settings(model), sort_keys=True, default=str).encode())
    for name, tensor in _tensors(model, adapters):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().reshape(-1)
        for start in range(0, flat.numel(), _CHUNK):
            digest.update(_bytes(flat[start : start + _CHUNK]))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.cpu().contiguous().view(torch.uint8).numpy().data


def _tensors(model: nn.Module, adapters: bool) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the state, under the names they have without PEFT around them."""
    prefixes = tuple(_adapter_prefixes(model))
    for name, tensor in sorted(model.state_dict().items()):
        parts = name.split(".")
        if any(part.startswith(prefixes) for part in parts) if prefixes else False:
            if adapters:
                yield name, tensor
        else:
            bare = ".".join(part for part in parts if part != "base_layer")
            yield bare.removeprefix("base_model.model.") if _is_peft(model) else bare, tensor


def _is_peft(model: nn.Module) -> bool:
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def _adapter_prefixes(model: nn.Module) -> set[str]:
    if not _is_peft(model):
        return set()
    return {prefix for prefix in (getattr(model.base_model, "prefix", ""),) if prefix}


def _bare(model: nn.Module) -> Any:
    return model.get_base_model() if _is_peft(model) else model  # type: ignore[operator]


def _settings(model: nn.Module) -> dict[str, Any]:
    config = getattr(_bare(model), "config", None)
    content = config.to_dict() if config is not None else {}
    return {
        key: value
        for key, value in content.items()
        if key not in _INCIDENTAL and not key.startswith(("_attn", "_experts"))
    }
