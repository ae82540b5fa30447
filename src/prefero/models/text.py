"""Kinds of model that read and write text: what they have in common."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from pydantic import BaseModel
from torch import nn
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from prefero.data.chat import Writing, dated
from prefero.data.encode import prompt_ids
from prefero.data.examples import Example, Examples, Text
from prefero.data.formats import load_examples
from prefero.data.images import ImagePrompts
from prefero.data.preview import Preview, origin_of_template, preview_tokens
from prefero.data.render import template_of
from prefero.data.tokenize import TokenDataset, tokenize
from prefero.data.trie import TokenExample
from prefero.errors import PreferoError
from prefero.generate.sampling import sample
from prefero.models.causal.experts import balance_of
from prefero.models.kind import Answer, AnyInputs, Dataset, Kind, Reading, no_options, parsed
from prefero.models.loading import ModelSource, innermost, unwrapped
from prefero.objectives.needs import Needs

DEFAULT_MAX_LENGTH = 1024
"""``max_length`` of a model whose configuration does not tell its context."""

SAMPLE_TOKENS = 128
"""Longest response of a sample, in tokens."""


EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""Settings of models whose tokens choose among experts, so that a step can pass by some of the weights."""


class TextKind(Kind[TokenExample, AnyInputs]):
    """A model of transformers with a tokenizer.

    ``options_type`` checks ``model.options``. ``images`` reads prompts that show images, for models that see;
    ``canvas`` is how many tokens responses are filled up to with end tokens, for models that want it.
    """

    processor_loader: ClassVar[str] = "AutoTokenizer"
    sample_options: ClassVar[frozenset[str]] = frozenset({"max_new_tokens", "temperature"})
    options_type: ClassVar[type[BaseModel] | None] = None
    reads_apart: ClassVar[bool] = False
    """Whether prompts and responses are texts of their own, not one text."""
    balances: ClassVar[bool] = False
    """Whether it gives the loss that balances experts."""
    tokenizer: PreTrainedTokenizerBase
    images: ImagePrompts | None = None
    canvas: int | None = None
    writing: Writing = Writing()
    """How prompts are written, as the first data were read."""
    largest_token: int = 0
    """Of all data that were read."""
    _asked: Writing | None = None
    """How they were to be written, before a template was chosen for them."""

    def __init__(self, config: Any, processor: Any, source: ModelSource, options: Any = None) -> None:
        self.config, self.source, self.options = config, source, options
        self.processor = self.tokenizer = processor
        self.model_name = source.name

    @classmethod
    def of(cls, model: Any, processor: Any = None, options: Mapping[str, Any] | None = None) -> Self:
        chosen = None
        if cls.options_type is None:
            no_options(cls.name, options)
        else:
            chosen = parsed(cls.options_type, options, cls.name)
        if isinstance(model, ModelSource):
            config, source = model.config(), model
        else:
            config = innermost(model).config
            source = ModelSource(str(getattr(config, "_name_or_path", "")))
        return cls(config, processor or source.processor(cls.processor_loader), source, chosen)

    def read(self, source: Any, needs: Needs, reading: Reading) -> TokenDataset:
        limit = length_limit(reading.max_length, self.config)
        writing = reading.writing if self._asked != reading.writing else self._decided
        if isinstance(source, TokenDataset):
            _refuse_other_reading(source, needs, reading.method)
            data = source
        else:
            data = tokenize(
                source if isinstance(source, Examples) else load_examples(source, split=reading.split),
                self.tokenizer,
                roles=needs.roles,
                columns=needs.columns,
                max_length=limit,
                too_long=reading.too_long,
                writing=writing,
                views={view: need.roles for view, need in needs.views.items()},
                seed=reading.seed,
                for_method=reading.method,
                images=self.images,
                canvas=self.canvas,
                apart=self.reads_apart,
            )
        if self._asked != reading.writing:
            self._asked, self.writing = reading.writing, data.writing
        vocabulary = getattr(self.config.get_text_config(), "vocab_size", None)
        largest = max(int(max(c.context.max(), c.response.max())) for example in data for c in example.cells)
        if vocabulary is not None and largest >= vocabulary:
            raise PreferoError(
                f"the tokenizer gives the token {largest}, but the model has {vocabulary}: they do not "
                "belong together; name the model's own tokenizer"
            )
        self.largest_token = max(self.largest_token, largest)
        return data

    @property
    def _decided(self) -> Writing:
        """How data are written that are read behind others: one template writes all of them."""
        own = self.writing.template == "auto"
        return replace(self.writing, template="own") if own else self.writing

    def budget(self, packing: str, device: torch.device) -> int:
        return 4096 if device.type == "cpu" else 16384

    def preview(self, data: Dataset[TokenExample], count: int) -> Preview | None:
        assert isinstance(data, TokenDataset)
        return preview_tokens(
            data, self.tokenizer, origin_of_template(data.writing, self._own_template), count
        )

    @property
    def _own_template(self) -> Any:
        """The chat template of the tokenizer or processor, several by name, or None."""
        return (self.images or self.tokenizer).chat_template

    @property
    def saved_template(self) -> str | None:
        if self.writing.template in ("auto", "own", "none"):
            return None
        template = template_of(self.writing.template, self._own_template)
        assert template is None or isinstance(template, str)
        return template or None

    def saved_processor(self) -> Any:
        template = self.saved_template
        return self.processor if template is None else with_template(self.processor, template)

    def notes_on_prompts(self) -> list[str]:
        writing, own, saved = self.writing, self._own_template, self.saved_template
        if writing.template == "none":
            told = (
                "chat template: training used none, but the saved tokenizer still has its own, which other "
                "programs apply: give the model plain text there, and template none to prefero"
            )
            return [told] if own else []
        notes = []
        if saved is not None and saved != own:
            place = "in the place of its own" if own else "which had none"
            notes.append(
                f"chat template: {writing.template}, that of training, is saved with the model, {place}: "
                "other programs write the prompts of training"
            )
        sources = list(own.values()) if isinstance(own, Mapping) and saved is None else [saved or own or ""]
        if writing.options and any(sources):
            notes.append(
                "chat_template_kwargs: a saved chat template keeps no arguments; whoever writes prompts for "
                f"the model has to give these again: {json.dumps(dict(writing.options), default=str)}"
            )
        date = writing.date
        if date is not None and any(dated(source, date) != source for source in sources):
            notes.append(
                f"chat template: it writes the date, which was {date} in training; other programs write the "
                "day on which they run"
            )
        return notes

    def load(self) -> nn.Module:
        return self.source.load(self.loader, self.what)

    def other(self, name: str, dtype: torch.dtype) -> nn.Module:
        kept_in: Any = str(dtype).removeprefix("torch.")
        source = ModelSource(name, dtype=kept_in, add_tokens=self.source.add_tokens)
        model = source.load(self.loader, self.what)
        self.adapt(model)
        return model

    def balance(self, model: nn.Module) -> tuple[float, str]:
        coefficient, left_out = balance_of(unwrapped(model))
        if coefficient and not self.balances:
            return 0.0, f"the balancing loss of the router is left out: a {self.what} is scored without it"
        return coefficient, left_out

    def prompts(
        self,
        examples: Sequence[Example],
        count: int,
        max_length: int | None,
        *,
        max_new_tokens: int | None = None,
        **_: Any,
    ) -> list[Example]:
        """The first examples with distinct prompts that leave room for a response."""
        limit = length_limit(max_length, self.config)
        prompts: dict[str, Example] = {}
        for example in examples:
            if len(prompts) == count:
                break
            identity = example.prompt_identity
            if identity in prompts:
                continue
            try:
                (context,) = prompt_ids(
                    [example], self.tokenizer, self.images, self.writing, apart=self.reads_apart
                )
            except PreferoError:
                continue  # a bad row that reading the data has skipped, and has said so
            if len(context) <= limit - sample_tokens(limit, max_new_tokens):
                prompts[identity] = example
        return list(prompts.values())

    def sampling(
        self,
        max_length: int | None,
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        **_: Any,
    ) -> str:
        longest = sample_tokens(length_limit(max_length, self.config), max_new_tokens)
        drawn = "the likeliest token each time"
        if temperature:
            drawn = f"drawn at temperature {temperature:g}, with the same noise each time"
        return f"{drawn}, at most {longest} tokens"

    def sample(
        self,
        model: nn.Module,
        prompts: Sequence[Text | Example],
        seed: int,
        max_length: int | None,
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        **_: Any,
    ) -> list[str]:
        drawn = sample(
            model,
            self.tokenizer,
            prompts,
            generator=torch.Generator(next(model.parameters()).device).manual_seed(seed),
            max_new_tokens=sample_tokens(length_limit(max_length, self.config), max_new_tokens),
            temperature=temperature,
            images=self.images,
            writing=self.writing,
        )
        return [one.text for one in drawn]

    def longest_response(self, max_new_tokens: int | None) -> int:
        """The tokens that a response has at most, where ``max_new_tokens`` are asked for. Raises
        :class:`~prefero.errors.PreferoError` for a kind whose responses are of another length."""
        return max_new_tokens or SAMPLE_TOKENS

    def respond(
        self,
        model: nn.Module,
        prompts: Sequence[Text | Example],
        *,
        seed: int,
        count: int = 1,
        max_new_tokens: int | None = None,
        temperature: float = 1.0,
        batch_size: int = 64,
        writing: Writing | None = None,
    ) -> Sequence[Answer]:
        return sample(
            model,
            self.tokenizer,
            prompts,
            generator=torch.Generator(next(model.parameters()).device).manual_seed(seed),
            max_new_tokens=self.longest_response(max_new_tokens),
            count=count,
            temperature=temperature,
            batch_size=batch_size,
            images=self.images,
            writing=writing,
        )


def with_template(processor: Any, template: str) -> Any:
    """A tokenizer, or a processor with one, that is the same but for its chat template."""
    changed: Any = copy.copy(processor)
    changed.chat_template = template
    if isinstance(processor, ProcessorMixin):
        changed.tokenizer = copy.copy(processor.tokenizer)
        changed.tokenizer.chat_template = template
    return changed


def context_length(config: Any) -> int | None:
    """The number of positions that the model has, where its configuration says so; with dynamic NTK, whose
    rotary positions stretch with the text, they are its factor times those of the configuration."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    rope = getattr(text, "rope_parameters", None) or {}
    stretch = rope.get("factor", 1.0) if rope.get("rope_type") == "dynamic" else 1.0
    for name in ("max_position_embeddings", "n_positions", "max_sequence_length"):
        if isinstance(value := getattr(text, name, None), int):
            return int(value * stretch)
    return None


def length_limit(wanted: int | None, config: Any) -> int:
    """``max_length``: as wanted, or else the model's context, or :data:`DEFAULT_MAX_LENGTH` where its
    configuration names none. Raises :class:`PreferoError` for more than the model has positions."""
    context = context_length(config)
    if wanted is None:
        return context or DEFAULT_MAX_LENGTH
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


def sample_tokens(limit: int, wanted: int | None = None) -> int:
    """The longest sample, in tokens: as wanted, or at most half of what prompt and response may have
    together."""
    return min(SAMPLE_TOKENS, limit // 2) if wanted is None else wanted
