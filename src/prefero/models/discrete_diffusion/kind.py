"""Discrete diffusion models: masked language models, and those of uniform noise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from prefero.data.chat import Writing
from prefero.data.encode import prompt_ids
from prefero.data.examples import Example, Examples, Text
from prefero.data.formats import load_examples
from prefero.data.schema import SCHEMA
from prefero.data.tokenize import TokenDataset
from prefero.data.trie import TokenExample
from prefero.errors import PreferoError
from prefero.generate.sampling import as_examples
from prefero.models.discrete_diffusion.noise import COSINE, LINEAR, Masking, Noise, Uniform
from prefero.models.discrete_diffusion.sampling import sample, unmask
from prefero.models.discrete_diffusion.scoring import (
    CorruptedBatch,
    DiscreteDiffusionAdapter,
    Drawing,
    SequenceExample,
    corrupted_batch,
    sequences,
)
from prefero.models.discrete_diffusion.timed import TimedMaskedConfig
from prefero.models.kind import Batching, Dataset, PackingChoice, PaddedBatching, PlainAnswer, Reading
from prefero.models.loading import ModelSource, evaluating, zero_dropout
from prefero.models.signals import SecondModel
from prefero.models.text import SAMPLE_TOKENS, TextKind, length_limit
from prefero.objectives.batch import Signal, TokenLogps
from prefero.objectives.needs import Needs, signals_of

SCHEDULES = {"linear": LINEAR, "cosine": COSINE}


class DiscreteDiffusionOptions(BaseModel):
    """``model.options`` of a recipe.

    ``noise`` is the ``mask`` token (by default the tokenizer's, or the model's own), or any of the first
    ``vocabulary`` tokens (all). ``draws`` times are drawn for each example, and at each a state for every
    response, or with ``noise_per`` example one that its responses share. ``tokens`` says what the tokens of a
    response are to a method: its positions, or the times. ``scale`` is a factor on everything. ``predicts``
    is next for models that give a position's logits at the one before it (Dream). Without ``ends``, responses
    have no end token: strings that are all of one length. With a ``canvas``, end tokens fill every response
    up to that many positions, and are scored, as for models that were trained on such (LLaDA); without one a
    response's length is given. ``sample_steps`` is how many steps a sample takes, where it is not one per
    position.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    noise: Literal["masking", "uniform"] = "masking"
    mask: str | int | None = None
    vocabulary: int | None = Field(default=None, ge=2)
    schedule: Literal["linear", "cosine"] = "linear"
    draws: int = Field(default=1, ge=1)
    noise_per: Literal["response", "example"] = "response"
    tokens: Literal["position", "time"] = "position"
    scale: float = Field(default=1.0, gt=0)
    predicts: Literal["own", "next"] = "own"
    ends: bool = True
    canvas: int | None = Field(default=None, ge=1)
    sample_steps: int = Field(default=128, ge=1)

    @model_validator(mode="after")
    def _fit_together(self) -> DiscreteDiffusionOptions:
        for name, noise in (("mask", "masking"), ("vocabulary", "uniform")):
            if getattr(self, name) is not None and self.noise != noise:
                raise ValueError(f"{name} belongs to noise: {noise}, but noise is {self.noise}")
        if self.canvas is not None and not self.ends:
            raise ValueError("end tokens fill a canvas, but with ends: false there are none")
        return self


def noise_of(options: DiscreteDiffusionOptions, tokenizer: Any, config: Any) -> Noise:
    """The noise that the options name, with what they leave to the tokenizer and the model. Raises
    :class:`PreferoError` for a mask token that is missing or unknown."""
    size = config.get_text_config().vocab_size
    if options.noise == "uniform":
        return Uniform(size if options.vocabulary is None else options.vocabulary)
    mask = options.mask
    if isinstance(mask, str):
        mask = tokenizer.get_vocab().get(mask, -1)
    if mask is None:
        mask = tokenizer.mask_token_id
    if mask is None:
        mask = getattr(config, "mask_token_id", None)
    if mask is None:
        raise PreferoError(
            "masking noise needs a mask token, and neither the tokenizer nor the model's configuration has "
            "one (mask_token_id): name it with model.options.mask, or take noise: uniform"
        )
    if not 0 <= mask < size:
        raise PreferoError(
            f"model.options.mask is {options.mask!r}, which is none of the {size} tokens that the model has"
        )
    return Masking(mask)


LOADERS = ("AutoModelForMaskedLM", "AutoModelForCausalLM", "AutoModel")
"""Names under which models that bring their own code register, the most fitting first."""


class DiscreteDiffusion(TextKind[CorruptedBatch]):
    """A masked language model of transformers, or one that is called like it (LLaDA, with its own code). A
    micro-batch costs its sequences at all times, each as long as the longest."""

    name = "discrete_diffusion"
    redrawn = "times and noise of a discrete diffusion model are drawn again in every epoch"
    states = frozenset({"corrupted tokens"})
    loader, what = LOADERS[0], "masked language model"
    options_type = DiscreteDiffusionOptions
    sample_options = frozenset()

    def __init__(
        self, config: Any, processor: Any, source: ModelSource, options: DiscreteDiffusionOptions
    ) -> None:
        super().__init__(config, _with_end(processor), source, options)
        self.canvas = options.canvas
        own = getattr(config, "auto_map", None) or {}
        self.loader = next((name for name in LOADERS if name in own), LOADERS[0])
        adapter = DiscreteDiffusionAdapter(
            noise_of(options, self.tokenizer, config),
            SCHEDULES[options.schedule],
            options.tokens,
            options.scale,
            timed=isinstance(config, TimedMaskedConfig),
        )
        self.drawing = Drawing(adapter, options.draws, options.noise_per, options.model_dump_json())
        self.longest = 0

    @property
    def adapter(self) -> DiscreteDiffusionAdapter:
        return self.drawing.adapter

    # Data

    def check(self, needs: Needs) -> None:
        super().check(needs)
        for signal in sorted(signals_of(needs), key=repr):
            raise PreferoError(
                f"a discrete diffusion model has no signal {signal.name!r}: it gives an estimate of how "
                "likely a sequence is, not the distribution of each next token"
            )
        if self.options.tokens == "position":
            return
        for name in sorted(needs.columns):
            if SCHEMA[name].axes == "example response token" and not SCHEMA[name].drawn:
                raise PreferoError(
                    f"the objective reads {name!r} of tokens of text, but tokens are times here: leave out "
                    "model.options.tokens, or set it to position"
                )

    def read(self, source: Any, needs: Needs, reading: Reading) -> TokenDataset:
        if not isinstance(source, TokenDataset | Examples):
            source = load_examples(source, split=reading.split)
        if isinstance(source, Examples) and not self.options.ends:
            open_ended = [
                replace(example, responses=tuple(replace(one, ended=False) for one in example.responses))
                for example in source
            ]
            source = replace(source, items=open_ended)
        if reading.max_length is None:
            # for RoBERTa, whose tokenizer knows that it takes fewer tokens than the model has positions
            shorter = min(self.tokenizer.model_max_length, length_limit(None, self.config))
            reading = replace(reading, max_length=shorter)
        data = super().read(source, needs, reading)
        for item in data:
            if (token := self._impossible(item)) is not None:
                where = f"example {item.index + 1}"
                where = data.source[item.index].origin or where
                raise PreferoError(f"{where}: a response has {self._named(token)}")
        self.longest = max(self.longest, *(len(cell.response) for item in data for cell in item.cells))
        return replace(data, examples=tuple(sequences(item, self.drawing) for item in data))

    def _impossible(self, item: TokenExample) -> int | None:
        """A generated token that the noise has no way to, if there is one."""
        for cell in item.all_cells:
            generated = cell.response if cell.scored is None else cell.response[cell.scored]
            wrong = ~self.adapter.noise.makes(torch.from_numpy(generated)).numpy()
            if wrong.any():
                return int(generated[wrong][0])
        return None

    def _named(self, token: int) -> str:
        name = f"the token {token} ({self.tokenizer.convert_ids_to_tokens(token)!r})"
        if self.options.noise == "masking":
            return f"{name}, which is the mask of the noise. Remove the row, or name another mask token"
        return (
            f"{name}, which is not among the {self.options.vocabulary} tokens of the noise: raise "
            "model.options.vocabulary, or leave it out"
        )

    def batching(self, data: Dataset[TokenExample], packing: str) -> Batching:
        cells = [example.all_cells for example in data]
        return PaddedBatching(
            [len(some) * self.options.draws for some in cells],
            [max(len(cell.context) + len(cell.response) for cell in some) for some in cells],
        )

    def collate(self, items: Sequence[TokenExample], seeds: Sequence[int]) -> CorruptedBatch:
        return corrupted_batch(cast("Sequence[SequenceExample]", items), seeds)  # which :meth:`read` makes

    # Models

    def adapt(self, model: nn.Module, packing: PackingChoice = "auto", *, keep_dropout: bool = False) -> str:
        if packing not in ("auto", "padded"):
            raise PreferoError(
                f"layout is {packing}, but every token of a sequence sees every other here, so that "
                "sequences are rows of their own: leave training.layout out"
            )
        if not keep_dropout:
            zero_dropout(model)
        return "padded"

    def score(
        self,
        model: nn.Module,
        inputs: CorruptedBatch,
        signals: frozenset[Signal] = frozenset(),
        *,
        others: Mapping[str, nn.Module | SecondModel] | None = None,
    ) -> dict[str, TokenLogps]:
        return inputs.by_view(self.adapter.score(self._called(model), inputs.corrupted), self.options.tokens)

    def _called(self, model: nn.Module) -> Callable[..., Any]:
        """The model, giving the logits of every position at its own place."""
        return model if self.options.predicts == "own" else partial(_shifted, model)

    def masks(self, inputs: CorruptedBatch) -> dict[str, Tensor]:
        return inputs.masks(self.options.tokens)

    # Samples

    def sampling(self, max_length: int | None, **options: Any) -> str:
        return "drawn by filling masked positions, with the same noise before and after"

    def sample(
        self,
        model: nn.Module,
        prompts: Sequence[Text | Example],
        seed: int,
        max_length: int | None,
        **options: Any,
    ) -> list[str]:
        """As many positions are filled as the canvas has, or the longest response that was read."""
        given = prompt_ids(as_examples(prompts), self.tokenizer, writing=self.writing)
        limit = length_limit(max_length, self.config)
        length = self.canvas or min(self.longest or SAMPLE_TOKENS, SAMPLE_TOKENS)
        lengths = [min(length, limit - len(context)) for context in given]
        return [self.text(ids) for ids in self.fill(model, given, lengths, seed)]

    def longest_response(self, max_new_tokens: int | None) -> int:
        """Raise :class:`~prefero.errors.PreferoError` for another length than that of the canvas."""
        if self.canvas is None:
            return super().longest_response(max_new_tokens)
        if max_new_tokens not in (None, self.canvas):
            raise PreferoError(
                f"the longest response is {max_new_tokens} tokens, but those of this model fill a canvas of "
                f"{self.canvas}: leave --max-new-tokens out"
            )
        return self.canvas

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
    ) -> list[PlainAnswer]:
        if temperature != 1:
            raise PreferoError(f"temperature is {temperature:g}, but a model of kind {self.name} has none")
        asked = [prompt for prompt in as_examples(prompts) for _ in range(count)]
        given = prompt_ids(asked, self.tokenizer, writing=writing)
        length = self.longest_response(max_new_tokens)
        drawn: list[PlainAnswer] = []
        for start in range(0, len(given), batch_size):
            some = given[start : start + batch_size]
            filled = self.fill(model, some, [length] * len(some), seed + start)
            drawn += [PlainAnswer(self.text(ids)) for ids in filled]
        return drawn

    def fill(
        self, model: nn.Module, given: Sequence[np.ndarray], lengths: Sequence[int], seed: int
    ) -> list[np.ndarray]:
        """The tokens that a model puts behind contexts, as many as ``lengths`` says for each."""
        device = next(model.parameters()).device
        ends = [len(context) + length for context, length in zip(given, lengths, strict=True)]
        tokens = torch.zeros(len(given), max(ends), dtype=torch.int64)
        there, generated = torch.zeros((2, *tokens.shape), dtype=torch.bool)
        for row, (context, end) in enumerate(zip(given, ends, strict=True)):
            tokens[row, : len(context)] = torch.from_numpy(context)
            there[row, :end], generated[row, len(context) : end] = True, True
        generator = torch.Generator(device).manual_seed(seed)
        with evaluating(model):
            drawn = self._sampled(model, tokens.to(device), generated.to(device), there.to(device), generator)
        return [row[len(c) : end].numpy() for row, c, end in zip(drawn.cpu(), given, ends, strict=True)]

    def _sampled(
        self, model: nn.Module, tokens: Tensor, generated: Tensor, there: Tensor, generator: torch.Generator
    ) -> Tensor:
        adapter, called = self.adapter, self._called(model)
        if isinstance(adapter.noise, Masking) and not adapter.timed:
            return unmask(called, adapter.noise, tokens, generator, generated=generated, there=there)
        steps = self.options.sample_steps
        return sample(called, adapter, tokens, generator, steps=steps, generated=generated, there=there)

    def text(self, ids: np.ndarray) -> str:
        """Tokens as text, up to the first end token."""
        if self.options.ends:
            ids = ids[: (ids != self.tokenizer.eos_token_id).cumprod().sum()]
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))


def _shifted(model: nn.Module, **given: Any) -> Tensor:
    """Logits of models that give them one position early; the first position is always given."""
    logits = model(**given).logits
    return torch.cat((logits[:, :1], logits[:, :-1]), 1)


def _with_end(tokenizer: Any) -> Any:
    """The tokenizer with an end token: what separates texts (BERT's) ends a response too."""
    if tokenizer.eos_token is None and tokenizer.sep_token is not None:
        tokenizer = copy.deepcopy(tokenizer)
        tokenizer.eos_token = tokenizer.sep_token
    return tokenizer
