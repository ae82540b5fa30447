"""Methods by name, and from configurations: what they record, and what they refuse with which words."""

from __future__ import annotations

import inspect
import json
import re

import pytest
import torch
import yaml

from prefero.errors import PreferoError
from prefero.objectives import Compare, Match, Objective, find, from_config, method, methods, primary
from prefero.objectives.presets.pairs import simpo
from tests.objectives.batches import ARGUMENTS, KEYS, batch_for, build, ready


def refusal(config) -> str:
    with pytest.raises(PreferoError) as refused:
        from_config(config)
    return str(refused.value)


@pytest.mark.parametrize("key", KEYS)
def test_an_entry_says_what_a_reader_needs(key: str) -> None:
    entry = methods()[key]
    assert entry.title
    assert entry.equation
    assert entry.description
    assert entry.feedback
    if entry.paper:
        assert re.fullmatch(r"p\d{3}", entry.paper)
    if key != "nll":
        assert re.search(r"20\d\d", entry.citation)
    for name, default in entry.defaults.items():
        assert entry.parameters[name].checked(default, key) == default
    for settings in entry.settings.values():
        own = {name: value for name, value in settings.items() if name != "learning_rate"}
        assert isinstance(method(key, **{**ARGUMENTS.get(key, {}), **own}), Objective)


@pytest.mark.parametrize("key", KEYS)
def test_an_objective_records_how_it_is_built_again(key: str) -> None:
    objective = build(key)
    config = json.loads(json.dumps({"method": objective.key, **objective.arguments}))
    again = ready(from_config(config))
    assert again.key == key
    assert again.arguments == objective.arguments
    batch = batch_for(objective)
    assert torch.equal(objective.loss(batch), again.loss(batch))


@pytest.mark.parametrize(
    ("key", "kind"), [("dpo", Compare), ("exo_rw", Match), ("kto", Compare), ("nll", type(None))]
)
def test_the_reward_that_a_log_shows(key: str, kind: type) -> None:
    assert isinstance(primary(build(key)), kind)


def test_the_reward_of_a_sum_is_that_of_its_first_comparison() -> None:
    objective = from_config({"method": "simpo", "beta": 3.0, "plus": {"nll": 0.2}})
    assert primary(objective) is primary(objective.parts[0])
    batch = batch_for(objective.double())
    mean = (batch.models["policy"].logps * batch.mask).sum(-1) / batch.lengths
    torch.testing.assert_close(primary(objective).reward(batch), 3.0 * mean)


def test_a_preset_called_from_python_records_too() -> None:
    objective = simpo(2.5, gamma=0.3)
    assert objective.key == "simpo"
    assert objective.arguments["beta"] == 2.5
    assert objective.arguments["gamma"] == 0.3
    assert objective.arguments["smoothing"] == 0.0


@pytest.mark.parametrize(("alias", "key"), [("exo", "exo_pref"), ("tdpo", "tdpo2"), ("mpo", "mpo_set")])
def test_other_names(alias: str, key: str) -> None:
    assert method(alias).key == key
    assert find(alias) is methods()[key]


def test_a_combination_records_all_of_itself() -> None:
    nll = {"coefficient": 0.2, "tokens": "sum"}
    config = {"method": "dpo", "beta": 0.2, "weight": {"wpo": {"clamp": None}}, "plus": {"nll": nll}}
    objective = from_config(config)
    assert objective.key == "dpo"
    assert {"method": "dpo", **objective.arguments} == config
    assert json.loads(json.dumps(objective.arguments)) == objective.arguments


def test_the_weight_of_a_configuration_is_the_methods_own() -> None:
    combined, own = from_config({"method": "dpo", "beta": 0.01, "weight": "wpo"}).double(), build("wpo")
    batch = batch_for(own)
    assert torch.equal(combined.loss(batch), own.loss(batch))


def test_a_weight_leaves_penalties_alone() -> None:
    config = {"method": "dpo", "plus": {"nll": 1.0}}
    plain, weighted = from_config(config).double(), from_config({**config, "weight": "wpo"}).double()
    batch = batch_for(weighted)
    assert torch.equal(plain(batch)[1].total, weighted(batch)[1].total)
    assert not torch.equal(plain(batch)[0].total, weighted(batch)[0].total)


def test_numbers_may_be_written_as_yaml_reads_them() -> None:
    assert yaml.safe_load("1e-3") == "1e-3"
    assert from_config({"method": "dpo", "beta": "1e-3"}).arguments == {"beta": 1e-3}


MISTAKES = [
    ("simpoo", "no method is called 'simpoo'; did you mean 'simpo'"),
    ({"method": "simpoo"}, "did you mean 'simpo'"),
    ({"method": "dpo", "bta": 1}, "dpo has no argument 'bta'; did you mean 'beta'? (it takes beta)"),
    ({"method": "dpo", "beta": 0}, "beta of dpo lies in (0, ∞), and 0 does not"),
    ({"method": "dpo", "beta": -0.1}, "lies in (0, ∞)"),
    ({"method": "dpo", "beta": float("nan")}, "lies in (0, ∞)"),
    ({"method": "dpo", "beta": float("inf")}, "lies in (0, ∞)"),
    ({"method": "dpo", "beta": "small"}, "beta of dpo is a number, not 'small'"),
    ({"method": "dpo", "beta": True}, "beta of dpo is a number, not True"),
    ({"method": "dpo", "beta": None}, "beta of dpo is a number, not None"),
    ({"method": "cdpo", "smoothing": 0.5}, "smoothing of cdpo lies in [0, 0.5), and 0.5 does not"),
    ({"method": "rdpo", "flip_rate": 0.5}, "flip_rate of rdpo lies in [0, 0.5)"),
    ({"method": "exo_pref", "smoothing": 0}, "smoothing of exo_pref lies in (0, 0.5)"),
    ({"method": "todo", "alpha": 0}, "alpha of todo lies in (0, ∞)"),
    ({"method": "ld_dpo", "alpha": 1.2}, "alpha of ld_dpo lies in [0, 1]"),
    ({"method": "beta_dpo", "keep": 0}, "keep of beta_dpo lies in (0, 1]"),
    ({"method": "f_dpo", "alpha": 1}, "alpha of f_dpo lies in (0, 1)"),
    ({"method": "f_dpo", "divergence": "jds"}, "not 'jds'; did you mean 'jsd'"),
    ({"method": "ipo", "tokens": "average"}, "tokens of ipo is one of 'mean', 'sum', not 'average'"),
    ({"method": "group_robust", "counts": 3}, "counts of group_robust is a list of numbers, not 3"),
    ({"method": "group_robust", "counts": [3, 0]}, "counts of group_robust lies in (0, ∞), and 0 does not"),
    ({"method": "dpo", "weight": "wpoo"}, "no weight is called 'wpoo'; did you mean 'wpo'"),
    ({"method": "dpo", "weight": 2}, "`weight` is a name"),
    ({"method": "dpo", "weight": {"wpo": {"clmp": 1}}}, "the weight wpo has no argument 'clmp'"),
    ({"method": "dpo", "weight": {"wpo": {"clamp": "high"}}}, "clamp of the weight wpo is a number"),
    ({"method": "dpo", "weight": {"wpo": {"clamp": 0}}}, "clamp of the weight wpo"),
    ({"method": "wpo", "clamp": -1}, "clamp of wpo lies in (0, ∞), and -1 does not"),
    ({"method": "wpo", "weight": "wpo"}, "wpo already is the weight"),
    ({"method": "mpo_set", "weight": "wpo"}, "the weight wpo does not go with mpo_set: Sets compares"),
    ({"method": "exo_rw", "weight": "wpo"}, "the weight wpo does not go with exo_rw"),
    ({"method": "dpo", "plus": {"nul": 0.2}}, "no method is called 'nul'; did you mean 'nll'"),
    ({"method": "dpo", "plus": {"nll": "much"}}, "coefficient of `plus.nll` is a number, not 'much'"),
    ({"method": "dpo", "plus": {"nll": {"tokens": "sum"}}}, "`plus.nll` needs a coefficient"),
    ({"method": "dpo", "plus": ["nll"]}, "`plus` maps methods to their coefficients"),
    ({"method": "kto", "plus": {"nll": 0.2}}, "kto plus nll makes no sense"),
    ({"method": "dpo", "plus": {"exo_rw": 0.2}}, "dpo plus exo_rw makes no sense"),
    ({"beta": 0.1}, "a mapping with a `method`"),
    ({"method": 3}, "a mapping with a `method`"),
    (["dpo"], "a mapping with a `method`"),
]


@pytest.mark.parametrize(("config", "message"), MISTAKES, ids=str)
def test_mistakes_are_named(config, message: str) -> None:
    assert message in refusal(config)


def test_a_group_without_a_count_is_named() -> None:
    objective = method("group_robust", counts=[3, 4]).double()
    batch = batch_for(objective)
    batch.columns["group"][0] = 2
    with pytest.raises(PreferoError, match="has a group 2, but group_robust was given counts of 2 groups"):
        objective(batch)


@pytest.mark.parametrize("key", KEYS)
def test_builders_keep_their_signatures(key: str) -> None:
    entry = methods()[key]
    assert list(inspect.signature(entry.build).parameters) == list(entry.parameters)
