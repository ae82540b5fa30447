"""Responses of a language model, as records with their tokens and probabilities.

Sampling is transformers' ``generate``; only the draw is done here, with the caller's generator: the token
with the largest log-probability plus Gumbel noise is a sample of the distribution. Two models that sample
with the same seed see the same noise (common random numbers).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, TopPLogitsWarper

from prefero.data.chat import Writing
from prefero.data.encode import Encoder, prompt_ids
from prefero.data.examples import Example, Text
from prefero.data.images import Arrays, ImagePrompts
from prefero.data.packing import ImageBatch
from prefero.data.trie import Cell
from prefero.errors import PreferoError
from prefero.models.causal.images import own_inputs
from prefero.models.loading import evaluating, innermost


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One response. ``tokens`` include the end token if it ``ended`` by itself; ``text`` does not.

    ``text`` is what stands behind the prompt's text, a space at its beginning included.

    ``logps`` are the log-probabilities of ``tokens`` under the model as it is, before temperature and
    nucleus. ``context`` are the tokens of the prompt as the model read them, those in which training has
    responses to it.
    """

    prompt: Text
    text: str
    context: NDArray[np.int64]
    tokens: NDArray[np.int64]
    logps: NDArray[np.float32]
    ended: bool

    @property
    def content(self) -> str:
        """The response as a judge reads it."""
        return self.text

    @property
    def cell(self) -> Cell:
        """The sample as a model scores it."""
        return Cell(self.context, self.tokens)


def sample(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Text | Example],
    *,
    generator: torch.Generator,
    max_new_tokens: int,
    count: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    batch_size: int = 64,
    images: ImagePrompts | None = None,
    writing: Writing | None = None,
) -> list[Sample]:
    """``count`` responses to each prompt, in the order of the prompts, those to one prompt side by side.

    A prompt may be an example, whose tools, images and template options the model reads too. Its own
    responses tell how its prompt ends in training: whether one begins a turn, or goes on within one. A
    conversation alone that ends with a turn of the assistant is continued within it.

    ``temperature`` 0 takes the likeliest token. Nothing is inherited from the model's generation settings but
    its end tokens. The same generator state and ``batch_size`` give the same samples; the model's modes and
    settings are as before afterwards. ``images``, which reads prompts that show some, and ``writing`` are as
    :func:`~prefero.data.tokenize.tokenize` takes them.

    Raises:
        PreferoError: a setting out of range, no prompts, or an empty prompt and no start token.
    """
    if not prompts:
        raise PreferoError("there are no prompts to sample responses to.")
    _check(max_new_tokens, count, temperature, top_p, batch_size)
    inner = innermost(model)
    asked = as_examples(prompts)
    once = _read_by(inner, asked, tokenizer, images, writing)
    read = [context for context in once for _ in range(count)]
    arrays = {} if images is None else images.arrays(images.shown(once))
    ends = _end_tokens(inner, tokenizer)
    order = sorted(range(len(read)), key=lambda i: len(read[i]), reverse=True)
    drawn: dict[int, tuple[NDArray[np.int64], NDArray[np.float32]]] = {}
    with _sampling_mode(model, inner, ends):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            draw = _Draw(generator, temperature, top_p)
            batch = [read[i] for i in rows]
            tokens, logps = _generate(model, batch, ends[0], draw, max_new_tokens, arrays)
            drawn |= {i: (tokens[row], logps[row]) for row, i in enumerate(rows)}

    records = []
    for i, context in enumerate(read):
        tokens, logps = drawn[i]
        stops = np.flatnonzero(np.isin(tokens, ends))
        length = int(stops[0]) + 1 if len(stops) else len(tokens)
        prompt = asked[i // count].prompt
        text = continuation(tokenizer, context, tokens[: length - bool(len(stops))])
        text = text.removeprefix(_left_to_response(prompt, tokenizer, context))
        records.append(Sample(prompt, text, context, tokens[:length], logps[:length], bool(len(stops))))
    return records


def continuation(tokenizer: Any, context: NDArray[np.int64], tokens: NDArray[np.int64]) -> str:
    """The text of tokens behind those of a prompt: a space between the two belongs to it, which decoding the
    tokens alone may leave out."""
    shown = context[context >= 0]  # no images
    prompt = tokenizer.decode(shown, skip_special_tokens=True)
    whole = tokenizer.decode(np.concatenate([shown, tokens]), skip_special_tokens=True)
    return (
        whole[len(prompt) :]
        if whole.startswith(prompt)
        else tokenizer.decode(tokens, skip_special_tokens=True)
    )


def _left_to_response(prompt: Text, tokenizer: Any, context: NDArray[np.int64]) -> str:
    """White space at the end of a prompt that is no part of its tokens, because the first token of a response
    has it."""
    said = prompt if isinstance(prompt, str) or not prompt else prompt[-1]["content"]
    if not isinstance(said, str) or said == said.rstrip():
        return ""
    shown = tokenizer.decode(context[context >= 0], skip_special_tokens=True)
    space, kept = said[len(said.rstrip()) :], shown[len(shown.rstrip()) :]
    within = shown.rstrip().endswith(said.rstrip()) and space.startswith(kept)
    return space.removeprefix(kept) if within else ""


def _check(max_new_tokens: int, count: int, temperature: float, top_p: float, batch_size: int) -> None:
    for name, value in {"max_new_tokens": max_new_tokens, "count": count, "batch_size": batch_size}.items():
        if value < 1:
            raise PreferoError(f"{name} is {value}; expected at least 1.")
    if not temperature >= 0:
        raise PreferoError(f"temperature is {temperature}; expected 0 (the likeliest token) or more.")
    if not 0 < top_p <= 1:
        raise PreferoError(f"top_p is {top_p}; expected a share above 0, at most 1.")


def as_examples(prompts: Sequence[Text | Example]) -> list[Example]:
    """The prompts as examples: those that are texts or conversations without responses."""
    return [
        prompt if isinstance(prompt, Example) else Example(prompt, (), origin=f"prompt {i + 1}")
        for i, prompt in enumerate(prompts)
    ]


def _read_by(
    inner: Any,
    asked: Sequence[Example],
    tokenizer: Any,
    images: ImagePrompts | None,
    writing: Writing | None,
) -> list[NDArray[np.int64]]:
    """Prompts as the model reads them: an encoder apart from responses, with what its tokenizer puts behind a
    text."""
    if not inner.config.is_encoder_decoder:
        return prompt_ids(asked, tokenizer, images, writing)
    behind = Encoder(tokenizer).finish
    read = prompt_ids(asked, tokenizer, images, writing, apart=True)
    return [np.concatenate([ids, behind]) for ids in read]


def _end_tokens(inner: Any, tokenizer: Any) -> list[int]:
    """The tokenizer's end token, and those that the model's own generation settings name."""
    configured = inner.generation_config.eos_token_id
    named = configured if isinstance(configured, list) else [configured]
    return list(dict.fromkeys(end for end in (tokenizer.eos_token_id, *named) if end is not None))


def _generate(
    model: nn.Module,
    contexts: list[NDArray[np.int64]],
    pad: int,
    draw: _Draw,
    max_new_tokens: int,
    images: Mapping[int, Arrays],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    width = max(map(len, contexts))
    ids = np.full((len(contexts), width), pad, np.int64)
    mask = np.zeros_like(ids)
    for row, context in enumerate(contexts):
        ids[row, width - len(context) :] = context
        mask[row, width - len(context) :] = 1
    device = next(model.parameters()).device
    inputs = {"input_ids": torch.from_numpy(ids).to(device)}
    seen = ImageBatch.of(contexts, images)
    if seen is not None:
        inputs = own_inputs(innermost(model), seen.to(device), inputs["input_ids"])
    generate: Any = model.generate
    output = generate(
        **inputs,
        attention_mask=torch.from_numpy(mask).to(device),
        max_new_tokens=max_new_tokens,
        logits_processor=LogitsProcessorList([draw]),
    )
    read = 1 if innermost(model).config.is_encoder_decoder else width  # its output begins with a start token
    return output[:, read:].cpu().numpy(), torch.stack(draw.logps, dim=1).cpu().numpy()


class _Draw(LogitsProcessor):
    """Adds Gumbel noise, so that the greedy choice is a draw, and keeps its log-probability."""

    def __init__(self, generator: torch.Generator, temperature: float, top_p: float) -> None:
        self.generator, self.temperature = generator, temperature
        self.nucleus = TopPLogitsWarper(top_p) if top_p < 1 else None
        self.logps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        perturbed = scores
        if self.temperature > 0:
            perturbed = scores / self.temperature
            if self.nucleus:
                perturbed = self.nucleus(input_ids, perturbed)
            noise = torch.empty(scores.shape, device=self.generator.device)
            noise.exponential_(generator=self.generator)
            perturbed = perturbed - noise.to(scores.device).log()
        chosen = perturbed.argmax(-1, keepdim=True)
        self.logps.append(scores.log_softmax(-1).gather(-1, chosen).squeeze(-1))
        return perturbed


@contextmanager
def _sampling_mode(model: nn.Module, inner: Any, ends: list[int]) -> Iterator[None]:
    """Evaluation mode, and generation settings with these end tokens and a decoder's first; all restored."""
    settings = inner.generation_config
    inner.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=ends[0],
        decoder_start_token_id=settings.decoder_start_token_id,
        forced_bos_token_id=settings.forced_bos_token_id,
    )
    try:
        with evaluating(model):
            yield
    finally:
        inner.generation_config = settings
