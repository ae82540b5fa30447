"""What kinds of model have in common that read and write tokens of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from prefero.data.examples import Example, Examples, Text
from prefero.data.formats import load_examples
from prefero.data.images import ImagePrompts
from prefero.data.tokenize import TokenDataset, tokenize
from prefero.errors import PreferoError
from prefero.generate.sampling import contexts, sample
from prefero.models.kind import Kind, Reading, no_options
from prefero.models.loading import ModelSource, innermost
from prefero.objectives.needs import Needs

DEFAULT_MAX_LENGTH = 1024

SAMPLE_TOKENS = 128
"""Longest response of a sample, in tokens."""


class TextKind(Kind):
    """A model of transformers with a tokenizer. ``loader`` is the class of transformers that loads it,
    ``what`` its name for messages."""

    loader: str
    what: ClassVar[str]
    processor_loader: ClassVar[str] = "AutoTokenizer"
    usual_length: ClassVar[int] = DEFAULT_MAX_LENGTH
    """``max_length`` where none is given."""

    def __init__(self, config: Any, processor: Any, source: ModelSource) -> None:
        self.config, self.processor, self.source = config, processor, source
        self.model_name = source.name

    @classmethod
    def of(cls, model: Any, processor: Any = None, options: Mapping[str, Any] | None = None) -> Self:
        no_options(cls.name, options)
        return cls(*parts_of(model, processor, cls.processor_loader))

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.processor

    @property
    def canvas(self) -> int | None:
        """How many tokens responses are filled up to with end tokens, if they are."""
        return None

    @property
    def images(self) -> ImagePrompts | None:
        """What reads prompts that show images; None for a model that sees none."""
        return None

    def prepared(self, examples: Examples, needs: Needs, reading: Reading) -> Examples:
        """The examples with what the kind adds to them."""
        return examples

    def read(self, source: Any, needs: Needs, reading: Reading) -> TokenDataset:
        limit = length_limit(reading.max_length, self.config, self.usual_length)
        if isinstance(source, TokenDataset):
            _refuse_other_reading(source, needs, reading.method)
            data = source
        else:
            examples = source if isinstance(source, Examples) else load_examples(source, split=reading.split)
            data = tokenize(
                self.prepared(examples, needs, reading),
                self.tokenizer,
                roles=needs.roles,
                columns=needs.columns,
                max_length=limit,
                views={view: need.roles for view, need in needs.views.items()},
                seed=reading.seed,
                for_method=reading.method,
                images=self.images,
                canvas=self.canvas,
            )
        refuse_long_ids(data, getattr(self.config.get_text_config(), "vocab_size", None))
        return data

    def load(self) -> nn.Module:
        return self.source.load(self.loader, self.what)

    def other(self, name: str, dtype: torch.dtype) -> nn.Module:
        source = ModelSource(name, dtype=str(dtype).removeprefix("torch."))
        model = source.load(self.loader, self.what)
        self.adapt(model)
        return model

    def prompts(self, examples: Sequence[Example], count: int, max_length: int | None) -> list[Text]:
        """The first distinct prompts that leave room for a response."""
        limit = length_limit(max_length, self.config)
        found: list[Text] = []
        for example in examples:
            if len(found) == count:
                break
            if example.prompt in found:
                continue
            if len(contexts([example.prompt], self.tokenizer)[0]) <= limit - sample_tokens(limit):
                found.append(example.prompt)
        return found

    def sample(
        self, model: nn.Module, prompts: Sequence[Text], seed: int, max_length: int | None
    ) -> list[str]:
        generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
        longest = sample_tokens(length_limit(max_length, self.config))
        drawn = sample(model, self.tokenizer, prompts, generator=generator, max_new_tokens=longest)
        return [one.text for one in drawn]


def parts_of(model: Any, processor: Any, loader: str) -> tuple[Any, Any, ModelSource]:
    """Configuration, processor and source of a loaded model or of a source."""
    if isinstance(model, ModelSource):
        config = model.config()
        return config, processor or model.processor(loader), model
    config = innermost(model).config
    name = str(getattr(config, "_name_or_path", ""))
    return config, processor or ModelSource(name).processor(loader), ModelSource(name)


def context_length(config: Any) -> int | None:
    """How many positions the model has, where it says so."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length"):
        if isinstance(value := getattr(text, name, None), int):
            return value
    return None


def length_limit(wanted: int | None, config: Any, otherwise: int = DEFAULT_MAX_LENGTH) -> int:
    """``max_length``: as wanted, or ``otherwise``, or the model's context where that is less.

    Raises :class:`PreferoError` for more than the model has positions.
    """
    context = context_length(config)
    if wanted is None:
        return min(otherwise, context or otherwise)
    if context is not None and wanted > context:
        raise PreferoError(
            f"max_length is {wanted}, but the model has {context} positions (max_position_embeddings): lower "
            "max_length, or take a model with a longer context"
        )
    return wanted


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


def has_experts(config: Any) -> bool:
    """Whether a step can pass by some of the weights, because tokens choose among experts."""
    text = config.get_text_config()
    return any(getattr(text, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts"))


def sample_tokens(limit: int) -> int:
    """How long a sample may be: at most half of what prompt and response may have together."""
    return min(SAMPLE_TOKENS, limit // 2)
