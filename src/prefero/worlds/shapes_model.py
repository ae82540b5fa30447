"""The start model of the world ``shapes``: a small LLaVA and its processor, trained once, then read from disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import (
    AutoProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from prefero.worlds.shapes_scenes import SIZE
from prefero.worlds.start import Report, default_folder, one_thread, quiet, save_whole, word_tokenizer

ROLES = {"user": "USER", "assistant": "ASSISTANT"}

TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{{ message['role'].upper() }} "
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ eos_token if message['role'] == 'assistant' else ' ' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT {% endif %}"
)

Row = dict[str, Any]
"""``images``, ``prompt`` and ``chosen``; preference rows have ``rejected``."""


@dataclass(frozen=True, slots=True)
class ShapesRecipe:
    """How a start model is made: fresh rows in every step, the loss on the response only."""

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    intermediate: int = 192
    patch: int = 8
    max_length: int = 128
    steps: int = 2000
    batch: int = 32
    lr: float = 4e-3
    initializer_range: float = 0.05
    warmup: int = 50
    clip: float = 1.0
    habit: float = 0.9
    captions: float = 0.5
    curt: float = 0.5


@dataclass(frozen=True, slots=True)
class VisionStart:
    """A model with its processor, and the ``folder`` that both were loaded from."""

    model: LlavaForConditionalGeneration
    processor: LlavaProcessor
    folder: Path


def cached_start(
    words: Sequence[str],
    corpus: Callable[[], Iterator[Row]],
    recipe: ShapesRecipe,
    *,
    seed: int,
    cache: Path | None = None,
    report: Report | None = None,
) -> VisionStart:
    """The start model on an endless ``corpus``: from ``cache`` if it was made before, else put there."""
    beginning = [[row["prompt"], row["chosen"]] for row, _ in zip(corpus(), range(200), strict=False)]
    content = json.dumps([asdict(recipe), list(words), beginning, seed], sort_keys=True)
    key = hashlib.sha256(content.encode()).hexdigest()[:16]
    folder = (cache or default_folder()) / f"shapes-{key}"
    if not folder.is_dir():
        processor = make_processor(words, recipe)
        with one_thread():
            model = _trained(processor, corpus(), recipe, seed, report)

        def write(draft: Path) -> None:
            model.save_pretrained(draft)
            processor.save_pretrained(draft)

        save_whole(folder, write)
    with quiet():
        model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
        return VisionStart(model, AutoProcessor.from_pretrained(folder), folder)


def make_processor(words: Sequence[str], recipe: ShapesRecipe) -> LlavaProcessor:
    """One token a word, and a token for every patch of the picture."""
    tokenizer = word_tokenizer([*ROLES.values(), *words], recipe.max_length)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<image>"]})
    tokenizer.padding_side = "left"
    half = [0.5] * 3
    pictures = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE},
        crop_size={"height": SIZE, "width": SIZE},
        image_mean=half,
        image_std=half,
    )
    return LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=recipe.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,  # the vision tower's class token, which "default" leaves out again
        chat_template=TEMPLATE,
    )


def untrained(processor: LlavaProcessor, recipe: ShapesRecipe, seed: int) -> LlavaForConditionalGeneration:
    """A model of random weights."""
    tokenizer = processor.tokenizer
    vision = CLIPVisionConfig(
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        image_size=SIZE,
        patch_size=recipe.patch,
        projection_dim=recipe.hidden,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.intermediate,
        max_position_embeddings=recipe.max_length,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        initializer_range=recipe.initializer_range,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=processor.image_token_id,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(SIZE // recipe.patch) ** 2,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlavaForConditionalGeneration(config)


def encoded(processor: LlavaProcessor, rows: Sequence[Row], response: str | None) -> dict[str, Any]:
    """What the model is given of rows: the prompt alone, or with the response of a field behind it. Padded on
    the left."""
    texts = [
        processor.apply_chat_template(
            [*row["prompt"], *(row[response] if response else ())], add_generation_prompt=response is None
        )
        for row in rows
    ]
    pictures = [picture for row in rows for picture in row["images"]]
    return dict(
        processor(text=texts, images=pictures, add_special_tokens=False, padding=True, return_tensors="pt")
    )


def answered(processor: LlavaProcessor, inputs: dict[str, Any]) -> torch.Tensor:
    """Which tokens are the response's: all behind the role of the assistant."""
    role = inputs["input_ids"] == processor.tokenizer.convert_tokens_to_ids(ROLES["assistant"])
    return (role.cumsum(1) > 0) & ~role


def _trained(
    processor: LlavaProcessor,
    corpus: Iterator[Row],
    recipe: ShapesRecipe,
    seed: int,
    report: Report | None,
) -> LlavaForConditionalGeneration:
    model = untrained(processor, recipe, seed).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.01, fused=True)
    decay = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / recipe.warmup, (recipe.steps - step) / (recipe.steps - recipe.warmup)),
    )
    for step in range(1, recipe.steps + 1):
        inputs = encoded(processor, [next(corpus) for _ in range(recipe.batch)], "chosen")
        scored = answered(processor, inputs)[:, 1:]
        logits = model(**inputs).logits[:, :-1]
        F.cross_entropy(logits[scored], inputs["input_ids"][:, 1:][scored]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad()
        decay.step()
        if report:
            report(step, recipe.steps)
    return model.eval()
