"""Recipes, overrides and the flags of the short form make one configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from prefero.cli.recipe import load_yaml, parse_override, read_recipe
from prefero.cli.train import configuration
from prefero.errors import PreferoError
from prefero.training.config import TrainConfig
from prefero.training.overrides import override

RECIPE = """
model: Qwen/Qwen3-0.6B
data: {train: pairs.jsonl, eval: 0.1}
objective: {method: dpo, beta: 0.3}
training:
  learning_rate: 1e-6
output: runs/dpo
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    return str(file)


def test_scientific_numbers_are_numbers():
    assert load_yaml("[1e-5, 2E+3, .5e1, 1.5e-7, 1e]") == [1e-5, 2000.0, 5.0, 1.5e-7, "1e"]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_survives_the_command_line(value):
    assert parse_override(f"a.b={value!r}") == ("a.b", value)


def test_overrides_win_over_flags_and_flags_over_the_recipe(recipe):
    made = configuration(
        [recipe, "output=third", "objective.beta=0.7"], output=Path("second"), data="other.jsonl"
    )
    config = TrainConfig.parse(made)
    assert config.output == Path("third") and config.data.train == "other.jsonl" and config.data.eval == 0.1
    assert config.objective == {"method": "dpo", "beta": 0.7}
    assert config.training.learning_rate == 1e-6


def test_the_short_form_needs_no_recipe():
    made = configuration([], model="m", data="d.jsonl", eval_data="0.2", method="simpo", output=Path("o"))
    config = TrainConfig.parse(made)
    assert (config.model.name, config.data.train, config.data.eval) == ("m", "d.jsonl", 0.2)
    assert config.objective == {"method": "simpo"}


def test_another_method_by_flag_does_not_inherit_the_recipe_s_arguments(recipe):
    assert configuration([recipe], method="simpo")["objective"] == {"method": "simpo"}
    assert configuration([recipe], method="dpo")["objective"] == {"method": "dpo", "beta": 0.3}


def test_a_name_alone_becomes_a_section_when_a_key_is_set_in_it(recipe):
    made = configuration([recipe, "model.dtype=bfloat16"])
    assert made["model"] == {"name": "Qwen/Qwen3-0.6B", "dtype": "bfloat16"}


def test_nested_keys_make_their_sections():
    assert override({}, [parse_override("objective.plus.nll=0.2")]) == {"objective": {"plus": {"nll": 0.2}}}


def test_a_recipe_is_not_changed_by_overrides():
    given_recipe = {"training": {"max_steps": 1}}
    override(given_recipe, [("training.max_steps", 2)])
    assert given_recipe == {"training": {"max_steps": 1}}


def test_a_key_below_a_plain_value_is_refused():
    with pytest.raises(PreferoError, match="seed is 3 here, not a section"):
        override({"seed": 3}, [("seed.deep", 1)])


@pytest.mark.parametrize("name", sorted(path.name for path in Path("recipes").glob("*.yaml")))
def test_the_recipes_that_come_along_are_valid(name):
    from prefero.objectives import from_config

    config = TrainConfig.parse(read_recipe(Path("recipes") / name))
    assert from_config(config.objective).key == config.objective["method"]


def test_names_of_0_1_are_read_and_told_in_one_line(tmp_path, capsys):
    file = tmp_path / "old.yaml"
    old = "epochs: 2\n  warmup: 5\n  arguments: {adam_beta2: 0.9}"
    file.write_text(RECIPE.replace("learning_rate: 1e-6", old))
    settings = configuration([str(file)])
    assert settings["training"] == {"num_train_epochs": 2, "warmup_steps": 5, "adam_beta2": 0.9}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("prefero: ") and "training.epochs is training.num_train_epochs" in line
    assert TrainConfig.parse(settings).training.num_train_epochs == 2


def test_overrides_replace_what_the_recipe_says_by_either_name(recipe, tmp_path, capsys):
    old = tmp_path / "old.yaml"
    for override_of in ("training.arguments.learning_rate=2", "training.learning_rate=2"):
        assert configuration([recipe, override_of])["training"] == {"learning_rate": 2}
    old.write_text(RECIPE.replace("learning_rate: 1e-6", "epochs: 3"))
    for override_of in ("training.epochs=4", "training.num_train_epochs=4"):
        assert configuration([str(old), override_of])["training"] == {"num_train_epochs": 4}
    assert configuration([recipe, "training.save_steps=null"])["training"]["save_strategy"] == "no"
    capsys.readouterr()
    with pytest.raises(PreferoError, match="given twice"):
        configuration([recipe, "training.epochs=4", "training.num_train_epochs=4"])


@pytest.mark.parametrize("key", ["samples", "training.samples"])
@pytest.mark.parametrize(
    "written", ["samples: 7\n", "training: {samples: 7}\n", "samples: {prompts: 7, every: 2}\n"]
)
def test_samples_are_replaced_from_either_place(key, written, recipe, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: M\ndata: D\noutput: O\n{written}")
    config = TrainConfig.parse(configuration([str(recipe), f"{key}=3"]))
    assert config.samples.prompts == 3 and config.samples.every is None
    told = capsys.readouterr().err.count("training.samples is samples")
    assert told == (key == "training.samples") + ("training:" in written)


def test_a_key_of_samples_goes_with_the_number_of_prompts(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: M\ndata: D\noutput: O\nsamples: 7\n")
    config = TrainConfig.parse(configuration([str(recipe), "samples.every=0.25"]))
    assert (config.samples.prompts, config.samples.every) == (7, 0.25)


def test_an_override_may_be_longer_than_a_file_name():
    loss = "softplus(-z)" + "+0.001*square(z)" * 30
    assert configuration([f"objective.loss={loss}"])["objective"] == {"loss": loss}
