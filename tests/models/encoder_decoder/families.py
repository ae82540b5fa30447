"""Small encoder–decoders of several families, and what their own forwards say of a response."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedModel

from prefero.data.trie import Cell
from tests.models.brute_force import VOCABULARY

T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
}


def build(model_type: str, *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A model of this type with random weights, its distributions far from uniform; what families keep
    beside the head is not 0 either."""
    settings = {"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 2}
    torch.manual_seed(seed)
    config = AutoConfig.for_model(model_type, **{**settings, **changes})
    model = AutoModelForSeq2SeqLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias.normal_()
    return model.eval()


def t5gemma() -> PreTrainedModel:
    part = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "pad_token_id": 0,
        "final_logit_softcapping": 2.0,
    }
    return build(
        "t5gemma", encoder=part, decoder={**part, "bos_token_id": 2, "cross_attention_hidden_size": 32}
    )


FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "t5": lambda: build("t5", **T5),
    "t5-untied": lambda: build("t5", tie_word_embeddings=False, feed_forward_proj="gated-gelu", **T5),
    "mt5": lambda: build("mt5", **T5),
    "umt5": lambda: build("umt5", **T5),
    "bart": lambda: build("bart", **BART),
    "mbart": lambda: build("mbart", **BART),
    "pegasus": lambda: build("pegasus", **BART),
    "m2m-100": lambda: build("m2m_100", **BART),
    "t5gemma": t5gemma,
}


def own_rows(model: PreTrainedModel, cell: Cell) -> Tensor:
    """Log-softmax rows [token, vocabulary] of a response, by the model's own forward with labels."""
    ids, labels = (torch.from_numpy(part)[None] for part in (cell.context, cell.response))
    return type(model).forward(model, input_ids=ids, labels=labels).logits[0].log_softmax(-1)


def own_logps(model: PreTrainedModel, cell: Cell) -> Tensor:
    return own_rows(model, cell).gather(1, torch.from_numpy(cell.response)[:, None])[:, 0]
