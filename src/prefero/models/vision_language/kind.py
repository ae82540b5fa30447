"""Vision-language models: language models whose prompts show images, each encoded once per micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import nn

from prefero.data.arrange import one_cycle
from prefero.data.examples import Example, Examples
from prefero.data.formats import load_examples
from prefero.data.images import ImagePrompts
from prefero.data.packing import Forest, ImageBatch, pack
from prefero.data.pictures import Picture, check, corrupted
from prefero.data.tokenize import TokenDataset
from prefero.data.trie import TokenExample
from prefero.errors import PreferoError
from prefero.models.causal.images import placeholder
from prefero.models.causal.scoring import Language
from prefero.models.kind import Packing, PackingChoice, Reading
from prefero.models.loading import adapter_layers
from prefero.objectives.needs import Needs

VIEW = "corrupted"
"""The view in which the same responses stand under a corrupted image."""

WHOLE_PROMPTS = ("paligemma",)
"""Families whose prompt tokens see those behind them."""

PROJECTORS = ("projector", "connector", "merger", "embed_vision", "aligner", "resampler")
TOWERS = ("vision", "visual", "image_tower")
"""Names that families have for their parts: a parameter's name contains one of these."""


class VisionLanguageOptions(BaseModel):
    """``model.options`` of a recipe.

    ``corruption`` is how images are corrupted for methods that compare with a corrupted one, unless the rows
    have ``images_corrupted``, and ``strength`` how much (:mod:`prefero.data.pictures`). ``train`` says which
    parts learn where there are no adapters: the text model alone, it and the projector, or all.
    """

    model_config = ConfigDict(extra="forbid")

    corruption: str = "crop"
    strength: float | None = None
    train: Literal["text", "projector", "all"] = "projector"


class VisionLanguage(Language):
    """A model of transformers that writes about images and text; image tokens count as unique tokens do."""

    name = "vision_language"
    lora_targets = r"(?!.*(vision|visual|projector|connector|merger|resampler|audio)).*_proj"
    loader, what = "AutoModelForImageTextToText", "vision-language model"
    processor_loader = "AutoProcessor"
    options_type = VisionLanguageOptions
    images: ImagePrompts

    def __init__(self, config: Any, processor: Any, source: Any, options: VisionLanguageOptions) -> None:
        if any(getattr(processor, part, None) is None for part in ("tokenizer", "image_processor")):
            raise PreferoError(
                f"a vision-language model needs its processor, which reads images too, and was given a "
                f"{type(processor).__name__}: use AutoProcessor.from_pretrained"
            )
        if config.model_type in WHOLE_PROMPTS:
            raise PreferoError(
                f"a model of type {config.model_type!r} reads a prompt in both directions, so that a part "
                "of one cannot be shared with another: it is not supported. Name one that reads in order"
            )
        check(options.corruption, options.strength)
        super().__init__(config, processor, source, options)
        self.tokenizer = processor.tokenizer
        self.images = ImagePrompts(processor, placeholder(config))

    # Data

    def read(self, source: Any, needs: Needs, reading: Reading) -> TokenDataset:
        """Data as for any language model. Where corrupted images are asked for and rows have none of their
        own, which image is corrupted how depends on the run's seed and the example's place alone."""
        if VIEW in needs.views and not isinstance(source, TokenDataset):
            examples = source if isinstance(source, Examples) else load_examples(source, split=reading.split)
            lenders = one_cycle(len(examples), reading.seed) if len(examples) > 1 else [0]
            items = [
                example
                if VIEW in example.prompts
                else self._corrupted(example, examples[int(lender)], (reading.seed, place))
                for place, (example, lender) in enumerate(zip(examples, lenders, strict=True))
            ]
            source = replace(examples, items=items)
        return super().read(source, needs, reading)

    def _corrupted(self, example: Example, lender: Example, seed: tuple[int, ...]) -> Example:
        """The example with a corrupted view of its images; of another example's, if those stand for it."""
        shown = example.images.get("", ())
        if not shown:
            raise PreferoError(
                f"{example.origin}: the method compares with a corrupted image, and the prompt shows none. "
                "Give the row images, or leave it out."
            )
        if self.options.corruption == "other":
            lent = lender.images.get("", ())
            if not lent or {one.digest for one in lent} & {one.digest for one in shown}:
                raise PreferoError(
                    f"{example.origin}: the image of another example ({lender.origin}) was to stand for the "
                    "corrupted one, and it is the same or there is none. Choose another "
                    f"model.options.corruption, such as 'crop', or give the row images_{VIEW}."
                )
            instead = tuple(lent[place % len(lent)] for place in range(len(shown)))
        else:
            instead = corrupted(shown, self.options.corruption, self.options.strength, seed)
        return replace(
            example,
            prompts={**example.prompts, VIEW: example.prompt},
            images={**example.images, VIEW: instead},
        )

    def collate(  # type: ignore[override]
        self, items: Sequence[TokenExample], seeds: Sequence[int] = ()
    ) -> Forest:
        """As for any language model, but images take the instance's processor."""
        shown = {key: pictures for item in items for key, pictures in item.images.items()}
        return pack(items, images=self.images.arrays(shown))

    # Models

    def adapt(  # type: ignore[override]
        self, model: nn.Module, packing: PackingChoice = "auto", *, keep_dropout: bool = False
    ) -> Packing:
        """As for any language model, checked with images; the parts that are not to learn are fixed."""
        _train_parts(model, self.options.train)
        return Language.adapt(model, packing, keep_dropout=keep_dropout, images=self._probe)

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


def _train_parts(model: nn.Module, parts: Literal["text", "projector", "all"]) -> None:
    """Fix the parts that are not to learn: the vision tower, and what projects its features. A model with
    adapters stays as it is."""
    if parts == "all" or adapter_layers(model):
        return
    for name, parameter in model.named_parameters():
        projects = any(mark in name for mark in PROJECTORS)
        sees = not projects and any(mark in name for mark in TOWERS)
        if sees or (projects and parts == "text"):
            parameter.requires_grad_(False)
