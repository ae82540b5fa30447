"""The monitors inside the trainer: what they write, and what a resume makes of it."""

from __future__ import annotations

import json

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from prefero.objectives import methods
from prefero.training.monitors import MONITORS
from prefero.training.run_folder import MonitorCallback
from prefero.training.series import metric_names


@pytest.fixture
def log(tmp_path):
    """Feeds logs to a callback as the trainer does, from a step on."""
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])

    def feed(logs, *, begin: int = 0, main: bool = True) -> MonitorCallback:
        callback = MonitorCallback(tmp_path)
        state = TrainerState(global_step=begin, is_world_process_zero=main)
        callback.on_train_begin(arguments, state, TrainerControl())
        for step, line in enumerate(logs, begin + 1):
            state.global_step = step
            callback.on_log(arguments, state, TrainerControl(), logs=line)
            with (tmp_path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, **metric_names(line)}) + "\n")
        return callback

    return feed


def findings(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "monitors.jsonl").read_text().splitlines()]


FAR = {"log_ratios/chosen": 300.0, "lengths/chosen": 100.0}
NEAR = {"log_ratios/chosen": 1.0, "lengths/chosen": 100.0}


def test_a_finding_is_written_and_said_once(log, tmp_path, capsys):
    log([NEAR, FAR, FAR, FAR])
    (found,) = findings(tmp_path)
    assert found["monitor"] == "far_from_reference" and found["step"] == 2
    assert found["remedies"] == ["tdpo2", "ipo"]
    assert capsys.readouterr().err.count("Far from the reference") == 1


def test_a_resumed_run_remembers_what_fired(log, tmp_path):
    log([NEAR, FAR, FAR])
    log([FAR, FAR], begin=3)
    assert len(findings(tmp_path)) == 1


def test_a_resumed_run_forgets_what_lies_behind_its_checkpoint(log, tmp_path):
    log([NEAR, NEAR, FAR, FAR, FAR])
    (tmp_path / "metrics.jsonl").write_text("".join(f'{{"step": {i}, "loss": 1}}\n' for i in (1, 2)))
    log([NEAR], begin=2)
    assert findings(tmp_path) == []


def test_a_run_that_starts_afresh_has_no_past(log, tmp_path):
    log([NEAR, FAR, FAR])
    log([NEAR])
    assert findings(tmp_path) == []


def test_only_the_main_process_watches(log, tmp_path):
    log([FAR, FAR, FAR], main=False)
    assert not (tmp_path / "monitors.jsonl").exists()


def test_what_is_no_number_is_written_as_null(log, tmp_path):
    log([{"loss": float("nan")}])
    (found,) = findings(tmp_path)
    assert found["monitor"] == "not_finite" and found["value"] is None and found["threshold"] is None


def test_the_trainer_s_names_of_held_out_metrics():
    assert metric_names({"eval_rewards/margins": 1, "loss": 2}) == {"eval/rewards/margins": 1, "loss": 2}


@pytest.mark.parametrize("monitor", MONITORS, ids=lambda monitor: monitor.name)
def test_every_remedy_is_a_method(monitor):
    assert set(monitor.remedies) <= set(methods())
