"""Several runs from one recipe: what they share, the order they come in, and how they are resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

import prefero
from prefero.errors import PreferoError
from prefero.training import study
from prefero.training.best import note, ranked
from prefero.training.config import TrainConfig
from prefero.training.run import train
from prefero.training.study import compare
from prefero.training.sweeps import run_names, sweep
from prefero.training.tuning import Range, suggested
from tests.training.tiny import pairs, saved_model

Recipe = dict[str, Any]

SPEEDS = {"tokens_per_second", "examples_per_second", "eval/runtime", "eval/samples_per_second"}
SPEEDS |= {"eval/steps_per_second"}


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    for name, seed, count in (("train", 0, 12), ("held_out", 1, 8)):
        rows = "".join(json.dumps(row) + "\n" for row in pairs(count, seed))
        (tmp_path / f"{name}.jsonl").write_text(rows)
    return {
        "model": saved_model(tmp_path / "model"),
        "data": {"train": str(tmp_path / "train.jsonl"), "eval": str(tmp_path / "held_out.jsonl")},
        "objective": {"method": "dpo", "beta": 0.3},
        "samples": 0,
        "training": {
            "max_steps": 3,
            "examples_per_step": 4,
            "learning_rate": 1e-2,
            "warmup_steps": 0,
            "logging_steps": 1,
            "save_steps": 1,
            "eval_steps": 2,
            "use_cpu": True,
            "disable_tqdm": True,
        },
        "output": str(tmp_path / "out"),
    }


def with_training(recipe: Recipe, **training: Any) -> Recipe:
    return {**recipe, "training": {**recipe["training"], **training}}


def record(recipe: Recipe) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(recipe["output"]) / "comparison.json").read_text())
    return found


def logged(folder: Path) -> list[dict[str, Any]]:
    """What a run has logged, without speeds."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name not in SPEEDS} for line in lines]


class Stop(TrainerCallback):
    """Ends the process, as it were, at a step of a run."""

    def __init__(self, run: str, step: int) -> None:
        self.run, self.step = run, step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if Path(args.output_dir).name == self.run and state.global_step == self.step:
            raise KeyboardInterrupt


Study = Callable[..., Path]

STUDIES: dict[str, tuple[Study, list[str]]] = {
    "compare": (
        lambda recipe, **more: compare(recipe, ["dpo", "ipo", "simpo"], **more),
        ["dpo", "ipo", "simpo"],
    ),
    "grid": (
        lambda recipe, **more: sweep(recipe, {"objective.beta": [0.5, 0.1, 2]}, **more),
        ["beta-0.5", "beta-0.1", "beta-2"],
    ),
    "trials": (
        lambda recipe, **more: sweep(
            recipe, {"objective.beta": "0.05..2", "data.score": ["last", "all_assistant"]}, trials=3, **more
        ),
        ["trial-0", "trial-1", "trial-2"],
    ),
}


@pytest.mark.parametrize("kind", STUDIES)
def test_a_study_that_is_resumed_ends_as_one_that_was_not_interrupted(
    recipe: Recipe, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, names = STUDIES[kind]
    run(recipe)
    whole = {**recipe, "output": str(tmp_path / "parts")}
    with pytest.raises(KeyboardInterrupt):
        run(whole, callbacks=[Stop(names[1], 2)])
    assert record(whole)["finished"] == names[:1]
    first = (tmp_path / "parts" / names[0] / "metrics.jsonl").stat()
    capsys.readouterr()
    run(with_training(whole, resume_from_checkpoint="auto"))
    told = capsys.readouterr().err
    assert f"{names[0]} is finished and kept" in told
    assert f"resuming from {tmp_path / 'parts' / names[1] / 'checkpoint-1'}" in told
    assert (tmp_path / "parts" / names[0] / "metrics.jsonl").stat() == first
    assert record(whole) == record(recipe) and record(recipe)["finished"] == record(recipe)["runs"] == names
    for name in names:
        assert logged(tmp_path / "parts" / name) == logged(tmp_path / "out" / name)


def test_the_runs_of_a_sweep_are_those_of_train(recipe: Recipe, tmp_path: Path) -> None:
    """Each begins with the model of the recipe, and not with what the run before has made of it."""
    out = sweep(recipe, {"objective.beta": [0.1, 0.5], "training.learning_rate": [1e-3, 1e-2]})
    rows = {row["method"]: row for row in record(recipe)["evaluation"]["rows"]}
    for name, values in record(recipe)["sweep"]["values"].items():
        alone = with_training(
            {**recipe, "objective": {"method": "dpo", "beta": values["objective.beta"]}},
            learning_rate=values["training.learning_rate"],
        )
        alone["output"] = str(tmp_path / f"alone-{name}")
        folder = train(alone)
        assert logged(out / name) == logged(folder)
        assert rows[name] == json.loads((folder / "evaluation.json").read_text())["rows"][0] | {
            "method": name
        }


def test_a_grid_goes_through_the_values_in_their_order_the_last_key_fastest(recipe: Recipe) -> None:
    given = deepcopy(recipe)
    sweep(recipe, {"objective.beta": [0.5, 0.1], "training.learning_rate": [1e-2, 1e-3]}, metric="loss")
    assert recipe == given, "the recipe that was given stays as it is"
    found = record(recipe)
    assert [tuple(values.values()) for values in found["sweep"]["values"].values()] == [
        (0.5, 1e-2),
        (0.5, 1e-3),
        (0.1, 1e-2),
        (0.1, 1e-3),
    ]
    assert found["runs"] == list(found["sweep"]["values"])
    losses = {row["method"]: row["loss"] for row in found["evaluation"]["rows"]}
    assert found["sweep"]["best"] == min(losses, key=losses.__getitem__)


def test_data_are_read_once_and_the_reference_scores_once(
    recipe: Recipe, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, forwards = [], [0]
    read = study.read_examples

    def counted(*arguments: Any) -> Any:
        reads.append(arguments)
        return read(*arguments)

    def count(module: torch.nn.Module, *_: Any) -> None:
        forwards[0] += type(module).__name__ == "LlamaModel"

    monkeypatch.setattr(study, "read_examples", counted)
    seen: dict[str, int] = {}

    class Counts(TrainerCallback):
        def on_train_end(self, args: Any, *_: Any, **__: Any) -> None:
            seen[Path(args.output_dir).name] = forwards[0]

    hook = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        out = sweep(recipe, {"objective.beta": [0.1, 0.5, 1]}, callbacks=[Counts()])
    finally:
        hook.remove()
    assert len(reads) == 1
    first, second, third = (
        seen["beta-0.1"],
        *(seen[b] - seen[a] for a, b in (("beta-0.1", "beta-0.5"), ("beta-0.5", "beta-1"))),
    )
    assert first > second == third, "the reference is scored in the first run alone"
    assert len(list(own_cache.glob("references/*/*.safetensors"))) == 1
    assert len(record(recipe)["runs"]) == 3 and out.is_dir()


def test_other_data_are_read_for_the_runs_that_have_them(recipe: Recipe, tmp_path: Path) -> None:
    rows = (tmp_path / "train.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "half.jsonl").write_text("".join(rows[:6]))
    files = [str(tmp_path / name) for name in ("train.jsonl", "half.jsonl")]
    out = sweep(recipe, {"data.train": files})
    counts = [
        json.loads((out / name / "run.json").read_text())["data"]["train"]["examples"]
        for name in record(recipe)["runs"]
    ]
    assert counts == [12, 6]


@pytest.mark.parametrize(
    ("over", "more", "message"),
    [
        ({"objective.beta": [0.1, 0.5, -1]}, {}, "beta--1: .*beta"),
        ({"objective.betta": [0.1, 0.5]}, {}, "did you mean 'beta'"),
        ({"training.learning_rates": [0.1, 0.5]}, {}, "did you mean 'learning_rate'"),
        ({"objective.method": ["dpo", "ipo", "simpoo"]}, {}, "no argument 'beta'|simpoo"),
        ({"objective.beta": [0.1, 0.1]}, {}, "0.1 twice"),
        ({"objective.beta": []}, {}, "no values"),
        ({"objective.beta": [0.1]}, {}, "a single run"),
        ({}, {}, "name what to vary"),
        ({"output": ["a", "b"]}, {}, "output cannot be varied"),
        ({"data.eval": [0.1, 0.2]}, {}, "data.eval cannot be varied"),
        ({"objective.beta": "0.1..0.5"}, {}, "no grid"),
        ({"objective.beta": "few"}, {"trials": 2}, "a range such as"),
        ({"objective.beta": "0.5..0.1"}, {"trials": 2}, "the lower one first"),
        ({"objective.beta": "log:0..1"}, {"trials": 2}, "above 0"),
        ({"objective.beta": "-1..1"}, {"trials": 2}, "objective.beta=-1"),
        ({"objective.beta": [0.1, 0.2]}, {"trials": 2}, "the grid has 2 runs"),
        ({"objective.beta": [0.1, 0.2]}, {"trials": 0}, "at least one"),
        ({"objective.beta": [0.1, 0.2]}, {"metric": "acuracy"}, "one of accuracy, loss"),
        (
            {"objective.beta": [0.1, 0.2]},
            {"metric": "win_rate"},
            "set samples.judge, and samples.against=start",
        ),
        ({"objective": ["dpo", "nll"]}, {"metric": "accuracy"}, "nll compares no pairs"),
        ({"objective": ["dpo", "odpo"]}, {}, "needs the column"),
        ({"reference": ["auto", None]}, {}, "reference-null: reference is none, but the objective reads"),
        ({"objective": ["dpo", "ipo"], "objective.beta": [0.1]}, {}, "objective.beta is a part of objective"),
        ({"model.lora.r": [1, 2], "model.lora": [True, None]}, {}, "model.lora.r is a part of model.lora"),
        ({"data": ["a", "b"]}, {}, "data cannot be varied as a whole: .* data.eval in common"),
        ({"training": [{"max_steps": 1}, {"max_steps": 2}]}, {}, "such as training.learning_rate"),
        ({"output.a": ["a", "b"]}, {}, "output.a cannot be varied"),
        ({"samples.judge": ["a:b", "c:d"]}, {}, "samples.judge cannot be varied"),
        ({"training.samples": [0, 2]}, {}, "training.samples cannot be varied"),
        ({"objective.beta": [1, 1.0]}, {}, "beta-1.0 has the same settings as beta-1"),
        ({"training.learning_rate": ["1e-3", 1e-3]}, {}, "the same settings"),
        ({"objective": ["dpo", {"method": "dpo", "beta": 0.3}]}, {}, "the same settings"),
        ({"objective": [{"method": "dpo", "coefficient": 2}, "ipo"]}, {}, "would leave out objective.beta"),
        ({"objective.beta": 0.1}, {}, "give a list of values"),
        ({"objective.beta": {"a": 0.1}}, {}, "give a list of values"),
        ({"objective.beta": ["0.1..0.5", 1]}, {}, "a range stands alone"),
        ({"objective.beta": ["0.1 0.5"]}, {}, "'0.1 0.5': one value each .* separated by commas"),
        (["objective.beta=0.1,0.2"], {}, "over is .* maps settings to values"),
        ({1: [0.1, 0.2]}, {}, "1 is no key of a recipe"),
        ({"objective..beta": [0.1, 0.2]}, {}, "is no key of a recipe"),
        ({"objective.beta": "0.1..1e999"}, {"trials": 2}, "two finite ends"),
        ({"objective.beta": "0.1..1"}, {"trials": 1.5}, "trials is 1.5"),
        ({"objective.beta": "0.1..1"}, {"trials": "2"}, "trials is '2'"),
        ({"training.max_steps": "1..2"}, {"trials": 2}, "has 2 combinations .* 1.0, for the numbers between"),
        ({"training.max_steps": "1..3.0"}, {"trials": 2}, "max_steps=1.6.*valid integer"),
    ],
)
def test_nothing_is_trained_unless_all_runs_can_be(
    recipe: Recipe, over: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(PreferoError, match=message):
        sweep(recipe, over, **more)
    assert not Path(recipe["output"]).exists()


def test_a_section_is_not_replaced_by_one_that_leaves_out_what_the_recipe_says(recipe: Recipe) -> None:
    recipe["model"] = {"name": recipe["model"], "lora": {"r": 2}}
    for over in ({"model": ["a", "b"]}, {"model.lora": [True, {"r": 4}]}):
        with pytest.raises(PreferoError, match=r"would leave out model\.lora.*, which the recipe sets"):
            sweep(recipe, over)
    sweep(with_training(recipe, max_steps=1), {"model.lora": [None, {"r": 4}]})  # off, and as a whole


def test_a_method_that_is_varied_has_the_arguments_that_the_recipe_gives_it(recipe: Recipe) -> None:
    out = sweep(with_training(recipe, max_steps=1), {"objective": ["dpo", "ipo"]})
    found = [json.loads((out / name / "run.json").read_text())["method"] for name in record(recipe)["runs"]]
    assert found[0]["arguments"] == {"beta": 0.3} and found[1]["key"] == "ipo"


@pytest.mark.parametrize("over", [{"seed": [1, 2]}, {"data.limit": [8, 12]}, {"data.max_length": [12, None]}])
def test_runs_that_are_measured_on_other_rows_are_said_to_be(recipe: Recipe, over: dict[str, Any]) -> None:
    """The share is drawn by the seed, of rows that differ, or rows are left out that are too long."""
    if "data.max_length" in over:
        recipe["data"] |= {"max_length": None, "too_long": "drop"}
    else:
        recipe["data"]["eval"] = 0.5
    sweep(with_training(recipe, max_steps=1), over)
    assert "measured on different held-out rows" in record(recipe)["note"].lower()


def test_a_folder_of_several_runs_is_no_model(recipe: Recipe) -> None:
    out = sweep(with_training(recipe, max_steps=1), {"objective.beta": [0.1, 1]})
    with pytest.raises(PreferoError, match=r"holds several runs: name .*/RUN/model"):
        train({**recipe, "model": str(out), "output": recipe["output"] + "-2"})


def test_a_sweep_on_the_same_rows_says_nothing_of_rows(recipe: Recipe) -> None:
    sweep(with_training(recipe, max_steps=1), {"objective.beta": [0.1, 1]})
    assert "rows" not in record(recipe)["note"]


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("dpo", "list those to compare"),
        ([], "list those to compare"),
        (["dpo", 3], "3 is no method"),
        ([{"beta": 1}], "is no method"),
        (["dpo", "ipo", "dpo"], "dpo-2 has the same settings as dpo"),
        (["dpo", {"method": "dpo", "beta": 0.3}], "the same settings"),
    ],
)
def test_what_is_no_list_of_methods_is_refused(recipe: Recipe, methods: Any, message: str) -> None:
    with pytest.raises(PreferoError, match=message):
        compare(recipe, methods)
    assert not Path(recipe["output"]).exists()


@pytest.mark.parametrize("text", ["{half", "[]", '{"runs": 3}', '{"finished": null}', '{"evaluation": []}'])
def test_a_record_that_is_none_is_refused_and_may_be_replaced(recipe: Recipe, text: str) -> None:
    recipe = with_training(recipe, max_steps=1)
    file = Path(recipe["output"]) / "comparison.json"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(PreferoError, match=r"comparison\.json.* restore it, or name another folder"):
        compare(with_training(recipe, resume_from_checkpoint="auto"), ["dpo"])
    compare(with_training(recipe, overwrite=True), ["dpo"])
    assert record(recipe)["finished"] == ["dpo"]


def test_runs_that_are_left_over_are_named(recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = with_training(recipe, max_steps=1)
    compare(recipe, ["dpo", "ipo"])
    shutil.rmtree(Path(recipe["output"]) / "ipo")
    capsys.readouterr()
    compare(with_training(recipe, overwrite=True), ["simpo"])
    assert "left in their folders: dpo\n" in capsys.readouterr().err


def test_a_sweep_needs_data_to_choose_by(recipe: Recipe) -> None:
    recipe["data"] = recipe["data"]["train"]
    with pytest.raises(PreferoError, match=r"held-out data, and there are none: .*data\.eval=0\.1"):
        sweep(recipe, {"objective.beta": [0.1, 0.5]})
    assert not Path(recipe["output"]).exists()


def test_the_loss_is_what_methods_without_an_accuracy_are_chosen_by(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(with_training(recipe, max_steps=1), {"objective": ["dpo", "nll"]})
    assert record(recipe)["sweep"]["metric"] == "loss"
    assert "losses of different objectives differ in scale" in capsys.readouterr().err


def test_a_run_without_a_finite_loss_ends_and_the_others_continue(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    over = {"training.learning_rate": [1e30, 1e-3]}
    sweep(recipe, over)
    first, second = record(recipe)["runs"]
    rows = {row["method"]: row for row in record(recipe)["evaluation"]["rows"]}
    assert "stopped at step" in rows[first]["failed"] and "accuracy" in rows[second]
    assert record(recipe)["sweep"]["best"] == second and f"{first} stopped at" in capsys.readouterr().err
    sweep(with_training(recipe, resume_from_checkpoint="auto"), over)
    assert f"{first} is finished and kept" in capsys.readouterr().err
    with pytest.raises(PreferoError, match="none of 2 runs could be trained"):
        sweep({**recipe, "output": recipe["output"] + "-2"}, {"training.learning_rate": [1e30, 1e31]})


def test_an_error_while_a_run_trains_names_it(recipe: Recipe) -> None:
    class Broken(TrainerCallback):
        def on_step_end(self, args: Any, *_: Any, **__: Any) -> None:
            if Path(args.output_dir).name == "beta-2":
                raise PreferoError("the tracker has gone")

    with pytest.raises(PreferoError, match=r"^beta-2: the tracker has gone"):
        sweep(recipe, {"objective.beta": [1, 2]}, callbacks=[Broken()])
    assert record(recipe)["finished"] == ["beta-1"]


def test_a_last_step_that_ruins_the_model_is_such_an_end(recipe: Recipe) -> None:
    sweep(with_training(recipe, max_steps=1), {"training.learning_rate": [1e30, 1e-3]})
    first, second = record(recipe)["evaluation"]["rows"]
    assert "stopped after step 1: the held-out loss is nan" in first["failed"] and "accuracy" in second


@pytest.mark.parametrize("metric", ["win_rate", "score"])
def test_the_answers_of_a_run_can_be_judged(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str
) -> None:
    (tmp_path / "letters.py").write_text("def score(prompt, response): return response.count('a')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe["samples"] = {"prompts": 2, "judge": "letters:score", "max_new_tokens": 4}
    sweep(with_training(recipe, max_steps=1), {"objective.beta": [0.1, 0.5]}, metric=metric)
    found = record(recipe)
    assert all(metric in row for row in found["evaluation"]["rows"]) and found["sweep"]["best"]


def test_a_comparison_is_not_replaced_unless_that_is_said(recipe: Recipe) -> None:
    short = with_training(recipe, max_steps=1)
    compare(short, ["dpo"])
    with pytest.raises(PreferoError, match=r"holds a comparison: .*resume.*=auto, or .*overwrite=true"):
        compare(short, ["ipo"])
    compare(with_training(short, overwrite=True), ["ipo"])
    assert record(recipe)["runs"] == ["ipo"]


def test_more_methods_join_those_that_are_finished(
    recipe: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    short = with_training(recipe, max_steps=1)
    compare(short, ["dpo", "ipo"])
    more = with_training(short, resume_from_checkpoint="auto")
    compare(more, ["dpo", "simpo"])
    told = capsys.readouterr().err
    assert "dpo is finished and kept" in told and "left in their folders: ipo" in told
    assert [row["method"] for row in record(recipe)["evaluation"]["rows"]] == ["dpo", "simpo"]


def test_true_resumes_a_study_and_a_checkpoint_does_not(recipe: Recipe) -> None:
    with pytest.raises(PreferoError, match="no comparison to resume"):
        compare(with_training(recipe, resume_from_checkpoint=True), ["dpo", "ipo"])
    with pytest.raises(KeyboardInterrupt):
        compare(recipe, ["dpo", "ipo"], callbacks=[Stop("dpo", 2)])
    resumed = with_training(recipe, resume_from_checkpoint=True)
    compare(resumed, ["dpo", "ipo"])
    assert record(recipe)["finished"] == ["dpo", "ipo"]
    checkpoint = str(Path(recipe["output"]) / "dpo" / "checkpoint-1")
    with pytest.raises(PreferoError, match="a checkpoint of one run"):
        compare(with_training(recipe, resume_from_checkpoint=checkpoint), ["dpo", "ipo"])


@pytest.mark.parametrize("steps", ["steps", "no"])
def test_a_run_that_ended_before_it_was_recorded_is_completed(recipe: Recipe, steps: str) -> None:
    """With checkpoints from the last one; without them from the start."""
    recipe = with_training(recipe, save_strategy=steps)
    out = compare(recipe, ["dpo", "ipo"])
    whole = record(recipe)
    partial = {**whole, "finished": ["dpo"], "evaluation": {"rows": whole["evaluation"]["rows"][:1]}}
    (out / "comparison.json").write_text(json.dumps(partial))
    shutil.rmtree(out / "ipo" / "model")
    compare(with_training(recipe, resume_from_checkpoint="auto"), ["dpo", "ipo"])
    assert record(recipe) == whole and (out / "ipo" / "model").is_dir()


def test_a_run_of_its_own_is_not_replaced_by_a_comparison_that_continues(recipe: Recipe) -> None:
    recipe = with_training(recipe, save_strategy="no", max_steps=1)
    folder = train({**recipe, "output": str(Path(recipe["output"]) / "dpo")})
    with pytest.raises(PreferoError, match="a finished run that is no part of this comparison"):
        compare(with_training(recipe, resume_from_checkpoint="auto"), ["ipo", "dpo"])
    assert (folder / "model").is_dir() and not (folder.parent / "ipo").exists()


def test_a_finished_run_of_other_settings_is_not_taken_for_this_one(recipe: Recipe) -> None:
    recipe = with_training(recipe, save_strategy="no", max_steps=1)
    compare(recipe, ["dpo", "ipo"])
    other = with_training(recipe, resume_from_checkpoint="auto", learning_rate=1e-3)
    with pytest.raises(
        PreferoError, match=r"dpo: .* other settings, .*learning_rate was 0\.01, and is 0\.001"
    ):
        compare(other, ["dpo", "ipo"])
    assert [row["method"] for row in record(recipe)["evaluation"]["rows"]] == ["dpo", "ipo"]


def test_runs_on_other_rows_or_weights_do_not_join(recipe: Recipe, tmp_path: Path) -> None:
    recipe = with_training(recipe, max_steps=1, resume_from_checkpoint="auto")
    compare(recipe, ["dpo"])
    rows = (tmp_path / "held_out.jsonl").read_text()
    (tmp_path / "held_out.jsonl").write_text("".join(rows.splitlines(keepends=True)[:-1]))
    with pytest.raises(PreferoError, match="dpo is finished, and its data have changed since"):
        compare(recipe, ["dpo", "ipo"])
    (tmp_path / "held_out.jsonl").write_text(rows)
    saved_model(tmp_path / "model", seed=1)
    with pytest.raises(
        PreferoError, match=r"ipo: the weights of .* are other ones than those that dpo started"
    ):
        compare(recipe, ["dpo", "ipo"])


def test_a_trial_depends_on_what_was_tried_and_on_nothing_else() -> None:
    space = {
        "objective.beta": Range(0.05, 2.0),
        "training.lr": Range(1e-7, 1e-5, log=True),
        "x": ([1], [1, 2]),
    }
    tried: list[tuple[dict[str, Any], float]] = []
    for number in range(12):
        values = suggested(space, 3, number, tried, higher=True)
        assert values == suggested(space, 3, number, json.loads(json.dumps(tried)), higher=True)
        assert 0.05 <= values["objective.beta"] <= 2 and values["x"] in space["x"]
        tried.append((values, values["objective.beta"]))
    assert len({json.dumps(values) for values, _ in tried}) == 12
    later = [suggested(space, 3, 12 + n, tried, higher=True)["objective.beta"] for n in range(8)]
    lower = [suggested(space, 3, 12 + n, tried, higher=False)["objective.beta"] for n in range(8)]
    assert sum(later) > sum(lower), "where more is better, trials go up"


def test_no_trial_is_proposed_twice_while_there_are_others() -> None:
    space = {"n": Range(1, 3), "x": ["a", "b"]}
    tried: list[tuple[dict[str, Any], float | None]] = []
    for number in range(6):
        tried.append((suggested(space, 0, number, tried, higher=True), None if number % 2 else 1.0))
    assert len({json.dumps(values) for values, _ in tried}) == 6


def test_a_trial_that_failed_counts_as_worse_than_all_others() -> None:
    space = {"x": Range(0.0, 1.0)}
    tried: list[tuple[dict[str, Any], float | None]] = [
        ({"x": place / 20}, 1.0 - place / 20 if place < 10 else None) for place in range(20)
    ]
    later = [suggested(space, 0, 20 + n, tried, higher=True)["x"] for n in range(8)]
    assert sum(x < 0.5 for x in later) >= 6


def test_whole_numbers_stay_whole() -> None:
    assert (
        Range.parse("x", "1..8") == Range(1, 8) == Range.parse("x", " 1 .. 8 ")
        and Range.parse("x", "log:1..8").log
    )
    assert type(Range.parse("x", "1..8.0").low) is float
    drawn = [suggested({"n": Range(1, 8)}, 0, number, [], higher=True)["n"] for number in range(8)]
    assert all(type(one) is int and 1 <= one <= 8 for one in drawn) and len(set(drawn)) > 2


def test_other_trials_than_those_of_the_sweep_are_refused(recipe: Recipe) -> None:
    short = with_training(recipe, max_steps=1)
    sweep(short, {"objective.beta": "0.1..1"}, trials=1)
    resumed = with_training(short, resume_from_checkpoint="auto")
    with pytest.raises(PreferoError, match=r"holds a sweep over objective\.beta=0\.1\.\.1"):
        sweep(resumed, {"objective.beta": "0.1..2"}, trials=2)
    sweep(resumed, {"objective.beta": "0.1..1"}, trials=2)
    assert record(recipe)["finished"] == ["trial-0", "trial-1"]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([{"objective.beta": 0.05}, {"objective.beta": 1e-6}], ["beta-0.05", "beta-1e-06"]),
        ([{"a.x": 1, "b.x": -2}], ["a.x-1_b.x--2"]),
        ([{"model.lora.target_modules": ["q_proj", "v_proj"]}], ["target_modules-q_proj-v_proj"]),
        ([{"x": "a/b"}, {"x": "a b"}, {"x": "ab"}, {"x": "AB"}], ["x-a-b", "x-ab", "x-ab-2", "x-AB-3"]),
        ([{"x": None}, {"x": True}, {"x": "../.."}], ["x-null", "x-true", "x-..-.."]),
    ],
)
def test_runs_are_named_by_their_values(values: list[dict[str, Any]], names: list[str]) -> None:
    assert run_names(values) == names


@pytest.mark.parametrize(
    "betas",
    [np.geomspace(0.1, 1, 2, dtype=np.float32), list(np.linspace(0.1, 1, 2)), torch.tensor([0.1, 1.0])],
)
def test_numbers_of_an_array_are_numbers(recipe: Recipe, betas: Any) -> None:
    sweep(
        with_training(recipe, max_steps=1),
        {"objective.beta": betas, "training.examples_per_step": np.array([4, 6])},
    )
    assert record(recipe)["sweep"]["over"]["training.examples_per_step"] == [4, 6]
    assert len(record(recipe)["finished"]) == 4


def test_long_values_make_short_names() -> None:
    many = [{f"section.setting_number_{n}": "x" * 20 + str(last) for n in range(9)} for last in range(2)]
    assert all(len(name) <= 120 for name in run_names(many)) and len({*run_names(many)}) == 2
    long = [{"data.train": "a/very/long/path/to/" + "x" * 300 + str(number)} for number in range(2)]
    first, second = run_names(long)
    assert first != second and len(first) < 40 and "/" not in first


def test_the_best_is_the_highest_accuracy_or_the_lowest_loss() -> None:
    rows = [
        {"method": "a", "accuracy": 0.6, "loss": 0.5, "interval": {"accuracy": [0.5, 0.7]}},
        {"method": "b", "accuracy": 0.8, "loss": 0.9, "interval": {"accuracy": [0.65, 0.9]}},
        {"method": "c", "failed": "stopped"},
        {"method": "d", "accuracy": 0.7, "loss": float("nan"), "interval": {"accuracy": [0.6, 0.8]}},
    ]
    found = {"sweep": {"metric": "accuracy"}, "evaluation": {"rows": rows}}
    assert ranked(found) == ["b", "d", "a"]
    assert "best of 3" in note(found) and "Of the 2 others, 1 lie" in note(found)
    two = {"sweep": {"metric": "accuracy"}, "evaluation": {"rows": rows[:2]}}
    assert note(two).endswith("The other lies outside its 95 % interval.")
    assert ranked({**found, "sweep": {"metric": "loss"}}) == ["a", "b"]


def test_a_recipe_is_the_same_as_a_mapping_and_as_an_object(recipe: Recipe) -> None:
    recipe = with_training(recipe, max_steps=1)
    over = {"model.lora": [True, {"r": 2}], "objective.beta": [0.2]}
    first = prefero.sweep({**recipe, "output": recipe["output"] + "-1"}, over)
    second = prefero.sweep(TrainConfig.parse({**recipe, "output": recipe["output"] + "-2"}), over)
    rows = [
        json.loads((folder / "comparison.json").read_text())["evaluation"]["rows"]
        for folder in (first, second)
    ]
    assert rows[0] == rows[1]
