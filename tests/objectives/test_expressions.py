"""The language of losses: what it means, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch

from prefero.errors import PreferoError
from prefero.objectives import dry_run, from_config
from prefero.objectives.expressions import FUNCTIONS, VARIABLES, parse
from tests.objectives.batches import batch_for, build, pair_batch, slope_of


def value(loss: str, chosen: float = 0.6, rejected: float = -0.2, beta: float = 0.5) -> float:
    objective = build("expression", loss=loss, beta=beta)
    return float(objective.loss(pair_batch([chosen], [rejected])).detach())


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("z", 0.4),
        ("beta + 0 * z", 0.5),
        ("chosen_ratio - 2*rejected_ratio", 1.0),
        ("chosen_logp", -2.4),
        ("chosen_mean_logp * chosen_length", -2.4),
        ("-z ** 2", -0.16),
        ("(z > 0) + 10 * (z < 0) + 0 * z", 1.0),
        ("where(z > 0, 3, 4) + 0 * z", 3.0),
        ("minimum(z, 0.1) + maximum(z, 1)", 1.1),
        ("1 / (1 + exp(-z)) - sigmoid(z)", 0.0),
        ("log(exp(z)) + sqrt(square(z)) + abs(-z)", 1.2),
        ("softplus(z) + logsigmoid(-z)", 0.0),
        ("tanh(z) + relu(-z)", math.tanh(0.4)),
        ("mean(z)", 0.4),
        ("std(z)", 0.0),
    ],
)
def test_an_expression_is_worth_what_it_says(loss: str, expected: float) -> None:
    assert value(loss) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        ("__import__('os').system('true')", "not part of the language"),
        ("z.__class__", "not part of the language"),
        ("[z for z in (1,)]", "not part of the language"),
        ("(lambda: z)()", "not part of the language"),
        ("z if z else beta", "not part of the language"),
        ("'z'", "not part of the language"),
        ("True", "not part of the language"),
        ("z ** z", "not part of the language"),
        ("z ** 9", "not part of the language"),
        ("2 ** 9 ** 9 ** 9", "not part of the language"),
        ("0 < z < 1", "not part of the language"),
        ("1e400", "not part of the language"),
        ("softplus(x=z)", "not part of the language"),
        ("softplus(*z)", "not part of the language"),
        ("softplus(z, z)", "softplus takes 1 argument, not 2"),
        ("sofplus(z)", "did you mean 'softplus'"),
        ("chosen_lopg", "did you mean 'chosen_logp'"),
        ("z +", "no expression"),
        ("import os", "no expression"),
        ("+".join(["z"] * 290), "parts"),
        ("(" * 250 + "z" + ")" * 250, "no expression"),
        ("z" * 900, "characters"),
    ],
)
def test_what_is_no_loss_is_refused_with_the_reason(loss: str, reason: str) -> None:
    with pytest.raises(PreferoError, match=reason):
        parse(loss)


def test_only_what_an_expression_names_is_scored() -> None:
    free = dry_run(build("expression", loss="softplus(rejected_mean_logp - chosen_mean_logp)"))
    assert set(free.models) == {"policy"}
    assert set(dry_run(build("expression", loss="softplus(-z)")).models) == {"policy", "reference"}


def test_statistics_of_the_step_need_the_whole_step_and_others_do_not() -> None:
    assert dry_run(build("expression", loss="softplus(-z)")).exact
    assert not dry_run(build("expression", loss="softplus(mean(z) - z)")).exact


def test_a_detached_factor_weighs_and_does_not_pull() -> None:
    batch = pair_batch([0.3], [0.1])
    weighed = build("expression", loss="detach(sigmoid(-z)) * (-z)", beta=1.0)
    slope = slope_of(weighed.loss(batch), batch)
    torch.testing.assert_close(slope, slope_of(build("dpo", beta=1.0).loss(batch), batch))


def test_the_canonical_form_reads_as_the_same_expression() -> None:
    found = parse("softplus( -(z) )*2")
    assert found.text == "softplus(-z) * 2"
    assert parse(found.text) == found


def test_every_name_of_the_language_says_what_it_is() -> None:
    assert all(VARIABLES.values())
    assert all(function.meaning for function in FUNCTIONS.values())


def test_a_configuration_spells_it_and_text_is_asked_for() -> None:
    objective = from_config({"method": "expression", "loss": "relu(1 - z)", "plus": {"nll": 0.1}}).double()
    batch = batch_for(objective)
    plain = from_config({"method": "rso", "gamma": 0.1, "loss": "hinge_norm", "plus": {"nll": 0.1}}).double()
    torch.testing.assert_close(objective.loss(batch), plain.loss(batch))
    with pytest.raises(PreferoError, match=r"loss of expression is text, not 3"):
        from_config({"method": "expression", "loss": 3})
