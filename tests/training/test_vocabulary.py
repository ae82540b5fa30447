"""The names of settings: every one of transformers and TRL is taken, or answered with what it is here."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from prefero.errors import PreferoError
from prefero.training.config import (
    OUR_SIZES,
    OWN,
    PreferenceArguments,
    Settings,
    TrainConfig,
    read_settings,
)
from prefero.training.run import arguments
from prefero.training.trainer import PreferenceTrainer
from prefero.training.vocabulary import (
    FORMER_NAMES,
    OLD_NAMES,
    RECIPE_PLACES,
    REFUSED,
    REPLACED,
    TAKEN,
    TRL_NAMES,
    as_arguments,
    current_names,
)
from tests.training.tiny import pairs, tiny_model

LEAST: dict[str, Any] = {"model": "org/model", "data": "org/data", "output": "runs/one"}
THEIRS = {field.name: field for field in fields(TrainingArguments)}


def other_than(default: Any) -> Any:
    """A value that is not the default."""
    return {bool: not default, int: 3, float: 0.5, str: "another"}.get(type(default), "another")


def parsed(**training: Any) -> PreferenceArguments:
    return arguments(TrainConfig.parse({**LEAST, "training": training}))


def test_every_field_of_transformers_is_in_one_table() -> None:
    tables = (TAKEN, REPLACED.keys(), REFUSED.keys())
    for name in THEIRS:
        assert sum(name in table for table in tables) == 1, (
            f"decide on {name}: is it taken, and what does it do?"
        )


def test_what_is_taken_can_be_set_in_a_recipe() -> None:
    assert (TAKEN & THEIRS.keys()) - RECIPE_PLACES.keys() <= Settings.model_fields.keys()
    args = parsed(
        adam_beta2=0.9, optim="sgd", report_to=["tensorboard"], save_strategy=False, hub_strategy="end"
    )
    assert (args.adam_beta2, args.optim, args.report_to) == (0.9, "sgd", ["tensorboard"])
    assert (args.save_strategy, args.hub_strategy) == ("no", "end")


@pytest.mark.parametrize("name", sorted(REPLACED.keys() | REFUSED.keys()))
def test_what_is_not_taken_is_answered_wherever_it_is_set(name: str, tmp_path: Path) -> None:
    """And at its default it is passed over, for whoever writes all arguments out."""
    if name not in THEIRS:
        pytest.skip(f"this transformers has no {name}")
    field = THEIRS[name]
    default = getattr(PreferenceArguments, name, None)
    if field.default_factory is not MISSING:
        default = field.default_factory()
    answer = re.escape(REPLACED[name].setting if name in REPLACED else REFUSED[name])
    value = other_than(default)
    for give in (
        lambda value: TrainConfig.parse({**LEAST, "training": {name: value}}),
        lambda value: TrainConfig.parse({**LEAST, "training": {"arguments": {name: value}}}),
        lambda value: PreferenceArguments(output_dir=str(tmp_path), **{name: value}),
        lambda value: PreferenceArguments.given(None, {"output_dir": str(tmp_path), name: value}),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            with pytest.raises(PreferoError, match=f"{name} .*{answer}"):
                give(value)
            if name not in OUR_SIZES:
                give(default)


def test_what_replaces_a_setting_is_there() -> None:
    for name, (setting, _) in REPLACED.items():
        section, _, key = setting.partition("=")[0].partition(".")
        assert section in TrainConfig.model_fields, name
        assert section != "training" or key in Settings.model_fields, name


def test_the_precision_has_one_name() -> None:
    for precision, flags in {
        "float32": (False, False),
        "bfloat16": (True, False),
        "float16": (False, True),
        "auto": (False, False),  # no GPU here
    }.items():
        args = PreferenceArguments(output_dir="x", precision=precision, use_cpu=True)
        assert (args.bf16, args.fp16) == flags
    with pytest.raises(PreferoError, match=r"training\.bf16 is training\.precision=bfloat16 here"):
        parsed(bf16=True)


def test_a_copy_of_arguments_is_made_as_they_were() -> None:
    args = PreferenceArguments(
        output_dir="x", precision="bfloat16", activation_checkpointing=True, use_cpu=True
    )
    assert replace(args, learning_rate=1e-3).to_dict() == {**args.to_dict(), "learning_rate": 1e-3}
    with pytest.raises(PreferoError, match="examples_per_step is 0"):
        replace(args, examples_per_step=0)


def test_arguments_survive_their_own_dictionary() -> None:
    given = PreferenceArguments(output_dir="out", precision="bfloat16", learning_rate=1e-3, save_steps=7)
    for again in (
        PreferenceArguments(**given.to_dict()),
        PreferenceArguments(**json.loads(given.to_json_string())),
        PreferenceArguments.given(None, given.to_dict()),
    ):
        assert again.to_dict() == given.to_dict()
        assert again.bf16 == given.bf16


@pytest.mark.parametrize(
    "change",
    [
        {"neftune_noise_alpha": 5.0},
        {"label_smoothing_factor": 0.5},
        {"per_device_train_batch_size": 8},
        {"dataloader_drop_last": True},
        {"fp16": True},
    ],
    ids=str,
)
def test_a_changed_copy_of_arguments_is_checked_too(change: dict[str, Any]) -> None:
    given = PreferenceArguments(output_dir="out", precision="bfloat16")
    with pytest.raises(PreferoError, match=next(iter(change))):
        replace(given, **change)


def test_a_size_that_says_nothing_of_a_step_is_refused_at_its_default_too() -> None:
    with pytest.raises(PreferoError, match=r"is training\.examples_per_step here"):
        read_settings({"per_device_train_batch_size": 1}, "training.")


@pytest.mark.parametrize("off", [{"gradient_checkpointing": False}, {"fsdp": ""}, {"bf16": None}], ids=str)
def test_what_is_switched_off_may_be_said(off: dict[str, Any]) -> None:
    assert read_settings(off, "training.") == {}


@pytest.mark.parametrize("name", ["learning_rate", "max_steps", "examples_per_step", "adam_beta1", "seed"])
def test_true_is_no_number(name: str) -> None:
    with pytest.raises(PreferoError, match=f"{name} is True: true and false are no numbers"):
        PreferenceArguments(output_dir="out", **{name: True})


def test_names_of_trl_are_answered_with_what_they_are_here() -> None:
    trl = pytest.importorskip("trl")
    for field in fields(trl.DPOConfig):
        name = field.name
        if name in THEIRS or name == "max_length":
            continue
        assert name in TRL_NAMES, f"{name} of DPOConfig has no answer"
        with pytest.raises(PreferoError, match=re.escape(TRL_NAMES[name])):
            parsed(**{name: 1})
        with pytest.raises(PreferoError, match=re.escape(as_arguments(TRL_NAMES[name]))):
            PreferenceTrainer(tiny_model(), pairs(4), output_dir="x", **{name: 1})


def test_no_other_name_is_a_setting_here() -> None:
    assert not (TRL_NAMES.keys() | FORMER_NAMES.keys()) & (THEIRS.keys() | Settings.model_fields.keys())
    assert not OLD_NAMES.keys() & Settings.model_fields.keys()
    assert set(OLD_NAMES.values()) <= Settings.model_fields.keys()
    assert not (TAKEN | OWN) & (REFUSED.keys() | REPLACED.keys())


def test_arguments_of_the_trainer_that_a_recipe_has_elsewhere() -> None:
    for name, place in RECIPE_PLACES.items():
        with pytest.raises(PreferoError, match=rf"training\.{name} is {place} in a recipe"):
            parsed(**{name: 3})


def test_a_run_of_0_1_is_the_same_run() -> None:
    old = {
        "epochs": 2,
        "schedule": "linear",
        "warmup": 0.2,
        "optimizer": "sgd",
        "resume": "auto",
        "save_steps": None,
        "arguments": {"adam_beta1": 0.8},
    }
    new = {
        "num_train_epochs": 2,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.2,
        "optim": "sgd",
        "resume_from_checkpoint": "auto",
        "save_strategy": "no",
        "adam_beta1": 0.8,
    }
    with pytest.warns(FutureWarning, match=r"training\.epochs is training\.num_train_epochs") as told:
        args = parsed(**old)
    assert len(told) == 1 and "\n" not in str(told[0].message)
    assert all(name in str(told[0].message) for name in (*OLD_NAMES.values(), "arguments.adam_beta1"))
    assert args.to_dict() == parsed(**new).to_dict()


@pytest.mark.parametrize(
    "both",
    [
        {"epochs": 2, "num_train_epochs": 2},
        {"num_train_epochs": 2, "epochs": 2},
        {"save_steps": None, "save_strategy": "no"},
        {"weight_decay": 0.1, "arguments": {"weight_decay": 0.1}},
        {"warmup": 0.1, "arguments": {"warmup_steps": 0.1}},
    ],
)
def test_an_old_and_a_new_name_together_are_refused(both: dict[str, Any]) -> None:
    with pytest.raises(PreferoError, match="is given twice, once as training"):
        current_names(both, print, "training.")


def test_names_of_now_are_not_told() -> None:
    assert current_names({"num_train_epochs": 2, "save_steps": 5}, pytest.fail) == {
        "num_train_epochs": 2,
        "save_steps": 5,
    }


def test_the_migration_page_has_every_old_name() -> None:
    page = (Path(__file__).parents[2] / "docs" / "migration.md").read_text("utf-8")
    for old, new in OLD_NAMES.items():
        assert f"| `training.{old}` | `training.{new}` |" in page


def test_a_default_recipe_resolves_as_in_0_1() -> None:
    """The effective arguments of a recipe that says nothing, and of one with held-out data."""
    pinned: dict[str, Any] = {
        "num_train_epochs": 1.0,
        "max_steps": -1,
        "learning_rate": None,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-8,
        "examples_per_step": 32,
        "tokens_per_row": None,
        "layout": "auto",
        "max_length": None,
        "bf16": False,
        "fp16": False,
        "activation_checkpointing": False,
        "dropout": False,
        "parallel": "auto",
        "logging_strategy": "steps",
        "logging_steps": 10,
        "logging_nan_inf_filter": False,
        "eval_strategy": "no",
        "save_strategy": "steps",
        "save_steps": 500,
        "save_total_limit": 2,
        "save_only_model": False,
        "seed": 0,
        "data_seed": None,
        "report_to": [],
        "remove_unused_columns": False,
        "per_device_train_batch_size": 1,
        "per_device_eval_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "objective_learning_rate": None,
        "objective_weight_decay": 0.0,
        "extrapolation": None,
        "extrapolation_every": None,
        "overwrite": False,
        "output_dir": "runs/one",
    }
    resolved = arguments(TrainConfig.parse(LEAST))
    assert {name: getattr(resolved, name) for name in pinned} == pinned
    held_out = {**LEAST, "data": {"train": "org/data", "eval": 0.1, "max_length": 77}, "seed": 3}
    changed = {"eval_strategy": "steps", "eval_steps": 0.1, "max_length": 77, "seed": 3}
    resolved = arguments(TrainConfig.parse(held_out))
    assert {name: getattr(resolved, name) for name in pinned | changed} == pinned | changed
