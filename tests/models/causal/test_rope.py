"""Rotary positions that depend on length: a text has the numbers that it has alone, whatever is beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor

from prefero.data.packing import pack
from prefero.data.trie import TokenExample
from prefero.errors import PreferoError
from prefero.models.causal import selfcheck
from prefero.models.causal.rope import LengthRope, apart
from prefero.models.causal.scoring import Language
from prefero.models.text import length_limit
from prefero.objectives.batch import Signal
from tests.models.brute_force import VOCABULARY, cell_logps, examples, padded_stack, weights_like

SHORT = 24
SIZES: Any = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
LONG: Any = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": SHORT,
}


def longrope() -> tf.PreTrainedModel:
    torch.manual_seed(0)
    config = tf.Phi3Config(
        **SIZES, max_position_embeddings=256, original_max_position_embeddings=SHORT, rope_parameters=LONG
    )
    return tf.Phi3ForCausalLM(config)


def dynamic() -> tf.PreTrainedModel:
    torch.manual_seed(0)
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    config = tf.LlamaConfig(**SIZES, max_position_embeddings=SHORT, rope_parameters=rope)
    return tf.LlamaForCausalLM(config)


MODELS = pytest.mark.parametrize("build", [longrope, dynamic])
BATCH = examples((5, (3, 4)), (10, (10, 20)), (15, (9, 10)), (6, (2, 30)), (30, (3, 4)), (20, (8, 8)))
"""Lengths below, at and above the limit, also of the two sides of one pair."""


def alone(model: tf.PreTrainedModel, batch: list[TokenExample]) -> Tensor:
    """Every response in a forward of its own, as if it were the first."""
    rows = []
    for example in batch:
        rows.append([])
        for cell in example.cells:
            LengthRope.of(model).reset()  # type: ignore[union-attr]
            rows[-1].append(cell_logps(model, cell).gather(1, torch.from_numpy(cell.response)[:, None])[:, 0])
    return padded_stack(rows)


@MODELS
def test_neighbours_change_nothing(build: Callable[[], tf.PreTrainedModel]) -> None:
    model = build()
    expected = alone(model, BATCH)
    weights = weights_like(expected)
    (expected * weights).sum().backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    scored = Language.score(model, pack(BATCH))[""].logps
    torch.testing.assert_close(scored, expected, atol=2e-5, rtol=0)
    (scored * weights).sum().backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], atol=2e-3, rtol=1e-4)


@MODELS
def test_the_numbers_would_differ_otherwise(build: Callable[[], tf.PreTrainedModel]) -> None:
    model = build()
    expected = alone(model, BATCH)
    ids = [
        torch.cat([torch.from_numpy(cell.context), torch.from_numpy(cell.response)])
        for cell in BATCH[0].cells
    ]
    row = torch.nn.functional.pad(ids[0], (0, 40))[None]
    context = len(BATCH[0].cells[0].context)
    beside = model(row).logits[0, context - 1 : len(ids[0]) - 1].log_softmax(-1)
    read = beside.gather(1, ids[0][context:, None])[:, 0]
    assert (read - expected[0, 0, : len(read)]).abs().max() > 1e-2


@MODELS
def test_what_came_before_changes_nothing(build: Callable[[], tf.PreTrainedModel]) -> None:
    model, limit = build(), [example for example in BATCH if example.index == 2]
    first = Language.score(model, pack(limit))[""].logps
    Language.score(model, pack(examples((40, (20, 9)))))
    torch.testing.assert_close(Language.score(model, pack(limit))[""].logps, first, atol=0, rtol=0)


@MODELS
def test_short_texts_share_their_prompts(build: Callable[[], tf.PreTrainedModel]) -> None:
    model = build()
    short, long = pack(BATCH[:1]), pack(BATCH)
    assert Language.adapt(model) == "trees"
    assert apart(short, [model]) is short
    assert len(apart(long, [model])) > len(long)


@MODELS
def test_signals_are_those_of_the_texts_alone(build: Callable[[], tf.PreTrainedModel]) -> None:
    model = build()
    entropy, state = Signal("entropy"), Signal("state", "example response")
    wanted = frozenset({entropy, state, Signal("prompt_state", "example response")})
    together = Language.score(model, pack(BATCH), wanted)[""].signals
    for number, example in enumerate(BATCH):
        for response, cell in enumerate(example.cells):
            one = TokenExample((cell,), {}, 0)
            of_it = Language.score(model, pack([one]), wanted)[""].signals
            for signal in wanted:
                values = together[signal][number, response]
                if signal is entropy:
                    values = values[: len(cell.response)]
                torch.testing.assert_close(values, of_it[signal][0, 0], atol=5e-5, rtol=0)


@MODELS
def test_the_check_covers_long_texts(
    build: Callable[[], tf.PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were long texts scored like others, the check would see it."""
    monkeypatch.setattr(LengthRope, "splits", lambda self, forest: False)
    with pytest.raises(PreferoError, match="differ by"):
        Language.adapt(build())


@MODELS
def test_the_check_leaves_the_model_as_it_was(build: Callable[[], tf.PreTrainedModel]) -> None:
    model = build()
    before = model.config.to_dict()
    selfcheck.choose(model, "auto")
    assert model.config.to_dict() == before
    assert LengthRope.of(model).short == SHORT  # type: ignore[union-attr]


def test_layers_that_differ_are_refused_by_name() -> None:
    config = dynamic().config
    rope = {"full_attention": config.rope_parameters, "sliding_attention": {"rope_type": "default"}}
    model = dynamic()
    model.config.rope_parameters = rope
    with pytest.raises(PreferoError, match="rope of type dynamic"):
        LengthRope.of(model)


def test_dynamic_rope_stretches_the_context() -> None:
    assert length_limit(4 * SHORT, dynamic().config) == 4 * SHORT
    with pytest.raises(PreferoError, match=f"{4 * SHORT} positions"):
        length_limit(4 * SHORT + 1, dynamic().config)
    assert length_limit(256, longrope().config) == 256
