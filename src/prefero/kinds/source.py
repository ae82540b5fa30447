"""Where models and what belongs to them are loaded from: a hub name or a folder, and how."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn

from prefero.errors import PreferoError


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
