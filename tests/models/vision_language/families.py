"""Small models that see, of several families, and random images as their processors would hand them on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel

from prefero.data.images import Arrays, image_ids
from prefero.data.trie import Cell, TokenExample

VOCABULARY = 67
IMAGE = 66
"""The placeholder."""

TEXT: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
GRID: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}


def build(model_type: str, decoder: str, *, vocabulary: int = VOCABULARY, image: int = IMAGE, seed: int = 0,
          **changes: Any) -> PreTrainedModel:  # fmt: skip
    """A model of this type with random weights, far from uniform."""
    torch.manual_seed(seed)
    settings = {"image_token_id": image, "pad_token_id": 0, **changes}
    inside = {**TEXT, **settings.pop("text", {}), "vocab_size": vocabulary, "model_type": decoder}
    model = AutoModelForImageTextToText.from_config(
        AutoConfig.for_model(model_type, text_config=inside, **settings)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def _qwen(model_type: str, **options: Any) -> PreTrainedModel:
    vision = {"depth": 2, "num_heads": 4, "patch_size": 8, "spatial_merge_size": 2, **options.pop("vision")}
    marks = {"video_token_id": 8, "vision_start_token_id": 6, "vision_end_token_id": 7}
    text = {"rope_parameters": GRID}
    return build(model_type, f"{model_type}_text", vision_config=vision, text=text, **marks, **options)


def _clip(name: str) -> dict[str, Any]:
    return {"model_type": f"{name}_vision_model", **VISION}


MIXED = ["sliding_attention", "full_attention"]

FAMILIES: dict[str, Callable[..., PreTrainedModel]] = {
    "llava": lambda **o: build("llava", "llama", vision_config=_clip("clip"), vision_feature_layer=-1, **o),
    "llava-siglip": lambda **o: build(
        "llava",
        "qwen2",
        vision_config=_clip("siglip"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        **o,
    ),
    "idefics3": lambda **o: build("idefics3", "llama", vision_config=VISION, scale_factor=2, **o),
    "smolvlm": lambda **o: build("smolvlm", "llama", vision_config=VISION, scale_factor=2, **o),
    "qwen2-vl": lambda **o: _qwen("qwen2_vl", vision={"embed_dim": 32, "hidden_size": 32}, **o),
    "qwen2.5-vl": lambda **o: _qwen(
        "qwen2_5_vl",
        vision={
            "hidden_size": 32,
            "intermediate_size": 48,
            "out_hidden_size": 32,
            "window_size": 32,
            "fullatt_block_indexes": [1],
        },
        **o,
    ),
    "qwen3-vl": lambda **o: _qwen(
        "qwen3_vl",
        vision={
            "hidden_size": 32,
            "intermediate_size": 48,
            "out_hidden_size": 32,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        **o,
    ),
    "llava-next": lambda **o: build(
        "llava_next",
        "llama",
        vision_config=_clip("clip"),
        vision_feature_layer=-1,
        image_grid_pinpoints=[[32, 64], [64, 32]],
        **o,
    ),
    "gemma3": lambda **o: build(
        "gemma3",
        "gemma3_text",
        vision_config=_clip("siglip"),
        text={"head_dim": 8, "sliding_window": 6, "layer_types": MIXED},
        mm_tokens_per_image=4,
        **o,
    ),
}


def arrays(family: str, seed: int) -> tuple[Arrays, int]:
    """A random image as the family's processor makes it, and how many tokens it takes."""
    generator = torch.Generator().manual_seed(seed)
    if family.startswith("qwen"):
        grid = torch.tensor([[1, 4, 4 + 2 * (seed % 2)]])
        rows = int(grid.prod())
        return {
            "pixel_values": torch.randn(rows, 3 * 2 * 8 * 8, generator=generator),
            "image_grid_thw": grid,
        }, rows // 4
    if family == "llava-next":  # the whole image and its halves, a token at the end of every line
        pixels = torch.randn(1, 3, 3, 32, 32, generator=generator)
        return {"pixel_values": pixels, "image_sizes": torch.tensor([[32, 64]])}, 16 + 4 * 9
    pixels = torch.randn(1, 3, 32, 32, generator=generator)
    if family in ("idefics3", "smolvlm"):
        return {"pixel_values": pixels[None]}, 4
    return {"pixel_values": pixels}, 4 if family == "gemma3" else 16


class Seen:
    """Some images of a family, and prompts that show them."""

    def __init__(self, family: str, count: int = 3) -> None:
        made = [arrays(family, seed) for seed in range(count)]
        self.keys = [1000 - 7 * number for number in range(count)]
        self.arrays = {key: one for key, (one, _) in zip(self.keys, made, strict=True)}
        self.tokens = [image_ids(key, tokens) for key, (_, tokens) in zip(self.keys, made, strict=True)]
        self.generator = np.random.default_rng(5)

    def text(self, length: int) -> np.ndarray:
        return self.generator.integers(3, 60, length)

    def context(self, *images: int, text: int = 4) -> np.ndarray:
        """Text, and before each further part of it an image."""
        parts = [self.text(text)]
        for image in images:
            parts += [self.tokens[image], self.text(text)]
        return np.concatenate(parts)

    def example(self, context: np.ndarray, *lengths: int, **views: Any) -> TokenExample:
        return TokenExample(tuple(Cell(context, self.text(length)) for length in lengths), {}, 0, views)
