"""A denoiser, to be loaded or in memory, with its scheduler, its pipeline, and its adapters on disk."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from torch import nn

from prefero.errors import PreferoError, nearest
from prefero.hub import hub_access, without_hub
from prefero.models.loading import PEFT_PREFIX, ModelSource, first_line, unwrapped


def write_lora(model: PeftModel, pipeline: Any, folder: Path) -> None:
    """Write ``pytorch_lora_weights.safetensors``, with the adapters' scale, for
    ``pipeline.load_lora_weights``. Adapters that are no low-rank ones, and whole modules beside them, are
    left to PEFT's own files."""
    config = model.active_peft_config
    if config.peft_type != "LORA" or config.modules_to_save:
        return
    part = denoiser_of(pipeline)
    layers = {
        name.removeprefix(PEFT_PREFIX): value for name, value in get_peft_model_state_dict(model).items()
    }
    pipeline.save_lora_weights(
        folder, **{f"{part}_lora_layers": layers, f"{part}_lora_adapter_metadata": config.to_dict()}
    )


PARTS = ("transformer", "unet")
"""The names of a pipeline's denoiser."""


def library() -> Any:
    """diffusers, which the extra ``diffusion`` brings."""
    try:
        return importlib.import_module("diffusers")
    except ImportError:
        raise PreferoError("diffusion models need diffusers: pip install 'prefero[diffusion]'") from None


class DenoiserSource:
    """A denoiser that is not loaded yet, and everything beside it: its ``config``, the ``scheduler`` that it
    was trained with, and a ``pipeline`` of the rest; None for models of pixels without a text encoder."""

    def __init__(
        self,
        source: ModelSource,
        *,
        scheduler: str | Mapping[str, Any] | None = None,
        pipeline: str | None = None,
        variant: str | None = None,
    ) -> None:
        self.source, self.variant = source, variant
        if source.quantization is not None:
            raise PreferoError(
                "model.quantization is for language models; a denoiser is trained with model.lora in bfloat16"
            )
        _, self.config = place_of(source)
        index = _config("DiffusionPipeline", source.name, source.revision)
        self._pipeline_name = pipeline or (source.name if index is not None else None)
        self.scheduler = made_scheduler(scheduler) if scheduler is not None else self._own_scheduler()

    @property
    def name(self) -> str:
        return self.source.name

    def load(self) -> nn.Module:
        """Raise :class:`PreferoError` for weights that are missing or do not fit."""
        return loaded(self.source, self.variant)

    @cached_property
    def pipeline(self) -> Any:
        """In the denoiser's precision."""
        if self._pipeline_name is None:
            return None
        name, revision = self._pipeline_name, self.source.revision
        index = _config("DiffusionPipeline", name, revision if name == self.name else None)
        if index is None:
            reason = without_hub(name, "pipeline") or "it has no model_index.json"
            raise PreferoError(f"{name!r} is no pipeline: {reason}")
        left_out: dict[str, Any] = {part: None for part in PARTS if part in index}
        if "safety_checker" in index:
            left_out |= {"safety_checker": None, "requires_safety_checker": False}
        dtype = torch.float32 if self.source.dtype == "auto" else getattr(torch, self.source.dtype)
        try:
            with hub_access(name):
                pipeline = library().DiffusionPipeline.from_pretrained(
                    name,
                    dtype=dtype,
                    revision=revision if name == self.name else None,
                    variant=self.variant,
                    **left_out,
                )
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise PreferoError(
                f"no pipeline can be loaded from {name!r}: {_reason(error, name, 'pipeline')}"
            ) from None
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _own_scheduler(self) -> Any:
        places = ((self.name, "scheduler"), (self.name, None), (self._pipeline_name, "scheduler"))
        for name, subfolder in places:
            if name is not None:
                revision = self.source.revision if name == self.name else None
                config = _config("DDPMScheduler", name, revision, subfolder)
                if config is not None:
                    return made_scheduler({"name": config["_class_name"], **config})
        raise PreferoError(
            f"{self.name!r} has no scheduler, which says how it was trained: name one with "
            "model.options.scheduler (a class of diffusers such as DDPMScheduler, with its arguments, or a "
            "folder or hub name), or the pipeline that it belongs to with model.options.pipeline"
        )


class LoadedDenoiser:
    """The same for a denoiser in memory; ``beside`` is its pipeline or its scheduler."""

    def __init__(
        self, model: nn.Module, beside: Any = None, *, scheduler: str | Mapping[str, Any] | None = None
    ) -> None:
        self.model = model
        self.config: Mapping[str, Any] = {"_class_name": type(bare(model)).__name__, **bare(model).config}
        self.name = str(self.config.get("_name_or_path") or "")
        is_pipeline = isinstance(beside, library().DiffusionPipeline)
        self.pipeline = beside if is_pipeline else None
        own = beside.scheduler if is_pipeline else beside
        if scheduler is not None:
            own = made_scheduler(scheduler)
        if own is None:
            raise PreferoError(
                f"a {self.config['_class_name']} says nothing of the noise that it was trained with: give "
                "its scheduler or its pipeline as processing_class"
            )
        self.scheduler = own

    def load(self) -> nn.Module:
        return self.model


def bare(model: nn.Module) -> Any:
    """The denoiser inside adapters and wrappers."""
    inner = unwrapped(model)
    if not hasattr(inner, "register_to_config"):
        raise PreferoError(f"{type(inner).__name__} is no model of diffusers, nor a wrapper of one")
    return inner


def loaded(source: ModelSource, variant: str | None = None) -> nn.Module:
    """The denoiser alone. Raises :class:`PreferoError` for weights that are missing or do not fit."""
    subfolder, config = place_of(source)
    family = str(config["_class_name"])
    try:
        with hub_access(source.name):
            return getattr(library(), family).from_pretrained(
                source.name,
                subfolder=subfolder,
                dtype=None if source.dtype == "auto" else getattr(torch, source.dtype),
                revision=source.revision,
                variant=variant,
            )
    except (OSError, ValueError, KeyError) as error:
        reason = _reason(error, source.name, "denoiser")
        raise PreferoError(f"no {family} can be loaded from {source.name!r}: {reason}") from None


def _reason(error: Exception, name: str, what: str) -> str:
    """Why something cannot be loaded, in words."""
    away = without_hub(name, what) if isinstance(error, OSError) else ""
    return away or first_line(error)


def place_of(source: ModelSource) -> tuple[str | None, Mapping[str, Any]]:
    """The folder of the denoiser, and its configuration. Raises :class:`PreferoError` where there is none."""
    for subfolder in (None, *PARTS):
        config = _config("UNet2DModel", source.name, source.revision, subfolder)
        if config is not None and "_class_name" in config:
            family = str(config["_class_name"])
            if not hasattr(library(), family):
                raise PreferoError(f"{source.name!r} is a {family}, which diffusers does not have")
            return subfolder, config
    reason = without_hub(source.name, "denoiser") or (
        "it is neither a folder nor a hub name of a pipeline (model_index.json) or a model (config.json with "
        "_class_name) of diffusers"
    )
    raise PreferoError(f"no denoiser can be loaded from {source.name!r}: {reason}")


def is_pipeline(name: str) -> bool:
    """Whether a folder or hub name is that of a whole pipeline."""
    return _config("DiffusionPipeline", name) is not None


def denoiser_of(pipeline: Any) -> str:
    """The name of a pipeline's denoiser."""
    return next(part for part in PARTS if part in pipeline.components)


def made_scheduler(given: str | Mapping[str, Any]) -> Any:
    """A scheduler by its class's name, by a mapping with it as ``name`` and arguments, or by a folder or hub
    name. Raises :class:`PreferoError` for none such, and for arguments that it does not take."""
    arguments = dict(given) if isinstance(given, Mapping) else {"name": given}
    name = str(arguments.pop("name", ""))
    known = [
        found for found in dir(library()) if found.endswith("Scheduler") and not found.startswith("Flax")
    ]
    if name not in known:
        # no look-up on the hub for a class that is misspelt
        for subfolder in ("scheduler", None) if "/" in name or Path(name).is_dir() else ():
            config = _config("DDPMScheduler", name, None, subfolder)
            if config is not None:
                return made_scheduler({"name": config["_class_name"], **config, **arguments})
        away = without_hub(name, "scheduler") if "/" in name else ""
        raise PreferoError(
            f"model.options.scheduler {name!r} is neither a scheduler of diffusers{nearest(name, known)} nor "
            f"a folder or hub name with one{away and f': {away}'}"
        )
    try:
        return getattr(library(), name).from_config(arguments)
    except (TypeError, ValueError) as error:
        raise PreferoError(f"model.options.scheduler: {name}: {first_line(error)}") from None


def _config(
    family: str, name: str, revision: str | None = None, subfolder: str | None = None
) -> Mapping[str, Any] | None:
    """The configuration that a class of diffusers finds there, or None."""
    try:
        with hub_access(name):
            return getattr(library(), family).load_config(name, revision=revision, subfolder=subfolder)
    except (OSError, ValueError):
        return None
