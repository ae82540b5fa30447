"""Small models of many families, with windows and chunks shorter than the texts they are tested on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY = 67
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MIXED = ["sliding_attention", "full_attention"]


def build(model_type: str, *, attention: str | None = None, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A model of this type with random weights, large enough that its distributions are far from uniform."""
    settings = {**SIZES, **changes}
    if attention is not None:
        settings["attn_implementation"] = attention
    torch.manual_seed(seed)
    config = AutoConfig.for_model(model_type, **settings)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: build("llama"),
    "llama-tied": lambda: build("llama", tie_word_embeddings=True),
    "llama-eager": lambda: build("llama", attention="eager"),
    "qwen2-windows": lambda: build(
        "qwen2", use_sliding_window=True, sliding_window=6, max_window_layers=1, layer_types=MIXED
    ),
    "qwen3": lambda: build("qwen3", head_dim=8),
    "qwen3-moe": lambda: build(
        "qwen3_moe", head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
    ),
    "mistral": lambda: build("mistral", sliding_window=6, head_dim=8),
    "gemma2": lambda: build("gemma2", head_dim=8, sliding_window=6, layer_types=MIXED, attention="eager"),
    "gemma3": lambda: build("gemma3_text", head_dim=8, sliding_window=6, layer_types=MIXED),
    "gpt2": lambda: build("gpt2", n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "gpt-neox": lambda: build("gpt_neox"),
    "phi3": lambda: build("phi3", sliding_window=6),
    "olmo2": lambda: build("olmo2"),
    "cohere": lambda: build("cohere", logit_scale=0.25),
    "granite": lambda: build("granite", logits_scaling=3.0),
}

FALLBACKS: dict[str, Callable[[], PreTrainedModel]] = {
    "mamba": lambda: build("mamba", state_size=8),
    "bloom": lambda: build("bloom", n_layer=2, n_head=4),
    "gpt-neo": lambda: build(
        "gpt_neo", num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=6
    ),
}
