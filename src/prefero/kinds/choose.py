"""Which kind of model a model is."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from prefero.errors import PreferoError, nearest
from prefero.kinds.kind import Kind
from prefero.kinds.source import ModelSource
from prefero.models.tabular import TabularConfig
from prefero.models.timed_masked import TimedMaskedConfig

KINDS: Mapping[str, str] = {
    "language": "prefero.kinds.language:Language",
    "encoder_decoder": "prefero.kinds.encoder_decoder:EncoderDecoder",
    "diffusion": "prefero.kinds.diffusion:Diffusion",
    "discrete_diffusion": "prefero.kinds.discrete_diffusion:DiscreteDiffusion",
    "tabular": "prefero.kinds.tabular:Tabular",
    "vision_language": "prefero.kinds.vision_language:VisionLanguage",
}
"""Where each kind is; loaded when it is asked for."""


def kind_of(
    kind: str | Kind,
    model: ModelSource | nn.Module,
    processor: Any = None,
    options: Mapping[str, Any] | None = None,
) -> Kind:
    """The kind of that name for a model, or with ``"auto"`` the one that its configuration tells.

    Raises :class:`PreferoError` for an unknown name, and where the configuration tells none.
    """
    if isinstance(kind, Kind):
        return kind
    name = _told(model) if kind == "auto" else kind
    if name not in KINDS:
        raise PreferoError(f"model.kind {name!r} is not known{nearest(name, KINDS)}: {', '.join(KINDS)}")
    module, _, found = KINDS[name].partition(":")
    chosen: type[Kind] = getattr(import_module(module), found)
    return chosen.of(model, processor, options)


def _told(model: ModelSource | nn.Module) -> str:
    if isinstance(model, ModelSource):
        return "diffusion" if _is_diffusers(model) else _of_transformers(model.config())
    while not isinstance(model, PreTrainedModel):
        if isinstance(model, PeftModel):
            model = model.get_base_model()
        elif type(model).__module__.startswith("diffusers."):
            return "diffusion"
        else:
            raise PreferoError(
                f"{type(model).__name__} is neither a model of transformers nor of diffusers: say which kind "
                f"of model it is, kind=… ({', '.join(KINDS)})"
            )
    return _of_transformers(model.config, type(model).__name__)


def _is_diffusers(source: ModelSource) -> bool:
    folder = Path(source.name)
    if folder.is_dir():
        config = folder / "config.json"
        written = config.read_text(encoding="utf-8") if config.is_file() else ""
        return (folder / "model_index.json").is_file() or '"_diffusers_version"' in written
    from huggingface_hub import file_exists
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        return file_exists(source.name, "model_index.json", revision=source.revision)
    except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError):
        return False  # whoever loads it says better what is wrong


def _of_transformers(config: Any, name: str | None = None) -> str:
    architecture = name or next(iter(getattr(config, "architectures", None) or ()), "")
    if isinstance(config, TabularConfig):
        return "tabular"
    if getattr(config, "is_encoder_decoder", False):
        return "encoder_decoder"
    if architecture.endswith("ForMaskedLM") or isinstance(config, TimedMaskedConfig):
        return "discrete_diffusion"
    if architecture == "LLaDAModelLM":  # a masked language model, whatever it calls itself
        return "discrete_diffusion"
    if getattr(config, "vision_config", None) is not None:
        return "vision_language"
    return "language"
