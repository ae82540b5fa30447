"""Where models and what belongs to them are loaded from: a hub name or a folder, and how."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from prefero.errors import PreferoError, nearest
from prefero.models.discrete_diffusion.sampling import TimedMaskedConfig
from prefero.models.kind import Kind
from prefero.models.tabular.policy import TabularConfig


@dataclass(frozen=True)
class ModelSource:
    """A model that is not loaded yet: a hub name or a folder, and how to load it.

    ``quantization`` is ``"4bit"`` (NF4) or ``"8bit"``, which needs bitsandbytes. ``processor_name`` is where
    its tokenizer or processor is, if not beside it. Every method raises :class:`PreferoError` for what is not
    there or not what it should be.
    """

    name: str
    processor_name: str | None = None
    revision: str | None = None
    dtype: str = "float32"
    attention: str | None = None
    quantization: str | None = None
    trust_remote_code: bool = False

    @property
    def hub(self) -> dict[str, Any]:
        """What every ``from_pretrained`` is told."""
        return {"revision": self.revision or "main", "trust_remote_code": self.trust_remote_code}

    def processor(self, loader: str = "AutoTokenizer") -> Any:
        """By one of transformers' loaders."""
        name = self.processor_name or self.name
        what = loader.removeprefix("Auto").lower()
        try:
            return getattr(transformers, loader).from_pretrained(name, **self.hub)
        except (OSError, ValueError, KeyError) as error:
            raise PreferoError(
                f"no {what} can be loaded from {name!r} ({first_line(error)}); name one with model.{what}"
            ) from None

    def config(self) -> Any:
        """Its configuration, as transformers has it."""
        try:
            return transformers.AutoConfig.from_pretrained(self.name, **self.hub)
        except (OSError, ValueError, KeyError) as error:
            raise PreferoError(
                f"no model can be loaded from {self.name!r}: it is neither a folder with a config.json nor a "
                f"model of the hub ({first_line(error)})"
            ) from None

    def load(self, loader: str = "AutoModelForCausalLM", what: str = "causal language model") -> nn.Module:
        """By one of transformers' loaders; ``what`` it is, for messages."""
        options = self.hub
        if self.quantization is not None:
            options["quantization_config"] = _quantized(self.quantization)
        if self.attention is not None:
            options["attn_implementation"] = self.attention
        try:
            return getattr(transformers, loader).from_pretrained(self.name, dtype=self.dtype, **options)
        except (OSError, ValueError, KeyError) as error:
            raise PreferoError(f"no {what} can be loaded from {self.name!r}: {first_line(error)}") from None


def _quantized(kind: str) -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise PreferoError(f"model.quantization={kind} needs bitsandbytes: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def first_line(error: BaseException) -> str:
    """What an error says first."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


KINDS: Mapping[str, str] = {
    "language": "prefero.models.causal.scoring:Language",
    "encoder_decoder": "prefero.models.encoder_decoder.kind:EncoderDecoder",
    "diffusion": "prefero.models.diffusion.kind:Diffusion",
    "discrete_diffusion": "prefero.models.discrete_diffusion.kind:DiscreteDiffusion",
    "tabular": "prefero.models.tabular.kind:Tabular",
    "vision_language": "prefero.models.vision_language.kind:VisionLanguage",
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


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """The model without its adapters, for forwards inside this context.

    Only the flag that the layers read is set. PEFT's own ``disable_adapter`` also freezes the parameters,
    which sharded training remembers: adapters on the head would then not train.

    Raises:
        PreferoError: where the adapters cannot be taken off by the flag: merged ones, and whole modules that
            are trained beside them (``modules_to_save``). A cached or frozen reference serves both.
    """
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    if any(layer.merged for layer in layers):
        raise PreferoError("the adapters are merged into the weights: use a cached or a frozen reference")
    if any(isinstance(module, AuxiliaryTrainingWrapper) for module in model.modules()):
        raise PreferoError(
            "the adapter trains whole modules (modules_to_save), which switching adapters off would keep "
            "changed: use a cached or a frozen reference"
        )
    before = [layer._disable_adapters for layer in layers]
    try:
        for layer in layers:
            layer._disable_adapters = True
        yield
    finally:
        for layer, flag in zip(layers, before, strict=True):
            layer._disable_adapters = flag


def local_parts(model: nn.Module) -> dict[str, Tensor]:
    """The weights; of a sharded model this process's parts, also where a forward has left them whole."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    return dict(model.named_parameters())


def fill_parts(weight: Tensor, whole: Tensor) -> None:
    """``whole`` into a weight, or into this process's part of it."""
    whole = whole.to(weight.device, weight.dtype)
    if isinstance(weight, DTensor):
        whole = distribute_tensor(whole, weight.device_mesh, weight.placements)
    weight.copy_(whole)


def innermost(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside adapters and wrappers."""
    while not isinstance(model, PreTrainedModel):
        if isinstance(model, PeftModel):
            if model.active_peft_config.is_prompt_learning:
                raise PreferoError(
                    f"{model.active_peft_config.peft_type.value} adapters put virtual tokens before the "
                    f"prompt, which a shared prompt has no place for: use LoRA or another weight adapter"
                )
            model = model.get_base_model()
        elif isinstance(inside := getattr(model, "module", getattr(model, "_orig_mod", None)), nn.Module):
            model = inside
        else:
            raise PreferoError(f"{type(model).__name__} is not a transformers model, nor a wrapper of one")
    if model.get_output_embeddings() is None:
        raise PreferoError(
            f"{type(model).__name__} has no language-model head: load it with AutoModelForCausalLM"
        )
    return model


def zero_dropout(model: nn.Module) -> None:
    """No dropout from here on, in modules and where a forward reads its rate."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)
