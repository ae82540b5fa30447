"""Adapters as diffusers' pipelines read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft import PeftModel
from peft.utils import get_peft_model_state_dict

from prefero.kinds.diffusion_source import denoiser_of

WRAPPED = "base_model.model."
"""What PEFT puts before the names of a model that it wraps."""


def write_lora(model: PeftModel, pipeline: Any, folder: Path) -> None:
    """``pytorch_lora_weights.safetensors``, with the adapters' scale: ``pipeline.load_lora_weights(folder)``
    draws as the policy does. Adapters that are no low-rank ones, and whole modules beside them, are left to
    PEFT's own files."""
    config = model.active_peft_config
    if config.peft_type != "LORA" or config.modules_to_save:
        return
    part = denoiser_of(pipeline)
    layers = {name.removeprefix(WRAPPED): value for name, value in get_peft_model_state_dict(model).items()}
    pipeline.save_lora_weights(
        folder, **{f"{part}_lora_layers": layers, f"{part}_lora_adapter_metadata": config.to_dict()}
    )
