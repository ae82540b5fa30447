"""Answers to the same prompts while a model trains: what is drawn and judged; and training is the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from prefero.errors import PreferoError
from prefero.evaluate.intervals import mean, wilson
from prefero.report import curves
from prefero.report.contents import samples as shown_samples
from prefero.report.folder import Run, read
from prefero.report.page import render
from prefero.training.config import SampleSettings, TrainConfig
from prefero.training.run import train
from prefero.training.trainer import PreferenceTrainer
from tests.training import sample_judges
from tests.training.tiny import pairs, saved_model, tiny_tokenizer

WORDS = "tests.training.sample_judges:words"
RATES = ("examples_per_second", "tokens_per_second", "runtime", "samples_per_second", "steps_per_second")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    saved_model(tmp_path / "start")
    for name, seed, count in (("rows", 0, 24), ("held-out", 1, 12)):
        rows = "".join(json.dumps(row) + "\n" for row in pairs(count, seed))
        (tmp_path / f"{name}.jsonl").write_text(rows)
    return tmp_path


def recipe(files: Path, samples: Any, output: Any = "run", **training: Any) -> dict[str, Any]:
    return {
        "model": str(files / "start"), "output": str(files / output), "samples": samples,
        "data": {"train": str(files / "rows.jsonl"), "eval": str(files / "held-out.jsonl")},
        "training": {
            "use_cpu": True, "disable_tqdm": True, "examples_per_step": 4, "learning_rate": 0.03,
            "max_steps": 6, "warmup_steps": 0, "logging_steps": 1, "eval_steps": 3, "save_strategy": "no",
            **training,
        },
    }  # fmt: skip


def lines_of(folder: Path, name: str = "samples") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def curve(folder: Path, name: str = "win_rate") -> dict[int, float]:
    key = f"eval/samples/{name}"
    return {line["step"]: line[key] for line in lines_of(folder, "metrics") if key in line}


def test_the_win_rate_is_that_of_the_answers(files: Path) -> None:
    """Drawn again here by transformers alone, counted by hand."""
    every = {"eval_steps": 2, "save_strategy": "steps", "save_steps": 2, "save_total_limit": None}
    settings = {"prompts": 8, "every": 2, "max_new_tokens": 5, "judge": WORDS}
    folder = train(recipe(files, settings, **every))
    lines = lines_of(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(files / "start")
    assert [line["prompt"] for line in lines] == [row["prompt"] for row in pairs(12, 1)[:8]]

    def answers(place: Path) -> list[str]:
        model: Any = AutoModelForCausalLM.from_pretrained(place)
        texts = []
        for line in lines:
            prompt = tokenizer(line["prompt"], return_tensors="pt")
            tokens = model.generate(**prompt, do_sample=False, max_new_tokens=5)[0]
            texts.append(tokenizer.decode(tokens[prompt["input_ids"].shape[1] :], skip_special_tokens=True))
        return texts

    before = [len(text.split()) for text in answers(files / "start")]
    assert [line["scores"]["before"] for line in lines] == before
    wins = {}
    for step in (2, 4, 6):
        counted = [len(text.split()) for text in answers(folder / f"checkpoint-{step}")]
        entries = [next(one for one in line["steps"] if one["step"] == step) for line in lines]
        assert [one["score"] for one in entries] == counted
        won = [
            1.0 if ours > theirs else 0.5 if ours == theirs else 0.0
            for ours, theirs in zip(counted, before, strict=True)
        ]
        assert [one["preference"] for one in entries] == won
        wins[step] = sum(won) / 8
        interval, score = wilson(wins[step], 8), mean(counted)
        for name, value in (
            ("win_rate_low", interval.low), ("win_rate_high", interval.high), ("score", score.value),
            ("score_low", score.interval.low), ("score_high", score.interval.high),
        ):  # fmt: skip
            assert curve(folder, name)[step] == pytest.approx(value)
    assert curve(folder) == pytest.approx({0: 0.5, **wins})
    assert len(set(wins.values()) | {0.5}) > 1, "the answers have to change for this test to say anything"
    (row,) = json.loads((folder / "evaluation.json").read_text())["rows"]
    assert row["win_rate"] == wins[6] and row["interval"]["win_rate"] == [
        wilson(wins[6], 8).low,
        wilson(wins[6], 8).high,
    ]
    assert "accuracy" in row and "loss" in row
    assert [(line["step"], line["after"]) for line in lines] == [
        (6, line["steps"][-1]["response"]) for line in lines
    ]
    card = (folder / "model" / "README.md").read_text()
    assert f"| win rate against the start model, judged by `{WORDS}` | {wins[6]:.1%}" in card


def test_a_judge_that_compares_two_and_the_chosen_responses(files: Path) -> None:
    settings = {"prompts": 6, "judge": "tests.training.sample_judges:longer", "against": "chosen"}
    folder = train(recipe(files, settings))
    lines = lines_of(folder)
    assert [line["chosen"] for line in lines] == [row["chosen"] for row in pairs(12, 1)[:6]]
    for name, step in (("before", 0), ("after", 6)):
        rate = sum(sample_judges.longer("", line[name], line["chosen"]) for line in lines) / 6
        assert curve(folder)[step] == pytest.approx(rate)
    (row,) = json.loads((folder / "evaluation.json").read_text())["rows"]
    assert row["win_rate_against_chosen"] == curve(folder)[6] and "win_rate" not in row
    assert not curve(folder, "score")


def test_without_held_out_data_there_is_a_row_of_samples_alone(files: Path) -> None:
    given = recipe(files, {"prompts": 3, "judge": WORDS})
    given["data"].pop("eval")
    given["training"].pop("eval_steps")
    folder = train(given)
    (row,) = json.loads((folder / "evaluation.json").read_text())["rows"]
    assert row["method"] == "dpo" and "win_rate" in row and "loss" not in row
    assert "win rate against the start model" in (folder / "model" / "README.md").read_text()


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_training_is_the_same_to_the_bit(files: Path, temperature: float) -> None:
    """With dropout, which draws from the generator that samples and a careless judge might have moved."""
    settings = {"prompts": 4, "every": 1, "judge": WORDS, "temperature": temperature}
    dropout = {"dropout": True, "save_strategy": "steps", "save_steps": 6}
    config = json.loads((files / "start" / "config.json").read_text())
    (files / "start" / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.2}))
    sampled = train(recipe(files, settings, **dropout))
    plain = train(recipe(files, 0, "plain", **dropout))
    weights, same = (load_file(one / "model" / "model.safetensors") for one in (sampled, plain))
    assert all(torch.equal(value, same[name]) for name, value in weights.items())

    def logged(folder: Path) -> list[dict[str, Any]]:
        lines = [line for line in lines_of(folder, "metrics") if not any("samples/" in name for name in line)]
        return [{name: value for name, value in line.items() if not name.endswith(RATES)} for line in lines]

    assert logged(sampled) == logged(plain)
    for name in ("optimizer.pt", "rng_state.pth"):
        states = [torch.load(one / "checkpoint-6" / name, weights_only=False) for one in (sampled, plain)]
        assert str(states[0]) == str(states[1])
    assert not (plain / "samples.jsonl").exists()


class Kill(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise RuntimeError("killed")


def test_a_resume_gives_the_same_samples_and_curve(files: Path) -> None:
    settings = {"prompts": 4, "every": 2, "judge": WORDS, "temperature": 0.7}
    saves = {"save_strategy": "steps", "save_steps": 3}
    whole = train(recipe(files, settings, "whole", **saves))
    with pytest.raises(RuntimeError, match="killed"):
        train(recipe(files, settings, "killed", **saves), callbacks=[Kill(5)])
    killed = files / "killed"
    assert len(lines_of(killed)[0]["steps"]) == 2  # of steps 2 and 4, the second of which goes
    train(recipe(files, settings, "killed", **saves, resume_from_checkpoint=True))
    assert lines_of(killed) == lines_of(whole)
    assert curve(killed) == curve(whole) and set(curve(whole)) == {0, 2, 4, 6}
    assert (killed / "evaluation.json").read_text() == (whole / "evaluation.json").read_text()


def test_answers_that_a_resume_would_compare_with_others_stay_of_one_kind(files: Path) -> None:
    settings = {"prompts": 4, "every": 2}
    saves = {"save_strategy": "steps", "save_steps": 3}
    folder = train(recipe(files, settings, **saves))
    longer = {**saves, "max_steps": 9, "resume_from_checkpoint": True}
    with pytest.raises(PreferoError, match=r"samples.temperature was 0.0, and is 0.5"):
        train(recipe(files, {**settings, "temperature": 0.5}, **longer))
    train(recipe(files, {**settings, "every": 3}, **longer))
    assert [one["step"] for one in lines_of(folder)[0]["steps"]] == [2, 4, 6, 9]
    assert lines_of(folder)[0]["step"] == 9


def test_answers_from_before_training_are_not_made_up(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saves = {"save_strategy": "steps", "save_steps": 3}
    with pytest.raises(RuntimeError):
        train(recipe(files, 3, **saves), callbacks=[Kill(4)])
    (files / "run" / "samples.jsonl").unlink()
    train(recipe(files, 3, **saves, resume_from_checkpoint=True))
    assert "does not have the answers from before training" in capsys.readouterr().err
    assert lines_of(files / "run") == []


def test_a_share_is_of_all_steps(files: Path) -> None:
    folder = train(recipe(files, {"prompts": 2, "every": 0.5}))
    assert [one["step"] for one in lines_of(folder)[0]["steps"]] == [3, 6]


# The best model


BEST = {"load_best_model_at_end": True, "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}


def test_the_best_model_may_be_chosen_by_the_judge(files: Path) -> None:
    """Samples are drawn wherever it is looked for."""
    best = {**BEST, "save_total_limit": None, "metric_for_best_model": "samples/score", "learning_rate": 0.2}
    folder = train(recipe(files, {"prompts": 6, "judge": WORDS}, **best))
    scores = curve(folder, "score")
    run = read(folder)
    assert isinstance(run, Run) and set(scores) == set(range(7))
    best_step = max(range(1, 7), key=lambda step: (scores[step], -step))
    assert run.best == {"step": best_step, "metric": "samples/score", "value": scores[best_step]}
    lines = lines_of(folder)
    entries = [next(one for one in line["steps"] if one["step"] == best_step) for line in lines]
    assert [(line["step"], line["after"]) for line in lines] == [
        (best_step, one["response"]) for one in entries
    ]
    (row,) = run.evaluation
    assert row["score"] == pytest.approx(scores[best_step])


def test_samples_of_the_end_are_of_the_model_that_is_kept(files: Path) -> None:
    """Also where none were drawn at its step; they are no point of the curve."""
    best = {**BEST, "save_total_limit": None, "metric_for_best_model": "loss", "learning_rate": 0.3}
    folder = train(recipe(files, {"prompts": 4, "judge": WORDS}, **best))
    run = read(folder)
    assert isinstance(run, Run) and run.best["step"] < 6
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer: Any = tiny_tokenizer()
    for line in lines_of(folder):
        assert line["step"] == run.best["step"]
        prompt = tokenizer(line["prompt"], return_tensors="pt")
        tokens = model.generate(**prompt, do_sample=False, max_new_tokens=20)[0]
        answer = tokenizer.decode(tokens[prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        assert line["after"].split()[:20] == answer.split()[:20]
    assert set(curve(folder)) == {0}


def test_a_run_may_stop_where_the_judge_sees_nothing_better(files: Path) -> None:
    best = {
        **BEST,
        "metric_for_best_model": "samples/win_rate",
        "early_stopping_patience": 2,
        "learning_rate": 0,
    }
    folder = train(recipe(files, {"prompts": 4, "judge": WORDS}, **best, max_steps=9))
    run = read(folder)
    assert isinstance(run, Run) and run.stopped["step"] == 3 and run.best["step"] == 1


def test_an_evaluation_that_a_judge_fails_at_is_not_the_best(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = {"prompts": 3, "judge": "tests.training.sample_judges:breaks_later"}
    best = {**BEST, "metric_for_best_model": "samples/score", "early_stopping_patience": 9}
    sample_judges.calls.clear()
    folder = train(recipe(files, judged, **best, max_steps=3))
    assert "step 1: the samples are not judged" in capsys.readouterr().err
    run = read(folder)
    scores = curve(folder, "score")
    assert isinstance(run, Run) and scores.keys() == {0, 2, 3}
    assert run.best["step"] == max((2, 3), key=scores.__getitem__)
    sample_judges.calls.clear()
    folder = train(recipe(files, judged, "other", **best, max_steps=1))
    assert "no evaluation gave samples/score: the model of the last step" in capsys.readouterr().err


def test_several_held_out_sets_are_one_evaluation(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    for metric in ("samples/win_rate", "first_loss"):
        trainer = PreferenceTrainer(
            str(files / "start"), pairs(12), eval_dataset={"first": pairs(6, 1), "second": pairs(6, 2)},
            output_dir=str(files / metric[:6]), use_cpu=True, disable_tqdm=True, examples_per_step=4,
            max_steps=6, learning_rate=0.0, eval_strategy="steps", eval_steps=1, save_strategy="steps",
            save_steps=1, load_best_model_at_end=True, metric_for_best_model=metric,
            early_stopping_patience=3, samples={"prompts": 3, "judge": WORDS, "max_new_tokens": 4},
        )  # fmt: skip
        trainer.train()
        run = read(files / metric[:6])
        assert isinstance(run, Run) and run.stopped["step"] == 4
        assert "early stopping is disabled" not in caplog.text


# What cannot be


@pytest.mark.parametrize(
    ("samples", "training", "message"),
    [
        ({"judge": "tests.training.sample_judges:nothing"}, {}, "no judge today"),
        ({"judge": "tests.training.sample_judges:nowhere"}, {}, "has no function 'nowhere'"),
        ({"judge": "no_module_of_mine:f"}, {}, "cannot be imported"),
        ({"against": "chosen"}, {}, "give samples.judge too"),
        ({"prompts": 0, "every": 3}, {}, "leave out every"),
        ({"evry": 3}, {}, "samples has no key 'evry'; did you mean"),
        ({"every": 0}, {}, "samples.every"),
        ({"every": True}, {}, "samples.every is True: true and false are no numbers"),
        (
            {},
            {"metric_for_best_model": "loss", "greater_is_better": True},
            "greater_is_better is true, which keeps the worst model by loss: leave it out",
        ),
        (
            {"judge": WORDS},
            {"metric_for_best_model": "samples/win_rate", "greater_is_better": False},
            "greater_is_better is false, which keeps the worst model by samples/win_rate",
        ),
        ({"temperature": -1}, {}, "samples.temperature"),
        ({"max_new_tokens": 4}, {"metric_for_best_model": "samples/win_rate"}, "set samples.judge"),
        (
            {"judge": WORDS, "max_new_tokens": 64},
            {"metric_for_best_model": "samples/win_rate"},
            "no prompt leaves room",
        ),
        (
            {"judge": WORDS},
            {"metric_for_best_model": "samples/margin"},
            "this judge gives samples/win_rate and samples/score",
        ),
        (
            {"judge": "tests.training.sample_judges:longer"},
            {"metric_for_best_model": "eval_samples/score"},
            "this judge gives samples/win_rate; or",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_training(
    files: Path, samples: dict[str, Any], training: dict[str, Any], message: str
) -> None:
    with pytest.raises(PreferoError, match=message):
        train(recipe(files, samples, **training))
    assert not (files / "run" / "run.json").exists()


def test_prompts_without_a_chosen_response_have_no_win_rate_against_it(files: Path) -> None:
    rows = [{"prompt": row["prompt"], "completion": row["chosen"], "label": True} for row in pairs(8)]
    (files / "held-out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (files / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {**recipe(files, {"judge": WORDS, "against": "chosen"}), "objective": "kto"}
    with pytest.raises(PreferoError, match=r"no chosen response in the data: set samples\.against"):
        train(given)


def test_a_judge_that_breaks_later_costs_a_point_and_not_the_run(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample_judges.calls.clear()
    settings = {"prompts": 3, "every": 2, "judge": "tests.training.sample_judges:breaks_later"}
    folder = train(recipe(files, settings))
    assert "step 2: the samples are not judged, because the judge" in capsys.readouterr().err
    assert set(curve(folder)) == {0, 4, 6}
    assert ["score" in one for one in lines_of(folder)[0]["steps"]] == [False, True, True]


def test_room_for_no_answer_is_said(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train(recipe(files, {"max_new_tokens": 64}))
    assert "no samples: no prompt leaves room" in capsys.readouterr().err
    assert not (folder / "samples.jsonl").exists()


# Places and forms


def test_the_old_place_is_read_with_a_warning(files: Path) -> None:
    given = recipe(files, 3)
    given["training"]["samples"] = given.pop("samples")
    with pytest.warns(FutureWarning, match="training.samples is samples"):
        config = TrainConfig.parse(given)
    assert config.samples == SampleSettings(prompts=3) and "samples" not in config.as_dict()["training"]
    with pytest.raises(PreferoError, match="given twice"):
        TrainConfig.parse({**given, "samples": 4})


def test_a_checkpoint_of_the_old_place_resumes(files: Path) -> None:
    saves = {"save_strategy": "steps", "save_steps": 3}
    with pytest.raises(RuntimeError):
        train(recipe(files, 3, **saves), callbacks=[Kill(4)])
    marker = files / "run" / "checkpoint-3" / "prefero.json"
    content = json.loads(marker.read_text())
    settings = {name: value for name, value in content["settings"].items() if not name.startswith("samples.")}
    marker.write_text(json.dumps({**content, "settings": {**settings, "training.samples": 3}}))
    folder = train(recipe(files, 3, **saves, resume_from_checkpoint=True))
    assert "changes" not in json.loads((folder / "run.json").read_text())


def test_python_draws_the_same_samples(files: Path) -> None:
    settings = {"prompts": 4, "every": 3, "judge": WORDS}
    folder = train(recipe(files, settings))
    given = recipe(files, settings)["training"]
    trainer = PreferenceTrainer(
        str(files / "start"), str(files / "rows.jsonl"), str(files / "held-out.jsonl"), samples=settings,
        output_dir=str(files / "python"), eval_strategy="steps", **given,
    )  # fmt: skip
    trainer.train()
    assert lines_of(files / "python") == lines_of(folder)
    assert curve(files / "python") == curve(folder)
    assert read(files / "python").record["config"]["samples"]["judge"] == WORDS
    assert read(files / "python").record["sampling"] == read(folder).record["sampling"]


def test_answers_stay_of_one_kind_in_python_too(files: Path) -> None:
    given = recipe(files, 0, save_strategy="steps", save_steps=3)["training"]

    def run(**samples: Any) -> PreferenceTrainer:
        return PreferenceTrainer(
            str(files / "start"), str(files / "rows.jsonl"), samples={"prompts": 3, **samples},
            output_dir=str(files / "python"), **{**given, "eval_steps": None},
        )  # fmt: skip

    run().train()
    with pytest.raises(PreferoError, match=r"samples.temperature was 0.0, and is 0.5"):
        run(temperature=0.5).train(True)
    run(every=2).train(True)


def test_several_processes_draw_none_and_say_so(
    trainer: Callable[..., PreferenceTrainer],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = trainer()
    monkeypatch.setattr(type(run.args), "world_size", 2)
    assert run._samples(SampleSettings(prompts=3), None, run.args) is None
    assert "in one process alone, and this run has 2" in capsys.readouterr().err


# The report


def test_the_report_draws_the_curve_and_shows_answers_from_between(files: Path) -> None:
    folder = train(recipe(files, {"prompts": 3, "every": 1, "judge": WORDS}))
    run = read(folder)
    assert isinstance(run, Run)
    main, rest = curves.of_run(run)
    titles = [one.title for one in main]
    assert {"Win rate of samples", "Score of samples"} <= set(titles)
    assert not any("samples, " in one.title for one in rest)
    note = main[titles.index("Win rate of samples")].note
    assert note.startswith(f"Judged by {WORDS} on 3 prompts. 95 % interval over prompts at the last point: ")
    shown, count = shown_samples([(run, "after", "better")])
    assert count == 3
    assert [one.label for one in shown[0].versions] == ["before", "step 1", "step 3", "step 5", "after"]
    (folder / "samples.jsonl").write_text(
        json.dumps({"prompt": "a", "before": "b", "steps": [{"step": 2, "response": "c"}]}) + "\n"
    )
    shown, _ = shown_samples([(read(folder), "after", "better")])  # type: ignore[list-item]
    assert [(one.label, one.text) for one in shown[0].versions] == [("before", "b"), ("step 2", "c")]
    shutil.rmtree(folder / "model")
    assert "Win rate of samples" in render(folder).read_text()
