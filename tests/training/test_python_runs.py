"""A run that is started from Python leaves what one of a recipe does, and is read in the same way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import EarlyStoppingCallback, TrainerCallback

import prefero
from prefero.errors import PreferoError
from prefero.evaluate.judges import judge_named
from prefero.evaluate.policies import Prompt, Sampling, evaluate
from prefero.evaluate.reading import RunReading
from prefero.report.folder import Run, read
from prefero.report.page import render
from prefero.training.run import train
from prefero.training.run_folder import model_of
from prefero.training.trainer import PreferenceTrainer
from tests.training.tiny import pairs, saved_model, tiny_model, tiny_tokenizer

SETTINGS = {
    "examples_per_step": 6, "learning_rate": 0.05, "warmup_steps": 0, "logging_steps": 1,
    "save_strategy": "no", "use_cpu": True, "disable_tqdm": True,
}  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> Path:
    saved_model(tmp_path / "start")
    for name, seed in (("rows", 0), ("held-out", 1)):
        rows = "".join(json.dumps(row) + "\n" for row in pairs(12, seed))
        (tmp_path / f"{name}.jsonl").write_text(rows)
    return tmp_path


def python_run(files: Path, output: str = "run", **settings: Any) -> PreferenceTrainer:
    named = {"model": str(files / "start"), "train_dataset": str(files / "rows.jsonl")}
    return PreferenceTrainer(**{**named, **SETTINGS, "output_dir": str(files / output), **settings})


def rewards_of(run: Path) -> list[float]:
    judge: Any = judge_named(str(run))
    return judge(["a b", "c d"], [" v w", " w"])


@pytest.mark.parametrize(
    ("objective", "reference"),
    [
        ("simpo", "auto"),
        ({"method": "dpo", "beta": 0.3}, "auto"),
        ("dpo", {"kind": "frozen"}),
        ("dph", "auto"),
    ],
)
def test_a_run_from_python_is_read_as_one_of_a_recipe(files: Path, objective: Any, reference: Any) -> None:
    held_out = str(files / "held-out.jsonl")
    run = python_run(files, objective=objective, reference=reference, eval_dataset=held_out)
    run.train()
    run.save_model()
    train({
        "model": str(files / "start"), "data": {"train": str(files / "rows.jsonl"), "eval": held_out},
        "objective": objective, "reference": reference, "output": str(files / "recipe"),
        "training": {**SETTINGS, "eval_strategy": "no"},
    })  # fmt: skip
    folder, recipe = files / "run", files / "recipe"
    assert model_of(folder) == folder and model_of(recipe) == recipe / "model"
    assert rewards_of(folder) == pytest.approx(rewards_of(recipe), abs=1e-6)
    assert (folder / "evaluation.json").read_text() == (recipe / "evaluation.json").read_text()
    both = read(folder), read(recipe)
    assert all(isinstance(one, Run) and one.finished for one in both)
    for name in ("reference", "models"):
        assert both[0].record["config"][name] == both[1].record["config"][name]
    assert "Held-out data" in render(folder).read_text()

    def lengths(prompts: Any, responses: Any) -> list[float]:
        return [float(len(text)) for text in responses]

    asked, sampling = [Prompt("a b"), Prompt("c")], Sampling(max_new_tokens=3)
    answers = [
        evaluate({"run": str(place)}, asked, lengths, baseline=str(files / "start"), sampling=sampling)
        for place in (folder, recipe)
    ]
    assert answers[0].judgements == answers[1].judgements
    assert "| reward accuracy |" in (folder / "README.md").read_text()


def test_adapters_of_a_run_from_python_are_measured_against_the_model_without_them(files: Path) -> None:
    adapters = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    run = python_run(files, peft_config=adapters, objective="dpo")
    run.train()
    run.save_model()
    with torch.no_grad():
        for name, weight in run.model.named_parameters():
            if "lora_" in name:
                weight.zero_()
    assert any(abs(reward) > 1e-3 for reward in rewards_of(files / "run"))
    run.save_model()
    assert rewards_of(files / "run") == pytest.approx([0, 0], abs=1e-5)


def test_what_is_missing_is_said_in_one_line(files: Path) -> None:
    run = python_run(files, save_strategy="steps", save_steps=1)
    run.train()
    missing = r"run holds no model: trainer.save_model\(\) was not called after it. .* in .*checkpoint-2$"
    with pytest.raises(PreferoError, match=missing):
        judge_named(str(files / "run"))
    with pytest.raises(PreferoError, match=missing):
        evaluate({"run": str(files / "run")}, [Prompt("a")], lambda _, texts: [0.0] * len(texts))
    render(files / "run")
    objects = PreferenceTrainer(
        tiny_model(),
        pairs(6),
        processing_class=tiny_tokenizer(),
        output_dir=str(files / "objects"),
        **SETTINGS,
    )
    objects.train()
    objects.save_model()
    with pytest.raises(PreferoError, match=r"an object as its model, .*LearnedReward"):
        judge_named(str(files / "objects"))


def test_a_run_without_a_reference_judges_also_where_its_model_was_an_object(files: Path) -> None:
    run = PreferenceTrainer(
        tiny_model(), pairs(6), objective="simpo", processing_class=tiny_tokenizer(),
        output_dir=str(files / "run"), **SETTINGS,
    )  # fmt: skip
    run.train()
    run.save_model()
    assert len(rewards_of(files / "run")) == 2


def test_a_reference_that_changed_is_no_judges(files: Path) -> None:
    run = python_run(files, reference={"kind": "moving", "every": 1})
    run.train()
    run.save_model()
    with pytest.raises(PreferoError, match="its reference was a model that changed during training"):
        judge_named(str(files / "run"))


def test_a_reference_that_cannot_be_one_is_refused(files: Path) -> None:
    policy = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    inside = {"model": policy, "processing_class": tiny_tokenizer(), "reference": policy.get_base_model()}
    with pytest.raises(PreferoError, match="is the model that is trained, and would change with it"):
        python_run(files, **inside)
    for other in (3, ["start"], True):
        with pytest.raises(PreferoError, match="a reference is a loaded model, a kind"):
            python_run(files, reference=other)
    short = tiny_model()
    short.resize_token_embeddings(10)
    short.save_pretrained(files / "short")
    for small in (short, str(files / "short")):
        with pytest.raises(PreferoError, match=r"the data have the token \d+, but .* has 10 tokens"):
            python_run(files, reference=small).train()


def test_a_reference_that_was_given_loaded_is_not_taken_for_the_start(files: Path) -> None:
    run = python_run(files, reference=tiny_model(3))
    run.train()
    run.save_model()
    with pytest.raises(PreferoError, match="an object as its reference"):
        judge_named(str(files / "run"))


def test_an_objective_of_ones_own_is_no_judges_by_name(files: Path) -> None:
    own = prefero.method("dpo") + 0.5 * prefero.method("nll")
    run = python_run(files, objective=own)
    run.train()
    run.save_model()
    with pytest.raises(PreferoError, match="an object as its objective"):
        judge_named(str(files / "run"))


def test_several_held_out_sets_have_a_row_each(files: Path) -> None:
    run = python_run(files, eval_dataset={"first": pairs(5, 2), "second": pairs(7, 3)})
    run.train()
    run.save_model()
    rows = json.loads((files / "run" / "evaluation.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["dpo, first", "dpo, second"]
    assert rows[0]["loss"] != rows[1]["loss"]
    card = (files / "run" / "README.md").read_text()
    assert "On 5 held-out" in card and "On 7 held-out" in card
    render(files / "run")


def test_what_was_measured_at_the_last_step_is_not_measured_again(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0
    measured = PreferenceTrainer._evaluated

    def counting(self: PreferenceTrainer, loader: Any) -> Any:
        nonlocal count
        count += 1
        return measured(self, loader)

    monkeypatch.setattr(PreferenceTrainer, "_evaluated", counting)
    held_out = {"first": pairs(5, 2), "second": pairs(7, 3)}
    python_run(files, eval_dataset=held_out, eval_strategy="steps", eval_steps=2).train()
    assert count == 2


def test_a_model_beside_the_record_goes_with_the_run(files: Path) -> None:
    """Or the adapters of an earlier run would be read with the model of the next."""
    first = python_run(files, peft_config=LoraConfig(r=2, target_modules=["q_proj"]))
    first.train()
    first.save_model()
    (files / "run" / "notes.txt").write_text("mine")
    assert (files / "run" / "adapter_config.json").is_file()
    again = python_run(files, overwrite=True)
    again.train()
    assert model_of(files / "run") is None
    assert not (files / "run" / "adapter_config.json").exists()
    assert (files / "run" / "notes.txt").read_text() == "mine"


def test_the_template_that_was_saved_beside_the_record_is_read(files: Path) -> None:
    template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    (files / "template.jinja").write_text(template)
    rows = [
        {name: [{"role": role, "content": row[name]}] for name, role in
         (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant"))}
        for row in pairs(6)
    ]  # fmt: skip
    run = python_run(files, train_dataset=rows, template=str(files / "template.jinja"))
    run.train()
    run.save_model()
    reading = RunReading.of(files / "run")
    assert reading is not None and reading.writing.template == str(files / "run" / "chat_template.jinja")


# Early stops


EVERY_STEP = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
BEST = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "save_total_limit": None}


def stopping(files: Path, **settings: Any) -> PreferenceTrainer:
    """A run whose held-out loss gets worse soon."""
    settings = {
        "learning_rate": 0.3,
        "max_steps": 12,
        "eval_dataset": pairs(12, 1),
        **EVERY_STEP,
        **BEST,
        **settings,
    }
    return python_run(files, **settings)


def of_callback(patience: int) -> dict[str, Any]:
    return {"callbacks": [EarlyStoppingCallback(patience)]}


def of_setting(patience: int) -> dict[str, Any]:
    return {"early_stopping_patience": patience}


@pytest.mark.parametrize("given", [of_callback, of_setting])
def test_an_early_stop_ends_a_run(files: Path, given: Callable[[int], dict[str, Any]]) -> None:
    run = stopping(files, **given(2))
    run.train()
    record = json.loads((files / "run" / "run.json").read_text())
    step = run.state.global_step
    assert step < 12 and record["finished"]
    assert record["stopped"] == {
        "step": step, "max_steps": 12, "reason": "loss had not improved in 2 evaluations since its best",
    }  # fmt: skip
    assert record["best"]["step"] == step - 2
    said = render(files / "run").read_text()
    assert f"Stopped early, at step {step} of 12: loss had not improved" in said
    assert f"The model that is kept is that of step {step - 2}" in said


@pytest.mark.parametrize("given", [of_callback, of_setting])
def test_a_resume_does_not_train_past_an_early_stop_unless_it_is_told_to(
    files: Path, given: Callable[[int], dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    first = stopping(files, **given(2))
    first.train()
    step, weights = first.state.global_step, first.model.state_dict()
    capfd.readouterr()
    again = stopping(files, **given(2))
    again.train(True)
    assert f"stopped early at step {step} of 12, because loss had not improved" in capfd.readouterr().err
    assert again.state.global_step == step
    assert all(torch.equal(value, weights[name]) for name, value in again.model.state_dict().items())
    record = json.loads((files / "run" / "run.json").read_text())
    assert record["finished"] and record["stopped"]["step"] == step and record["best"]["step"] == step - 2
    further = stopping(files, **given(4))
    further.train(True)
    assert further.state.global_step == step + 2  # two of four had passed


class Kill(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise RuntimeError("killed")


def test_a_resume_counts_on_where_the_metric_had_not_improved(files: Path) -> None:
    whole = stopping(files, **of_setting(3), output="whole")
    whole.train()
    step = whole.state.global_step
    with pytest.raises(RuntimeError, match="killed"):
        stopping(files, **of_setting(3), output="killed", callbacks=[Kill(step)]).train()
    resumed = stopping(files, **of_setting(3), output="killed")
    resumed.train(True)
    assert resumed.state.global_step == step


def test_a_stop_by_a_signal_leaves_a_run_unfinished(files: Path) -> None:
    class Signal(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            run._stop.asked = state.global_step == 1

    run = stopping(files, callbacks=[Signal()], **of_setting(5))
    with pytest.raises(KeyboardInterrupt):
        run.train()
    record = json.loads((files / "run" / "run.json").read_text())
    assert not record["finished"] and "stopped" not in record
    assert not (files / "run" / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"early_stopping_patience": 2},
            "needs the metric that has to become better: set metric_for_best_model",
        ),
        ({"early_stopping_threshold": 0.1}, "set early_stopping_patience too"),
        (
            {"early_stopping_patience": 2, "metric_for_best_model": "loss"},
            "there are none while this run trains: set eval_strategy=steps|give eval_dataset",
        ),
        ({"load_best_model_at_end": True}, "load_best_model_at_end goes by evaluations"),
        ({"early_stopping_patience": 0}, "early_stopping_patience"),
    ],
)
def test_an_early_stop_that_cannot_happen_is_refused_first(
    files: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(PreferoError, match=message):
        python_run(files, **settings)
    assert not (files / "run").exists()


def recipe(files: Path, **training: Any) -> dict[str, Any]:
    return {
        "model": str(files / "start"), "output": str(files / "out"),
        "data": {"train": str(files / "rows.jsonl"), "eval": str(files / "held-out.jsonl")},
        "training": {"use_cpu": True, "disable_tqdm": True, "examples_per_step": 4, **training},
    }  # fmt: skip


def test_a_recipe_stops_early_with_two_keys(files: Path) -> None:
    """The best model is saved as often as it is looked for."""
    keys = {"early_stopping_patience": 2, "load_best_model_at_end": True}
    folder = train(recipe(files, learning_rate=0.3, max_steps=20, warmup_steps=0, **keys))
    run = read(folder)
    assert isinstance(run, Run)
    assert run.stopped["step"] < 20 and run.best["step"] < run.stopped["step"]
    without = recipe(files, **keys)
    without["data"].pop("eval")
    with pytest.raises(PreferoError, match=r"training.early_stopping_patience .*give data.eval"):
        train(without)


def test_checkpoints_that_the_best_model_could_not_be_in_are_refused_by_name(files: Path) -> None:
    with pytest.raises(PreferoError, match=r"training\.save_steps a multiple of training\.eval_steps"):
        train(recipe(files, load_best_model_at_end=True, save_steps=7, eval_steps=2))
