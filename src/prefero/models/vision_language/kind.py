"""Vision-language models: language models whose prompts show images, each of them seen once a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import nn
from transformers import PreTrainedTokenizerBase

from prefero.data.arrange import one_cycle
from prefero.data.examples import Example, Examples, Text
from prefero.data.images import ImageBatch, ImagePrompts, Pictures
from prefero.data.packing import Forest, pack
from prefero.data.pictures import Picture, check, corrupted
from prefero.data.trie import TokenExample
from prefero.errors import PreferoError
from prefero.generate.sampling import contexts, sample
from prefero.models.causal import scoring as language
from prefero.models.causal.scoring import Language
from prefero.models.kind import Layout, Reading, parsed
from prefero.models.text import length_limit, parts_of, sample_tokens
from prefero.models.vision_language.images import placeholder, train_parts
from prefero.objectives.needs import Needs

VIEW = "corrupted"
"""The view in which the same responses stand under a spoiled image."""


WHOLE_PROMPTS = ("paligemma",)
"""Families whose prompt tokens see those behind them."""


class VisionLanguageOptions(BaseModel):
    """``corruption`` is how images are spoiled for methods that compare with a spoiled one, unless the rows
    have ``images_corrupted``, and ``strength`` how much (:mod:`prefero.data.pictures`). ``train`` are the
    parts that learn where there are no adapters: the text's alone, with the projector between the two, or
    all."""

    model_config = ConfigDict(extra="forbid")

    corruption: str = "crop"
    strength: float | None = None
    train: Literal["text", "projector", "all"] = "projector"


@dataclass(frozen=True, slots=True, eq=False)
class SeenPrompt:
    """A prompt with what it shows."""

    text: Text
    images: Pictures

    def __str__(self) -> str:
        turns = (self.text,) if isinstance(self.text, str) else tuple(map(_written, self.text))
        return "\n\n".join((f"[{len(self.images)} images]", *turns) if self.images else turns)


class VisionLanguage(Language):
    """A model of transformers that makes text of images and text; a row costs its unique tokens, those of
    images among them."""

    name = "vision_language"
    lora_targets = r"(?!.*(vision|visual|projector|connector|merger|resampler|audio)).*_proj"
    loader, what = "AutoModelForImageTextToText", "vision-language model"
    processor_loader = "AutoProcessor"
    usual_length = 4096

    def __init__(self, config: Any, processor: Any, source: Any, options: VisionLanguageOptions) -> None:
        if (
            getattr(processor, "tokenizer", None) is None
            or getattr(processor, "image_processor", None) is None
        ):
            raise PreferoError(
                f"a vision-language model needs its processor, which reads images too, and was given a "
                f"{type(processor).__name__}: use AutoProcessor.from_pretrained"
            )
        if config.model_type in WHOLE_PROMPTS:
            raise PreferoError(
                f"a model of type {config.model_type!r} reads a prompt in both directions, so that a part "
                "of one cannot be shared with another: it is not supported. Name one that reads in order"
            )
        super().__init__(config, processor, source)
        self.options = options
        self._images = ImagePrompts(processor, placeholder(config))

    @classmethod
    def of(cls, model: Any, processor: Any = None, options: Mapping[str, Any] | None = None) -> Self:
        found = parsed(VisionLanguageOptions, options, cls.name)
        check(found.corruption, found.strength)
        return cls(*parts_of(model, processor, cls.processor_loader), found)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.processor.tokenizer

    @property
    def images(self) -> ImagePrompts:
        return self._images

    # Data

    def prepared(self, examples: Examples, needs: Needs, reading: Reading) -> Examples:
        """The examples with spoiled images, where they are asked for and rows have none of their own.

        Which image is spoiled how depends on the run's seed and the example's place alone.
        """
        if VIEW not in needs.views:
            return examples
        lenders = one_cycle(len(examples), reading.seed) if len(examples) > 1 else [0]
        items = [
            example
            if VIEW in example.prompts
            else self._spoiled(example, examples[int(lender)], (reading.seed, place))
            for place, (example, lender) in enumerate(zip(examples, lenders, strict=True))
        ]
        return replace(examples, items=items)

    def _spoiled(self, example: Example, lender: Example, seed: tuple[int, ...]) -> Example:
        shown = example.images.get("", ())
        if not shown:
            raise PreferoError(
                f"{example.origin}: the method compares with a spoiled image, and the prompt shows none. "
                "Give the row images, or leave it out."
            )
        if self.options.corruption == "other":
            lent = lender.images.get("", ())
            if not lent or {one.digest for one in lent} & {one.digest for one in shown}:
                raise PreferoError(
                    f"{example.origin}: the image of another example ({lender.origin}) was to stand for the "
                    "spoiled one, and it is the same or there is none. Choose another "
                    f"model.options.corruption, such as 'crop', or give the row images_{VIEW}."
                )
            spoiled = tuple(lent[place % len(lent)] for place in range(len(shown)))
        else:
            spoiled = corrupted(shown, self.options.corruption, self.options.strength, seed)
        return replace(
            example,
            prompts={**example.prompts, VIEW: example.prompt},
            images={**example.images, VIEW: spoiled},
        )

    def collate(self, items: Sequence[TokenExample], seeds: Sequence[int]) -> Forest:
        shown = {key: pictures for item in items for key, pictures in item.images.items()}
        return pack(items, images=self.images.arrays(shown))

    # Models

    def adapt(self, model: nn.Module, layout: Layout = "auto", *, keep_dropout: bool = False) -> str:
        train_parts(model, self.options.train)
        return language.adapt(model, layout=layout, keep_dropout=keep_dropout, images=self._probe)

    @cached_property
    def _probe(self) -> ImageBatch | None:
        """Two images of noise, to check a model with."""
        noise = np.random.default_rng(0)
        pictures = tuple(
            Picture(Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)), "an image of noise")
            for size in ((96, 128), (128, 96))
        )
        contexts = [self.images.context(self.images.mark, (one,), one.origin) for one in pictures]
        return ImageBatch.of(contexts, self.images.arrays(self.images.shown(contexts)))

    # Samples

    def prompts(self, examples: Sequence[Example], count: int, max_length: int | None) -> list[Any]:
        limit = length_limit(max_length, self.config, self.usual_length)
        found: dict[str, SeenPrompt] = {}
        for example in examples:
            if len(found) == count:
                break
            prompt = SeenPrompt(example.prompt, example.images.get("", ()))
            identity = repr((prompt.text, [one.identity for one in prompt.images]))
            if identity in found:
                continue
            (context,) = contexts([prompt.text], self.tokenizer, self.images, [prompt.images])
            if len(context) <= limit - sample_tokens(limit):
                found[identity] = prompt
        return list(found.values())

    def sample(
        self, model: nn.Module, prompts: Sequence[Any], seed: int, max_length: int | None
    ) -> list[str]:
        drawn = sample(
            model,
            self.tokenizer,
            [prompt.text for prompt in prompts],
            generator=torch.Generator(next(model.parameters()).device).manual_seed(seed),
            max_new_tokens=sample_tokens(length_limit(max_length, self.config, self.usual_length)),
            images=self.images,
            shown=[prompt.images for prompt in prompts],
        )
        return [one.text for one in drawn]


def _written(turn: Mapping[str, Any]) -> str:
    content = turn.get("content")
    if isinstance(content, list):
        content = "".join(part.get("text", f"[{part.get('type')}]") for part in content)
    return f"{turn.get('role')}: {content}"
