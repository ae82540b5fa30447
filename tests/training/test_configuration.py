"""Recipes say what they mean, and mistakes in them are named with their place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prefero.errors import PreferoError
from prefero.training.config import PreferenceArguments, TrainConfig
from prefero.training.run import arguments, train
from prefero.training.study import compare
from prefero.training.trainer import PreferenceTrainer
from tests.training.tiny import pairs, saved_model, tiny_model, tiny_tokenizer

LEAST: dict[str, Any] = {"model": "org/model", "data": "org/data", "output": "runs/one"}


def test_short_forms_are_the_long_ones() -> None:
    short = TrainConfig.parse({**LEAST, "objective": "simpo", "reference": "org/other"})
    long = TrainConfig.parse(
        {
            "model": {"name": "org/model"},
            "data": {"train": "org/data"},
            "objective": {"method": "simpo"},
            "reference": {"kind": "checkpoint", "model": "org/other"},
            "output": "runs/one",
        }
    )
    assert short == long
    assert TrainConfig.parse(short.as_dict()) == short
    assert json.loads(json.dumps(short.as_dict())) == short.as_dict()


def test_kinds_of_reference_have_short_forms() -> None:
    for value, kind in {"moving": "moving", None: "none", "frozen": "frozen"}.items():
        assert TrainConfig.parse({**LEAST, "reference": value}).reference.kind == kind
    assert TrainConfig.parse({**LEAST, "models": {"guide": "org/guide"}}).models["guide"].model == "org/guide"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ouput": "x"}, "the recipe has no key 'ouput'; did you mean 'output'"),
        ({"model": {"name": "m", "lor": {}}}, "model has no key 'lor'; did you mean 'lora'"),
        ({"training": {"learning_rte": 1}}, "did you mean 'learning_rate'"),
        ({"model": {"name": "m", "lora": {"rank": 8}}}, "model.lora has no key 'rank'"),
        ({"learning_rate": 1e-6}, "it belongs in training: training.learning_rate"),
        ({"epoch": 3}, "did you mean training.num_train_epochs"),
        ({"beta": 0.1}, "the recipe has no key 'beta': it is objective.beta"),
        ({"training": {"epoch": 3}}, "did you mean training.num_train_epochs"),
        ({"training": {"num_train_epochs": -1}}, "training.num_train_epochs is -1: input should be greater"),
        ({"training": {"num_train_epochs": float("inf")}}, "training.num_train_epochs is inf: .* finite"),
        ({"training": {"max_steps": 0}}, "training.max_steps is 0: input should be -1 or .* equal to 1"),
        ({"training": {"lr_scheduler_type": "cosin"}}, "did you mean 'cosine'"),
        ({"training": {"adam_beta1": "abc"}}, "training.adam_beta1 is 'abc': .* number"),
        ({"training": {"learning_rate": [1]}}, r"training.learning_rate is \[1\]"),
        ({"training": 3}, "training is 3"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"model": {"name": "m", "dtype": "float31"}}, "did you mean 'float32'"),
        ({"models": {"guide": {"kind": "froze"}}}, "models.guide.kind is 'froze': .* did you mean 'frozen'"),
        ({"models": {"guide": {"knd": "frozen"}}}, "models.guide has no key 'knd'; did you mean 'kind'"),
        ({"reference": {"kind": "moving", "every": 0}}, "reference is .* at least 1"),
        ({"training": {"layout": "tree"}}, "training.layout is 'tree'"),
        ({"data": {"train": "d", "eval": 1.5}}, "share of the examples to hold out"),
        ({"reference": {"kind": "checkpoint"}}, "names the checkpoint"),
        ({"model": 3}, "model is 3"),
    ],
)
def test_mistakes_are_named_with_their_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(PreferoError, match=message):
        TrainConfig.parse({**LEAST, **change})


@pytest.mark.parametrize("missing", ["model", "data", "output"])
def test_what_has_no_default_is_asked_for(missing: str) -> None:
    with pytest.raises(PreferoError, match=f"lacks {missing}: "):
        TrainConfig.parse({name: value for name, value in LEAST.items() if name != missing})


def test_batches_in_the_manner_of_other_trainers_are_refused() -> None:
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        with pytest.raises(PreferoError, match="examples_per_step"):
            PreferenceArguments(output_dir="x", **{name: 4})
    with pytest.raises(PreferoError, match="did you mean 'examples_per_step'"):
        PreferenceTrainer(tiny_model(), pairs(4), output_dir="x", exampels_per_step=4)


def test_a_recipe_becomes_arguments() -> None:
    config = TrainConfig.parse(
        {
            **LEAST,
            "data": {"train": "d", "eval": 0.1, "max_length": 77},
            "training": {"precision": "bfloat16", "lr_scheduler_type": "linear", "adam_beta2": 0.95},
            "seed": 3,
        }
    )
    args = arguments(config)
    assert (args.bf16, args.lr_scheduler_type, args.adam_beta2, args.seed, args.max_length) == (
        True,
        "linear",
        0.95,
        3,
        77,
    )
    with pytest.raises(PreferoError, match=r"training\.save_steps a multiple"):
        arguments(TrainConfig.parse({**LEAST, "training": {"load_best_model_at_end": True, "save_steps": 3}}))


def test_held_out_data_are_evaluated_on_unless_said_otherwise() -> None:
    data = {"train": "d", "eval": 0.1}
    for given, expected in {
        (): ("steps", 0.1),
        (("eval_steps", 5),): ("steps", 5),
        (("eval_strategy", "epoch"),): ("epoch", 0.1),
        (("eval_strategy", False),): ("no", 0.1),  # YAML reads no as false
    }.items():
        args = arguments(TrainConfig.parse({**LEAST, "data": data, "training": dict(given)}))
        assert (args.eval_strategy, args.eval_steps) == expected
    assert arguments(TrainConfig.parse(LEAST)).eval_strategy == "no"


def test_null_leaves_a_setting_at_its_default() -> None:
    args = arguments(TrainConfig.parse({**LEAST, "training": {"max_steps": None, "logging_steps": None}}))
    assert (args.max_steps, args.logging_steps) == (-1, 10)
    args = arguments(TrainConfig.parse({**LEAST, "training": {"save_total_limit": None}}))
    assert args.save_total_limit is None, "which it can be: all checkpoints are kept"


def test_the_record_of_a_recipe_has_what_is_given_and_what_is_ours() -> None:
    config = TrainConfig.parse({**LEAST, "training": {"adam_beta2": 0.9}})
    recorded = config.as_dict()["training"]
    assert recorded["adam_beta2"] == 0.9 and recorded["examples_per_step"] == 32
    assert "adam_beta1" not in recorded and TrainConfig.parse(config.as_dict()) == config


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in pairs(14)))
    return {
        "model": saved_model(tmp_path / "model"),
        "data": {"train": str(data), "eval": 0.25},
        "output": str(tmp_path / "run"),
        "training": {
            "examples_per_step": 5,
            "logging_steps": 1,
            "learning_rate": 1e-2,
            "use_cpu": True,
            "disable_tqdm": True,
        },
    }


def test_a_run_leaves_its_folder(recipe: dict[str, Any]) -> None:
    folder = train({**recipe, "objective": {"method": "ipo", "tau": 0.2}})
    run = json.loads((folder / "run.json").read_text())
    assert run["finished"] and run["seconds"] > 0
    assert run["method"]["key"] == "ipo" and run["method"]["arguments"]["tau"] == 0.2
    assert run["data"]["train"]["examples"] + run["data"]["eval"]["examples"] == 14
    assert run["config"]["objective"] == {"method": "ipo", "tau": 0.2}
    assert run["model"]["class"] == "LlamaForCausalLM" and run["layout"] == "trees"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    training = [line for line in lines if "loss" in line]
    assert [line["step"] for line in training] == list(range(1, len(training) + 1))
    assert training[-1]["progress"] == 1.0 and training[-1]["tokens_per_second"] > 0
    assert {"rewards/margins", "logps/chosen", "lengths/rejected", "entropy", "top_k_mass"} <= set(
        training[0]
    )
    assert any("eval/rewards/accuracies" in line for line in lines)
    assert (folder / "model" / "model.safetensors").is_file()
    assert (folder / "model" / "tokenizer.json").is_file()


def test_an_occupied_folder_is_refused_and_may_be_replaced(recipe: dict[str, Any]) -> None:
    folder = train(recipe)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(PreferoError, match="holds another run"):
        train(recipe)
    train({**recipe, "training": {**recipe["training"], "overwrite": True, "max_steps": 1}})
    assert sorted(inner.name for inner in folder.glob("checkpoint-*")) == ["checkpoint-1"]
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_run_says_what_it_resumes_and_what_has_changed(recipe: dict[str, Any], capsys: Any) -> None:
    settings = {**recipe["training"], "save_steps": 1, "save_total_limit": None}
    folder = train({**recipe, "training": settings})
    run = json.loads((folder / "run.json").read_text())
    assert run["model"]["trained"] == run["model"]["parameters"] > 0
    assert run["references"] == {"reference": "cached"} and run["sampling"]
    assert "layout" in run and run["template"] == "none (the tokenizer has no chat template)"
    capsys.readouterr()
    resumed = {**settings, "resume_from_checkpoint": str(folder / "checkpoint-1")}
    train({**recipe, "training": resumed})
    assert f"resuming from {folder / 'checkpoint-1'}" in capsys.readouterr().err
    data = recipe["data"] if isinstance(recipe["data"], dict) else {"train": recipe["data"]}
    with pytest.raises(PreferoError, match="max_length was null, and is 12") as refused:
        train({**recipe, "data": {**data, "max_length": 12}, "training": resumed})
    assert "how they become tokens" in str(refused.value)


def test_a_step_that_warm_up_wastes_is_told(recipe: dict[str, Any], capsys: Any) -> None:
    short = {**recipe["training"], "max_steps": 2, "warmup_steps": 0.1}
    train({**recipe, "training": short})
    told = (
        "this run has 2 steps, and warm-up begins with the learning rate 0, so that the first moves no weight"
    )
    assert told in capsys.readouterr().err
    train({**recipe, "training": {**short, "warmup_steps": 0, "overwrite": True}})
    assert "warm-up" not in capsys.readouterr().err


def test_warm_up_by_a_share_leaves_a_step_behind_it(tmp_path: Path) -> None:
    args = PreferenceArguments(output_dir=str(tmp_path), warmup_steps=0.1)
    assert [args.get_warmup_steps(steps) for steps in (1, 2, 10, 11)] == [0, 1, 1, 2]
    assert PreferenceArguments(output_dir=str(tmp_path), warmup_steps=3).get_warmup_steps(2) == 3


@pytest.mark.parametrize("written", ["none", "None", "NONE"])
def test_no_template_may_be_written_as_python_does(recipe: dict[str, Any], written: str) -> None:
    config = TrainConfig.parse({**recipe, "data": {"train": "rows.jsonl", "template": written}})
    assert config.data.template == "none"


def test_methods_are_compared_from_one_start_on_one_cache(recipe: dict[str, Any], own_cache: Path) -> None:
    recipe["objective"] = {"method": "dpo", "beta": 0.3}
    folder = compare(recipe, ["dpo", "ipo", "simpo"])
    assert json.loads((folder / "comparison.json").read_text())["runs"] == ["dpo", "ipo", "simpo"]
    runs = {name: json.loads((folder / name / "run.json").read_text()) for name in ("dpo", "ipo", "simpo")}
    assert runs["dpo"]["method"]["arguments"] == {"beta": 0.3}
    assert len(list(own_cache.glob("references/*/manifest.json"))) == 1
    assert len(list(own_cache.glob("references/*/*.safetensors"))) == 1, "the second method scores nothing"


def test_nothing_is_compared_unless_all_can_be(recipe: dict[str, Any]) -> None:
    with pytest.raises(PreferoError, match="no method is called 'simpoo'; did you mean 'simpo'"):
        compare(recipe, ["dpo", "simpoo"])
    with pytest.raises(PreferoError, match="needs the column"):
        compare(recipe, ["dpo", "odpo"])
    assert not Path(recipe["output"]).exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "dop"}, "no method is called 'dop'; did you mean"),
        ({"objective": {"method": "dpo", "bta": 1}}, "did you mean 'beta'"),
        ({"objective": "odpo"}, "needs the column 'score'"),
        ({"reference": "none"}, "reference is none"),
        ({"reference": "adapters_off"}, "add model.lora"),
        ({"reference": {"kind": "moving", "cache": "here"}}, "reference is moving"),
        ({"objective": "tdpo2", "reference": "cached"}, "cannot be cached"),
        ({"model": "/nowhere/at/all"}, "no (model|tokenizer) can be loaded from '/nowhere/at/all'"),
    ],
)
def test_mistakes_come_before_training(recipe: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(PreferoError, match=message):
        train({**recipe, **change})
    assert not Path(recipe["output"]).exists()


def test_a_finished_run_is_not_started_anew(recipe: dict[str, Any]) -> None:
    settings = {"save_strategy": "no", "resume_from_checkpoint": "auto", "max_steps": 1}
    settings = {**recipe["training"], **settings}
    folder = train({**recipe, "training": settings})
    with pytest.raises(PreferoError, match="holds another run"):
        train({**recipe, "training": settings})
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**run, "finished": False}))
    train({**recipe, "training": settings})


def test_sharding_needs_processes(recipe: dict[str, Any]) -> None:
    with pytest.raises(PreferoError, match="torchrun --nproc-per-node"):
        train({**recipe, "training": {**recipe["training"], "parallel": "fsdp"}})


def test_workers_collate_the_same_rows(recipe: dict[str, Any]) -> None:
    found = []
    for workers in (0, 2):
        settings = {**recipe["training"], "dataloader_num_workers": workers, "save_strategy": "no"}
        folder = train({**recipe, "training": settings, "output": recipe["output"] + str(workers)})
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        found.append([line["loss"] for line in lines if "loss" in line])
    assert found[0] == found[1]


def test_mistakes_about_model_and_lengths(recipe: dict[str, Any], tmp_path: Path) -> None:
    data = recipe["data"]
    with pytest.raises(PreferoError, match="max_position_embeddings"):
        train({**recipe, "data": {**data, "max_length": 65}})
    with pytest.raises(PreferoError, match=r"add adapters with model\.lora"):
        train({**recipe, "model": {"name": recipe["model"], "quantization": "4bit"}})
    with pytest.raises(PreferoError, match=r"pip install 'prefero\[quantization\]'"):
        train({**recipe, "model": {"name": recipe["model"], "quantization": "4bit", "lora": True}})
    with pytest.raises(PreferoError, match=r"training\.dropout=true"):
        train({**recipe, "model": {"name": recipe["model"], "lora": {"dropout": 0.1}}})
    with pytest.raises(PreferoError, match="no whole checkpoint to resume from"):
        train({**recipe, "training": {**recipe["training"], "resume_from_checkpoint": True}})
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["zzz"])
    tokenizer.save_pretrained(tmp_path / "other")
    rows = [{**row, "prompt": "zzz"} for row in pairs(6)]
    (tmp_path / "strange.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(PreferoError, match="do not belong together"):
        train(
            {
                **recipe,
                "model": {"name": recipe["model"], "tokenizer": str(tmp_path / "other")},
                "data": str(tmp_path / "strange.jsonl"),
            }
        )
