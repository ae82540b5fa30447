"""The loss that balances experts is the model's own, over every token once, whatever the packing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from torch import Tensor

from prefero.data.packing import pack
from prefero.data.trie import Cell, TokenExample
from prefero.models.causal.experts import balance_of
from prefero.models.causal.scoring import Language
from prefero.models.kind import Packing
from prefero.models.signals import ROUTER_LOSS
from tests.models.brute_force import PAIRS, VOCABULARY, examples

SIZES: Any = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "output_router_logits": True,
    "router_aux_loss_coef": 0.5,
}


def mixtral(**settings: Any) -> tf.PreTrainedModel:
    torch.manual_seed(0)
    return tf.MixtralForCausalLM(tf.MixtralConfig(**{**SIZES, "num_local_experts": 4, **settings}))


def qwen(**settings: Any) -> tf.PreTrainedModel:
    torch.manual_seed(0)
    own = {"num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8}
    return tf.Qwen3MoeForCausalLM(tf.Qwen3MoeConfig(**{**SIZES, **own, **settings}))


def routers(model: tf.PreTrainedModel) -> Tensor:
    """The gradient of all routers."""
    return torch.cat([w.grad.flatten() for n, w in sorted(model.named_parameters()) if "gate.weight" in n])


def chains(batch: list[TokenExample]) -> list[TokenExample]:
    """The first responses, so that nothing is shared and a plain forward sees the same tokens."""
    return [TokenExample(example.cells[:1], {}, example.index) for example in batch]


def own_loss(model: tf.PreTrainedModel, batch: list[TokenExample]) -> Tensor:
    """By the model's own forward over padded rows."""
    texts = [np.concatenate((cell.context, cell.response)) for e in batch for cell in e.cells]
    width = max(map(len, texts))
    ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    return model(input_ids=ids, attention_mask=mask, use_cache=False).aux_loss


def scored(model: tf.PreTrainedModel, batch: list[TokenExample]) -> Tensor:
    values = Language.score(model, pack(batch), frozenset({ROUTER_LOSS}))[""].signals[ROUTER_LOSS]
    assert values.shape == (len(batch),) and (values == values[0]).all()
    return values[0]


@pytest.mark.parametrize("packing", ["trees", "dense", "padded"])
@pytest.mark.parametrize("build", [mixtral, qwen])
def test_it_is_the_models_own_with_its_gradient(build: Any, packing: Packing) -> None:
    model, batch = build(), chains(examples(*PAIRS))
    expected = own_loss(model, batch)
    expected.backward()
    gradient = routers(model)
    assert gradient.norm() > 1e-3
    model.zero_grad()
    Language.adapt(model, packing)
    loss = scored(model, batch)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)
    loss.backward()
    torch.testing.assert_close(routers(model), gradient, atol=1e-6, rtol=1e-4)


def test_shared_tokens_count_once_in_every_packing() -> None:
    batch = examples(*PAIRS)
    found = []
    for packing in ("trees", "dense", "padded"):
        model = mixtral()
        Language.adapt(model, packing)
        found.append(scored(model, batch).item())
    assert found == pytest.approx([found[0]] * 3, abs=1e-5)
    assert own_loss(mixtral(), batch).item() != pytest.approx(found[0], abs=1e-5)  # prompts twice


def test_log_probabilities_stay_as_they_are() -> None:
    model, forest = mixtral(), pack(examples(*PAIRS))
    plain = Language.score(model, forest)[""].logps
    torch.testing.assert_close(Language.score(model, forest, frozenset({ROUTER_LOSS}))[""].logps, plain)


def test_long_texts_of_a_model_whose_positions_depend_on_length() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    model = qwen(max_position_embeddings=12, rope_parameters=rope)
    batch = [
        TokenExample((Cell(e.cells[0].context, e.cells[0].response),), {}, 0) for e in examples((9, (12,)))
    ]
    torch.testing.assert_close(scored(model, batch), own_loss(model, batch), atol=1e-5, rtol=0)


def test_the_configuration_decides() -> None:
    assert balance_of(mixtral()) == (0.5, "")
    coefficient, told = balance_of(mixtral(output_router_logits=False))
    assert coefficient == 0 and "output_router_logits" in told and "left out" in told and "0.5" in told
    assert balance_of(mixtral(router_aux_loss_coef=0.0)) == (0.0, "")
    own = tf.LlamaForCausalLM(tf.LlamaConfig(**{n: v for n, v in SIZES.items() if "router" not in n}))
    assert balance_of(own) == (0.0, "")
