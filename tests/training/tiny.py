"""A tiny model, tokenizer and data that the tests of training and references share."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

WORDS = [*"abcdefghijklmnopqrstuvw"]


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["<eos>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>")


def tiny_model(seed: int = 0, *, tied: bool = False, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS) + 2,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=0,
        initializer_range=0.3,  # log-ratios large enough to tell a wrong loss from a right one
    )
    return LlamaForCausalLM(config).to(dtype)


def tiny_experts(**settings: Any) -> Qwen3MoeForCausalLM:
    """A mixture of experts, whose files have other names than the model."""
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=len(WORDS) + 2,
        hidden_size=16,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_experts=4,
        num_experts_per_tok=2,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=0,
        initializer_range=0.3,
        **settings,
    )
    return Qwen3MoeForCausalLM(config)


def text(generator: random.Random, least: int, most: int) -> str:
    return " ".join(generator.choices(WORDS, k=generator.randint(least, most)))


def pairs(count: int, seed: int = 0) -> list[dict[str, Any]]:
    generator = random.Random(seed)
    return [
        {
            "prompt": text(generator, 2, 8),
            "chosen": " " + text(generator, 1, 9),
            "rejected": " " + text(generator, 1, 9) + " w",
        }
        for _ in range(count)
    ]


def saved_model(folder: Path, seed: int = 0, **options: Any) -> str:
    tiny_model(seed, **options).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)
