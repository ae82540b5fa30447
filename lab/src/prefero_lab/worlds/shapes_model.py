"""The start model of the world ``shapes``: a small LLaVA with its processor, trained once, then read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
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

from prefero.demo.start import Report, one_thread, quiet, save_whole, word_tokenizer
from prefero.storage import cache_folder
from prefero_lab.worlds.shapes_scenes import COLOURS, SHAPES, SIZE, Scene, paint, quarters

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
    """Settings of a start model: fresh rows in every step, the loss on the response only."""

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    intermediate: int = 192
    patch: int = 8
    max_length: int = 128
    seeing_steps: int = 100
    steps: int = 1000
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
    scenes: Callable[[], Iterator[Scene]],
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
    folder = (cache or cache_folder("worlds")) / f"shapes-{key}"
    if not folder.is_dir():
        processor = make_processor(words, recipe)
        with one_thread():
            model = untrained(processor, recipe, seed).train()
            _learn_to_see(model.model.vision_tower, processor, scenes(), recipe, seed)
            model.model.vision_tower.requires_grad_(False)
            _learn_to_answer(model, processor, corpus(), recipe, report)

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
    """Inputs of the model for rows: the prompt alone, or with the response of a field behind it. Padded on
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


def answered(processor: LlavaProcessor, inputs: dict[str, Any]) -> Tensor:
    """Mask of the response's tokens: all after the role of the assistant."""
    role = inputs["input_ids"] == processor.tokenizer.convert_tokens_to_ids(ROLES["assistant"])
    return (role.cumsum(1) > 0) & ~role


def _learn_to_see(
    tower: nn.Module, processor: LlavaProcessor, scenes: Iterator[Scene], recipe: ShapesRecipe, seed: int
) -> None:
    """The vision tower's own training: a linear reading of each quarter's patches tells what stands there."""
    side, hidden = SIZE // recipe.patch, recipe.hidden
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reading = nn.Linear(hidden, len(SHAPES) + len(COLOURS) + 2)
    optimizer, decay = _optimizer([tower, reading], recipe, recipe.seeing_steps)
    for _ in range(recipe.seeing_steps):
        seen = [next(scenes) for _ in range(2 * recipe.batch)]
        pixels = processor.image_processor([paint(scene) for scene in seen], return_tensors="pt").pixel_values
        patches = tower(pixels).last_hidden_state[:, 1:].view(-1, 2, side // 2, 2, side // 2, hidden)
        told = reading(patches.mean((2, 4)).flatten(1, 2))
        shapes, colours = told.split([len(SHAPES) + 1, len(COLOURS) + 1], -1)
        targets = torch.tensor([quarters(scene) for scene in seen])
        loss = F.cross_entropy(shapes.flatten(0, 1), targets[..., 0].flatten())
        loss = loss + F.cross_entropy(colours.flatten(0, 1), targets[..., 1].flatten())
        _step(loss, optimizer, decay, recipe.clip)


def _learn_to_answer(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    corpus: Iterator[Row],
    recipe: ShapesRecipe,
    report: Report | None,
) -> None:
    optimizer, decay = _optimizer([model], recipe, recipe.steps)
    for step in range(1, recipe.steps + 1):
        inputs = encoded(processor, [next(corpus) for _ in range(recipe.batch)], "chosen")
        scored = answered(processor, inputs)[:, 1:]
        logits = model(**inputs).logits[:, :-1]
        _step(
            F.cross_entropy(logits[scored], inputs["input_ids"][:, 1:][scored]), optimizer, decay, recipe.clip
        )
        if report:
            report(step, recipe.steps)


def _optimizer(modules: Sequence[nn.Module], recipe: ShapesRecipe, steps: int) -> tuple[Any, Any]:
    """AdamW that warms up, then falls linearly to 0."""
    weights = [weight for module in modules for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=recipe.lr, weight_decay=0.01, fused=True)
    warm = recipe.warmup
    return optimizer, torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, max(0, steps - step) / max(1, steps - warm))
    )


def _step(loss: Tensor, optimizer: Any, decay: Any, clip: float) -> None:
    loss.backward()
    torch.nn.utils.clip_grad_norm_([w for group in optimizer.param_groups for w in group["params"]], clip)
    optimizer.step()
    optimizer.zero_grad()
    decay.step()
