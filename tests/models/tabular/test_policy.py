"""Tabular policies: real models of transformers whose log-probabilities, signals and gradients are exact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel

from prefero.data.formats import load_examples
from prefero.errors import PreferoError
from prefero.models.tabular.policy import TableBatch, TabularPolicy, arrange, score
from prefero.models.tabular.table import Table, look_up
from prefero.objectives.signals import (
    ENTROPY,
    LOG_Z,
    PROMPT_STATE,
    STATE,
    TOKEN_STATE,
    forward_kl,
    reverse_kl,
    top_k_mass,
)

TABLE = Table(("x", "y"), (("a", "b", "c"), ("a", "d")))
START = torch.tensor([[0.5, 0.3, 0.2], [0.9, 0.1, 0.0]], dtype=torch.float64)
ROWS = [{"prompt": "x", "chosen": "a", "rejected": "c"}, {"prompt": "y", "chosen": "d", "rejected": "a"}]


def policy(probabilities: torch.Tensor = START) -> TabularPolicy:
    return TabularPolicy.of(TABLE, probabilities)


def row(rows: list[dict] = ROWS) -> TableBatch:
    return arrange(list(look_up(load_examples(rows), TABLE, roles=("chosen", "rejected"))), TABLE)


def test_a_policy_starts_at_the_probabilities_that_it_was_given() -> None:
    torch.testing.assert_close(policy().probabilities(), START)
    uniform = TabularPolicy.of(TABLE).probabilities()
    torch.testing.assert_close(uniform, torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]]))


def test_a_log_linear_policy_moves_along_its_features_alone() -> None:
    features = torch.tensor([[[1.0], [0.0], [-1.0]], [[2.0], [0.0], [0.0]]], dtype=torch.float64)
    small = TabularPolicy.of(TABLE, START, features)
    assert [name for name, _ in small.named_parameters()] == ["theta"]
    with torch.no_grad():
        small.theta.fill_(0.7)
    expected = START * torch.exp(0.7 * features[..., 0])
    torch.testing.assert_close(small.probabilities(), expected / expected.sum(-1, keepdim=True))


@pytest.mark.parametrize("features", [None, torch.randn(2, 3, 4, dtype=torch.float64)])
def test_a_saved_policy_is_the_same_when_loaded(tmp_path: Path, features: torch.Tensor | None) -> None:
    saved = TabularPolicy.of(TABLE, START, features)
    with torch.no_grad():
        saved.theta.copy_(torch.randn(saved.theta.shape))
    saved.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).table == TABLE
    loaded = AutoModel.from_pretrained(tmp_path, dtype="auto")
    assert isinstance(loaded, TabularPolicy)
    assert loaded.dtype == torch.float64
    assert torch.equal(loaded.probabilities(), saved.probabilities())
    single = TabularPolicy.from_pretrained(tmp_path, dtype="float32")
    torch.testing.assert_close(single.probabilities(), saved.probabilities().float())


def test_log_probabilities_stand_where_the_responses_do() -> None:
    scored = score(policy(), row())[""]
    expected = torch.tensor([[0.5, 0.2], [0.1, 0.9]], dtype=torch.float64).log()
    torch.testing.assert_close(scored.logps[..., 0], expected)
    assert scored.mask.all()


def test_lists_of_different_lengths_are_filled_up() -> None:
    rows = [
        {"prompt": "x", "responses": ["a", "b", "c"], "scores": [1, 2, 3]},
        {"prompt": "y", "responses": ["d", "a"], "scores": [1, 0]},
    ]
    lists = look_up(load_examples(rows), TABLE, roles=(), columns={"score"})
    scored = score(policy(), arrange(list(lists), TABLE), frozenset({ENTROPY, STATE}))[""]
    assert scored.mask[..., 0].tolist() == [[True, True, True], [True, True, False]]
    assert scored.logps[1, 2, 0] == 0 and scored.signals[ENTROPY][1, 2, 0] == 0
    assert not scored.signals[STATE][1, 2].any()


def test_gradients_are_those_of_the_softmax_and_none_where_there_is_no_response() -> None:
    model = policy()
    score(model, row([ROWS[1]]))[""].logps[0, 0, 0].backward()  # log π(d | y)
    expected = torch.tensor([[0.0, 0.0, 0.0], [-0.9, 0.9, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(model.theta.grad, expected)


def test_signals_are_of_the_distribution_over_responses() -> None:
    model = policy()
    other = policy(torch.tensor([[0.2, 0.2, 0.6], [0.5, 0.5, 0.0]], dtype=torch.float64))
    wanted = frozenset({ENTROPY, LOG_Z, forward_kl(), reverse_kl(), top_k_mass(1)})
    table = row()
    found = score(model, table, wanted, {"reference": other(table.prompts).logits})[""].signals
    p, q = START, other.probabilities().detach()

    def kl(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
        return torch.where(one > 0, one * (one / two).log(), 0).sum(-1)

    for signal, expected in {
        ENTROPY: torch.special.entr(p).sum(-1),
        reverse_kl(): kl(p, q),
        forward_kl(): kl(q, p),
        top_k_mass(1): p.amax(-1),
    }.items():
        torch.testing.assert_close(found[signal][..., 0], expected[:, None].expand(2, 2))
    assert torch.isfinite(found[LOG_Z]).all()


def test_states_are_indicators_of_which_a_linear_head_makes_a_table() -> None:
    found = score(policy(), row(), frozenset({STATE, PROMPT_STATE, TOKEN_STATE}))[""].signals
    assert found[PROMPT_STATE].argmax(-1).tolist() == [[0, 0], [1, 1]]
    assert found[STATE].argmax(-1).tolist() == [[0, 2], [4, 3]]
    assert found[TOKEN_STATE].shape == (2, 2, 1, 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "z"}, r"row 2: the model's table has no prompt that reads 'z'. It has 'x', 'y'"),
        ({"chosen": "b"}, r"row 2: .* no response to the prompt 'y' that reads 'b'. It has 'a', 'd'"),
        ({"chosen": "e"}, r"row 2: .* no response to the prompt 'y' that reads 'e'"),
    ],
)
def test_a_row_that_the_table_does_not_have_is_named(change: dict, message: str) -> None:
    with pytest.raises(PreferoError, match=message):
        row([ROWS[0], ROWS[1] | change])


def test_what_a_table_cannot_give_is_refused_by_name() -> None:
    examples = load_examples(ROWS)
    with pytest.raises(PreferoError, match="'token_weight', which annotates parts of a response"):
        look_up(examples, TABLE, roles=("chosen", "rejected"), columns={"token_weight"})
    with pytest.raises(PreferoError, match="without their prompts"):
        look_up(examples, TABLE, roles=("chosen", "rejected"), views={"unprompted": ()})
    with pytest.raises(PreferoError, match=r"for the view 'mismatched': .* no response to the prompt 'x'"):
        look_up(examples, TABLE, roles=("chosen", "rejected"), views={"mismatched": ()})


def test_mismatched_responses_are_those_of_the_other_prompt() -> None:
    shared = Table(("x", "y"), (("a", "b"), ("b", "a")))
    rows = [{"prompt": "x", "chosen": "a", "rejected": "b"}, {"prompt": "y", "chosen": "b", "rejected": "a"}]
    found = look_up(load_examples(rows), shared, roles=("chosen", "rejected"), views={"mismatched": ()})
    model = TabularPolicy.of(shared, torch.tensor([[0.8, 0.2], [0.7, 0.3]]))
    scored = score(model, arrange(list(found), shared))
    # y lends b and a to x, x lends a and b to y, where they stand in another order
    expected = torch.tensor([[0.2, 0.8], [0.3, 0.7]]).log()
    torch.testing.assert_close(scored["mismatched"].logps[..., 0], expected)


@pytest.mark.parametrize(
    ("prompts", "responses", "message"),
    [
        (("x", "x"), (("a",), ("b",)), "prompt 'x' stands there twice"),
        (("x",), (("a", "a"),), "response 'a' stands there twice"),
        (("x",), ((),), "no response to 'x'"),
        (("x",), (), "1 prompts and responses to 0"),
    ],
)
def test_tables_without_sense_are_refused(prompts: tuple, responses: tuple, message: str) -> None:
    with pytest.raises(PreferoError, match=message):
        Table(prompts, responses)


def test_probabilities_and_features_have_to_fit() -> None:
    with pytest.raises(PreferoError, match="positive and add up to 1"):
        TabularPolicy.of(TABLE, torch.tensor([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0]]))
    with pytest.raises(PreferoError, match="positive and add up to 1"):
        TabularPolicy.of(TABLE, torch.tensor([[0.5, 0.3, 0.3], [0.9, 0.1, 0.0]]))
    with pytest.raises(PreferoError, match=r"shape \(2, 2, 1\); the table is \(2, 3, 1\)"):
        TabularPolicy.of(TABLE, START, torch.zeros(2, 2, 1))
