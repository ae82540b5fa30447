"""Every setting and input that changes when a run is resumed is refused by name, or recorded, or makes no
difference."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prefero.errors import PreferoError
from prefero.training.checkpoints import MARKER, complete_checkpoints, rotate, undamaged
from prefero.training.config import OWN, SampleSettings
from prefero.training.identity import MAY_CHANGE, must_stay, place_of
from prefero.training.run import train
from prefero.training.study import compare
from prefero.training.trainer import PreferenceTrainer
from prefero.training.vocabulary import TAKEN
from tests.training.test_trainer_arguments import Trainer
from tests.training.tiny import pairs, saved_model, tiny_model, tiny_tokenizer

Recipe = dict[str, Any]


def changed(recipe: Recipe, change: Recipe, **training: Any) -> Recipe:
    """The recipe with other sections, and other settings of training."""
    inner = {**recipe["training"], **change.get("training", {}), **training}
    return {**recipe, **change, "training": inner}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run of four steps with a checkpoint at each, which adapters are trained in."""
    folder = tmp_path_factory.mktemp("resumed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFERO_CACHE", str(folder / "cache"))
        for name, seed in (("rows", 0), ("others", 1)):
            text = "".join(json.dumps(row) + "\n" for row in pairs(8, seed))
            (folder / f"{name}.jsonl").write_text(text)
        shutil.copy(folder / "rows.jsonl", folder / "moved.jsonl")
        saved_model(folder / "other", seed=1)
        training = {
            "max_steps": 4,
            "examples_per_step": 2,
            "save_steps": 1,
            "save_total_limit": None,
            "logging_steps": 1,
            "learning_rate": 1e-2,
            "warmup_steps": 0,
            "use_cpu": True,
            "disable_tqdm": True,
        }
        recipe = {
            "model": {"name": saved_model(folder / "model"), "lora": {"r": 2}},
            "data": str(folder / "rows.jsonl"),
            "output": str(folder / "run"),
            "training": training,
            "samples": 0,
        }
        train(recipe)
    return recipe


def beside(recipe: Recipe, name: str) -> str:
    return str(Path(recipe["output"]).parent / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": {"optim": "sgd"}}, "training.optim was adamw_torch_fused, and is sgd"),
        ({"training": {"learning_rate": 1e-3}}, "training.learning_rate was 0.01, and is 0.001"),
        ({"training": {"weight_decay": 0.1}}, "training.weight_decay was 0.0, and is 0.1"),
        ({"training": {"adam_beta1": 0.5}}, "training.adam_beta1 was 0.9, and is 0.5"),
        ({"training": {"adam_beta2": 0.5}}, "training.adam_beta2 was 0.999, and is 0.5"),
        ({"training": {"adam_epsilon": 0.1}}, "training.adam_epsilon was 1e-08, and is 0.1"),
        ({"training": {"max_grad_norm": 0.5}}, "training.max_grad_norm was 1.0, and is 0.5"),
        (
            {"training": {"lr_scheduler_type": "linear"}},
            "training.lr_scheduler_type was cosine, and is linear",
        ),
        ({"training": {"lr_scheduler_kwargs": {"num_cycles": 2}}}, "training.lr_scheduler_kwargs was "),
        ({"training": {"warmup_steps": 2}}, "training.warmup_steps was 0.0, and is 2"),
        ({"training": {"examples_per_step": 4}}, "training.examples_per_step was 2, and is 4"),
        ({"training": {"precision": "bfloat16"}}, "training.precision was float32, and is bfloat16"),
        ({"training": {"dropout": True}}, "training.dropout was false, and is true"),
        ({"training": {"data_seed": 3}}, "training.data_seed was null, and is 3"),
        ({"training": {"objective_weight_decay": 0.1}}, "training.objective_weight_decay was 0.0"),
        ({"training": {"metric_for_best_model": "loss"}}, "training.metric_for_best_model was null"),
        ({"seed": 1}, "seed was 0, and is 1"),
        ({"objective": {"method": "dpo", "beta": 0.5}}, "objective.beta was 0.1, and is 0.5"),
        ({"objective": "ipo"}, "objective.method was dpo, and is ipo"),
        ({"reference": {"kind": "moving", "every": 2}}, "reference.kind was auto, and is moving"),
        (
            {"data": "others.jsonl"},
            r"the rows, .* are other ones \(data.train was .*, and is .*others.jsonl\)",
        ),
        ({"data": {"max_length": 12}}, r"other ones \(data.max_length was null, and is 12\)"),
        ({"data": {"limit": 6}}, r"other ones \(data.limit was null, and is 6\)"),
        ({"model": {"name": "other"}}, r"the weights that the run started from .*model.name was .*other"),
        ({"model": {"lora": {"r": 2, "alpha": 99}}}, "model.lora.alpha was 32.0, and is 99.0"),
        ({"model": {"lora": {"r": 4}}}, "model.lora.r was 2, and is 4"),
        ({"model": {"lora": None}}, "model.lora.r was 2, and is null"),
        ({"model": {"lora": {"r": 2, "target_modules": ["q_proj"]}}}, "model.lora.target_modules was null"),
        ({"model": {"dtype": "bfloat16"}}, "model.dtype was float32, and is bfloat16"),
        ({"training": {"max_steps": 2}}, "checkpoint-4 is of step 4, and this run ends at step 2"),
    ],
)
def test_what_decides_the_result_is_refused(recipe: Recipe, change: Recipe, message: str) -> None:
    change = dict(change)
    if isinstance(change.get("data"), str):
        change["data"] = beside(recipe, change["data"])
    elif "data" in change:
        change["data"] = {"train": recipe["data"], **change["data"]}
    if "model" in change:
        name = change["model"].get("name", "model")
        change["model"] = {**recipe["model"], **change["model"], "name": beside(recipe, name)}
    with pytest.raises(PreferoError, match=message) as refused:
        train(changed(recipe, change, resume_from_checkpoint=True))
    assert "\n" not in str(refused.value) and "max_steps was" not in str(refused.value)


def test_settings_are_compared_before_data_and_model_are_read(recipe: Recipe) -> None:
    nowhere = {"data": "/no/such/rows.jsonl", "objective": {"method": "dpo", "beta": 0.7}}
    with pytest.raises(PreferoError, match=r"objective\.beta was 0\.1, and is 0\.7"):
        train(changed(recipe, nowhere, resume_from_checkpoint=True))


@pytest.mark.parametrize(
    "change",
    [
        {"training": {"max_steps": 6}},
        {"training": {"max_steps": -1, "num_train_epochs": 1.5}},
        {"training": {"max_steps": 6, "tokens_per_row": 40}},
        {"training": {"max_steps": 6, "logging_steps": 2, "save_steps": 3}},
        {"training": {"max_steps": 6}, "data": "moved.jsonl"},
    ],
    ids=["steps", "epochs", "tokens", "logs", "moved data"],
)
def test_what_may_change_is_recorded_with_its_step(
    recipe: Recipe, tmp_path: Path, change: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(recipe["output"], tmp_path / "run")
    change = {**change, "output": str(tmp_path / "run")}
    if "data" in change:
        change["data"] = beside(recipe, change["data"])
    train(changed(recipe, change, resume_from_checkpoint=True))
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    (record,) = run["changes"]
    assert record["step"] == 4 and run["finished"]
    expected = {f"training.{name}" for name in change["training"]}
    if "data" in change:
        expected.add("data.train")
    assert set(record["settings"]) == expected
    told = capsys.readouterr().err
    assert all(f"from here on {name} is " in told for name in record["settings"])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == ([1, 2, 3, 4, 6] if "logging_steps" in change["training"] else [1, 2, 3, 4, 5, 6])
    saved = {int(each.name.partition("-")[2]) for each in complete_checkpoints(tmp_path / "run")}
    assert saved == {1, 2, 3, 4, 6} | (set() if "save_steps" in change["training"] else {5})


def test_a_longer_run_follows_its_own_schedule_at_once(recipe: Recipe, tmp_path: Path) -> None:
    shutil.copytree(recipe["output"], tmp_path / "run")
    train(changed(recipe, {"output": str(tmp_path / "run")}, max_steps=8, resume_from_checkpoint=True))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = [line["learning_rate"] for line in lines if "loss" in line]
    expected = [
        0.01 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / 8)).item()) for step in range(4, 8)
    ]
    assert rates[4:] == pytest.approx(expected, rel=1e-4), "and not the rate 0 at which the shorter run ended"


def test_a_finished_run_has_no_step_left(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also in the middle of an epoch, where steps would be left in it."""
    folder = tmp_path / "run"
    train(changed(recipe, {"output": str(folder)}, max_steps=3))
    before = load_file(folder / "model" / "adapter_model.safetensors")
    shutil.rmtree(folder / "model")
    lines = (folder / "metrics.jsonl").read_text()
    for resume in (True, "auto"):
        capsys.readouterr()
        train(changed(recipe, {"output": str(folder)}, max_steps=3, resume_from_checkpoint=resume))
        assert "no step is left: " in capsys.readouterr().err
        after = load_file(folder / "model" / "adapter_model.safetensors")
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        assert (folder / "metrics.jsonl").read_text() == lines
        assert json.loads((folder / "run.json").read_text())["finished"]


STAY = {
    "optimizer": "optim optim_args optim_target_modules learning_rate weight_decay adam_beta1 adam_beta2 "
    "adam_epsilon max_grad_norm objective_learning_rate objective_weight_decay",
    "schedule": "lr_scheduler_type lr_scheduler_kwargs warmup_steps extrapolation extrapolation_every",
    "steps": "examples_per_step data_seed dropout precision",
    "form of checkpoints": "parallel deepspeed",
    "best checkpoint so far": "metric_for_best_model greater_is_better",
}
ANSWERS = {"samples.prompts", "samples.max_new_tokens", "samples.temperature"}


def test_every_setting_is_decided_on() -> None:
    samples = {f"samples.{name}" for name in SampleSettings.model_fields}
    names = {place_of(name) for name in TAKEN | OWN} | {"model.attention", *samples}
    assert names | {"model.trust_remote_code"} >= MAY_CHANGE
    stay = {f"training.{name}" for listed in STAY.values() for name in listed.split()}
    assert {name for name in names if must_stay(name)} == {"seed", *stay, *ANSWERS}


@pytest.mark.parametrize("damage", ["bit", "cut", "missing"])
def test_a_damaged_file_is_named(recipe: Recipe, tmp_path: Path, damage: str) -> None:
    """Each file of a checkpoint."""
    latest = tmp_path / "checkpoint-4"
    shutil.copytree(Path(recipe["output"]) / "checkpoint-4", latest)
    assert undamaged(latest, or_earlier=False) == latest
    for file in sorted(latest.iterdir()):
        content = file.read_bytes()
        if damage == "bit":
            file.write_bytes(content[:-9] + bytes([content[-9] ^ 64]) + content[-8:])
        elif damage == "cut":
            file.write_bytes(content[: len(content) // 2])
        else:
            file.unlink()
        named = "" if file.name == MARKER else file.name  # whose digests may be what has changed
        with pytest.raises(PreferoError, match=f"checkpoint-4 is damaged: {named}"):
            undamaged(latest, or_earlier=False)
        file.write_bytes(content)


def test_auto_goes_back_to_a_checkpoint_that_is_not_damaged(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(recipe["output"], folder)
    for step in (3, 4):
        (folder / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"")
    train(changed(recipe, {"output": str(folder)}, resume_from_checkpoint="auto"))
    assert "optimizer.pt has changed since it was written; checkpoint-2 is taken" in capsys.readouterr().err
    whole, resumed = (
        load_file(Path(where) / "model" / "adapter_model.safetensors") for where in (recipe["output"], folder)
    )
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_the_oldest_checkpoints_go_whatever_the_clock_says(tmp_path: Path) -> None:
    for step in (2, 4, 6, 8):
        (tmp_path / f"checkpoint-{step}").mkdir()
    rotate(tmp_path, 6, 2, str(tmp_path / "checkpoint-2"))
    assert sorted(inner.name for inner in tmp_path.iterdir()) == [f"checkpoint-{step}" for step in (2, 6, 8)]
    rotate(tmp_path, 8, 1, None)
    assert [inner.name for inner in tmp_path.iterdir()] == ["checkpoint-8"]


@pytest.mark.parametrize("start", [{}, {"overwrite": True}, {"resume_from_checkpoint": "auto"}])
def test_a_folder_of_others_is_left_as_it_is(recipe: Recipe, tmp_path: Path, start: Recipe) -> None:
    for name in ("model", "checkpoint-100"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        (tmp_path / "mine" / name / "weights").write_text("mine")
    with pytest.raises(PreferoError, match=r"mine holds model, checkpoint-100, which .* no run of prefero"):
        train(changed(recipe, {"output": str(tmp_path / "mine")}, **start))
    assert len(list((tmp_path / "mine").rglob("weights"))) == 2


def test_a_comparison_and_a_run_do_not_share_a_folder(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(PreferoError, match="holds a single run"):
        compare(recipe, ["dpo", "ipo"])
    (tmp_path / "comparison.json").write_text("{}")
    with pytest.raises(PreferoError, match="holds a comparison"):
        train({**recipe, "output": str(tmp_path)})


def test_from_python_differences_are_told_by_the_names_of_arguments(tmp_path: Path, trainer: Trainer) -> None:
    settings = {
        "output_dir": str(tmp_path / "run"),
        "save_strategy": "steps",
        "save_steps": 1,
        "max_steps": 2,
    }
    trainer(**settings).train()
    for change, message in (
        ({"optim": "adamw_torch"}, r"\boptim was sgd, and is adamw_torch"),
        ({"model": tiny_model(seed=1)}, "the weights that the run started from are other ones"),
        ({"data": pairs(24, seed=1)}, "the rows, or how they become tokens, are other ones"),
    ):
        with pytest.raises(PreferoError, match=message) as refused:
            trainer(**{**settings, **change}).train(resume_from_checkpoint=True)
        assert "training." not in str(refused.value)


def test_another_optimizer_object_is_refused(tmp_path: Path) -> None:
    def run(optimizer: Any, resume: bool) -> None:
        model = tiny_model()
        PreferenceTrainer(
            model,
            pairs(8),
            processing_class=tiny_tokenizer(),
            optimizers=(optimizer(model.parameters(), lr=0.01), None),
            output_dir=str(tmp_path / "run"),
            examples_per_step=4,
            save_steps=1,
            use_cpu=True,
            disable_tqdm=True,
        ).train(resume_from_checkpoint=resume)

    run(torch.optim.SGD, False)
    with pytest.raises(PreferoError, match=r"optimizer\.class was SGD, and is AdamW"):
        run(torch.optim.AdamW, True)
