"""What a run begins with: a tokenizer, a model that scores forests, and tokenised data."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from prefero.data.examples import Examples
from prefero.data.formats import load_examples
from prefero.data.tokenize import TokenDataset, tokenize
from prefero.errors import PreferoError
from prefero.objectives.needs import Needs

DEFAULT_MAX_LENGTH = 1024


@dataclass(frozen=True)
class ModelSource:
    """A causal language model that is not loaded yet: a hub name or a folder, and how to load it.

    ``quantization`` is ``"4bit"`` (NF4) or ``"8bit"``, which needs bitsandbytes. Every method raises
    :class:`PreferoError` for what is not there or not what it should be.
    """

    name: str
    tokenizer_name: str | None = None
    revision: str | None = None
    dtype: str = "float32"
    attention: str | None = None
    quantization: str | None = None
    trust_remote_code: bool = False

    @property
    def _hub(self) -> dict[str, Any]:
        return {"revision": self.revision or "main", "trust_remote_code": self.trust_remote_code}

    def tokenizer(self) -> PreTrainedTokenizerBase:
        name = self.tokenizer_name or self.name
        try:
            return AutoTokenizer.from_pretrained(name, **self._hub)
        except (OSError, ValueError, KeyError) as error:
            raise PreferoError(
                f"no tokenizer can be loaded from {name!r} ({_first_line(error)}); name one with "
                "model.tokenizer"
            ) from None

    def config(self) -> Any:
        try:
            return AutoConfig.from_pretrained(self.name, **self._hub)
        except (OSError, ValueError, KeyError) as error:
            raise PreferoError(
                f"no model can be loaded from {self.name!r}: it is neither a folder with a config.json nor a "
                f"model of the hub ({_first_line(error)})"
            ) from None

    def load(self) -> nn.Module:
        options = self._hub
        if self.quantization is not None:
            options["quantization_config"] = _quantized(self.quantization)
        if self.attention is not None:
            options["attn_implementation"] = self.attention
        try:
            return AutoModelForCausalLM.from_pretrained(self.name, dtype=self.dtype, **options)
        except (OSError, ValueError, KeyError) as error:
            raise PreferoError(
                f"no causal language model can be loaded from {self.name!r}: {_first_line(error)}"
            ) from None


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


def with_adapters(model: nn.Module, adapter: Any) -> nn.Module:
    """The model with the adapters of a PEFT configuration, its own weights fixed."""
    from peft import get_peft_model, prepare_model_for_kbit_training

    if getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    try:
        return get_peft_model(model, adapter)
    except ValueError as error:
        raise PreferoError(f"the adapters do not fit this model: {_first_line(error)}") from None


def context_length(config: Any) -> int | None:
    """How many positions the model has, where it says so."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length"):
        if isinstance(value := getattr(text, name, None), int):
            return value
    return None


def length_limit(wanted: int | None, config: Any) -> int:
    """``max_length``: as wanted, or 1024, or the model's context where that is less.

    Raises :class:`PreferoError` for more than the model has positions.
    """
    context = context_length(config)
    if wanted is None:
        return min(DEFAULT_MAX_LENGTH, context or DEFAULT_MAX_LENGTH)
    if context is not None and wanted > context:
        raise PreferoError(
            f"max_length is {wanted}, but the model has {context} positions (max_position_embeddings): lower "
            "max_length, or take a model with a longer context"
        )
    return wanted


def token_dataset(
    source: Any,
    tokenizer: PreTrainedTokenizerBase,
    needs: Needs,
    *,
    max_length: int,
    seed: int = 0,
    method: str = "",
    **reading: Any,
) -> TokenDataset:
    """Preference data in any form, as an objective reads them.

    ``source`` is a path, a hub name, a ``datasets.Dataset``, rows, examples, or what this function returned
    before; ``reading`` are options of :func:`prefero.data.formats.load_examples`. Raises
    :class:`PreferoError` for data that cannot be read or do not have what the objective needs.
    """
    if isinstance(source, TokenDataset):
        _refuse_other_reading(source, needs, method)
        return source
    examples = source if isinstance(source, Examples) else load_examples(source, **reading)
    return tokenize(
        examples,
        tokenizer,
        roles=needs.roles,
        columns=needs.columns,
        max_length=max_length,
        views={view: need.roles for view, need in needs.views.items()},
        seed=seed,
        for_method=method,
    )


def _refuse_other_reading(data: TokenDataset, needs: Needs, method: str) -> None:
    first = data[0]
    missing = [view for view in needs.views if view not in first.views]
    if data.roles != needs.roles or missing:
        raise PreferoError(
            f"the data were tokenised for the roles {data.roles or 'none'} and the views "
            f"{list(first.views)}, but {method or 'the objective'} reads {needs.roles or 'lists'} and "
            f"{list(needs.views)}: give the examples themselves"
        )


def refuse_long_ids(data: TokenDataset, vocabulary: int | None) -> None:
    """Raise :class:`PreferoError` if the data hold token ids that the model does not have."""
    if vocabulary is None:
        return
    largest = max(int(max(c.context.max(), c.response.max())) for example in data for c in example.cells)
    if largest >= vocabulary:
        raise PreferoError(
            f"the tokenizer gives the token {largest}, but the model has {vocabulary}: they do not belong "
            "together; name the model's own tokenizer"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
