"""A run that cannot go on ends with one message, and leaves nothing that is taken for a whole checkpoint; one
that ends well says what it has kept."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from prefero.errors import PreferoError
from prefero.report.folder import read
from prefero.report.summary import latest, state_of
from prefero.storage import NotWrittenError, append_line, replacing, write_json, writing
from prefero.training import checkpoints
from prefero.training.checkpoints import complete_checkpoints
from prefero.training.lock import NAME, FolderLock, refuse_running
from prefero.training.run import train
from prefero.training.trainer import PreferenceTrainer
from tests.training.test_trainer_arguments import Trainer
from tests.training.tiny import pairs, saved_model

# One run in a folder


@contextmanager
def process_with_lock(folder: Path) -> Iterator[int]:
    """A process that has locked the folder, until it is killed."""
    ready, said = os.pipe()
    child = os.fork()
    if child == 0:
        lock = FolderLock(folder)
        lock.take()
        os.write(said, b"1")
        signal.pause()
    os.read(ready, 1)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready), os.close(said)


def test_a_folder_is_of_one_process_until_it_ends(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "run")
    with process_with_lock(tmp_path / "run") as process:
        for refused in (lock.take, lambda: refuse_running(tmp_path / "run")):
            with pytest.raises(
                PreferoError, match=f"is in use: .*process {process} on {os.uname().nodename}"
            ):
                refused()
    refuse_running(tmp_path / "run")
    assert (tmp_path / "run" / NAME).is_file()  # of a dead process
    lock.take()
    assert json.loads((tmp_path / "run" / NAME).read_text())["process"] == os.getpid()
    lock.release()
    assert not (tmp_path / "run" / NAME).exists()


def test_a_lock_of_another_machine_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(json.dumps({"process": 7, "host": "elsewhere", "since": "yesterday"}))
    with pytest.raises(
        PreferoError, match=r"process 7 on elsewhere .*if that run has ended, delete .*running"
    ):
        FolderLock(tmp_path).take()


def test_a_lock_file_that_was_cut_off_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text('{"proc')
    lock = FolderLock(tmp_path)
    lock.take()
    assert not lock.lost
    (tmp_path / NAME).unlink()
    assert lock.lost
    (tmp_path / NAME).write_text("another run's")
    lock.release()
    assert (tmp_path / NAME).read_text() == "another run's"


def test_a_run_is_refused_where_another_is_going(trainer: Trainer, tmp_path: Path) -> None:
    with process_with_lock(tmp_path / "run"):
        for options in ({}, {"overwrite": True}, {"resume_from_checkpoint": "auto"}):
            with pytest.raises(PreferoError, match="is in use"):
                trainer(output_dir=str(tmp_path / "run"), max_steps=1, **options).train()
    run = trainer(output_dir=str(tmp_path / "run"), max_steps=1)
    run.train()
    assert not (tmp_path / "run" / NAME).exists()


class AtStep(TrainerCallback):
    """Does something after a step, before anything is logged or saved at it."""

    def __init__(self, step: int, do: Callable[[], Any]) -> None:
        self.step, self.do = step, do

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            self.do()


def test_a_folder_that_is_removed_stops_the_run(trainer: Trainer, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    remove = AtStep(2, lambda: shutil.rmtree(folder))
    run = trainer(output_dir=str(folder), max_steps=5, logging_steps=100, callbacks=[remove])
    with pytest.raises(
        PreferoError, match=r"stopped at step 2 of 5: .*run was removed while the run was going"
    ):
        run.train()
    assert not folder.exists()


# A disk that takes no more


@pytest.mark.parametrize(
    "write",
    [
        lambda file: torch.save(torch.zeros(10_000), file),
        lambda file: save_file({"a": torch.zeros(10_000)}, file),
        lambda file: file.write_text("a" * 10_000),
    ],
    ids=["torch", "safetensors", "Python"],
)
def test_every_library_says_in_one_way_that_a_file_cannot_be_written(
    tmp_path: Path, write: Callable[[Path], Any]
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(NotWrittenError, match="big cannot be written: "), writing(tmp_path / "big"):
            write(tmp_path / "big")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("error", [ConnectionError("no hub"), RuntimeError("CUDA error")])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)), writing(Path("run")):
        raise error


def test_a_file_that_cannot_be_read_meanwhile_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as error, replacing(tmp_path / "output" / "rows.jsonl"):
        (tmp_path / "picture.png").read_bytes()
    assert not isinstance(error.value, PreferoError)


def test_files_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    for write in (append_line, write_json):
        with pytest.raises(NotWrittenError, match="taken cannot be written: "):
            write(tmp_path / "taken", {})


def test_a_full_disk_ends_the_run_and_names_the_last_whole_checkpoint(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mark = checkpoints.mark_complete

    def full(checkpoint: Path, step: int, *rest: Any) -> None:
        if step == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        mark(checkpoint, step, *rest)

    monkeypatch.setattr(checkpoints, "mark_complete", full)
    folder = tmp_path / "run"
    options = {"output_dir": str(folder), "max_steps": 5, "save_strategy": "steps", "save_steps": 2}
    with pytest.raises(PreferoError) as error:
        trainer(**options).train()
    assert str(error.value) == (
        f"{folder}/checkpoint-4 cannot be written: No space left on device. The last whole checkpoint is "
        f"{folder}/checkpoint-2: with resume_from_checkpoint=True the run continues from it"
    )
    assert not (folder / "checkpoint-4").exists()
    monkeypatch.undo()
    monkeypatch.setenv("PREFERO_CACHE", str(tmp_path / "cache"))
    trainer(**options).train(True)
    assert json.loads((folder / "run.json").read_text())["finished"]


def test_a_log_that_cannot_be_written_ends_the_run(trainer: Trainer, tmp_path: Path) -> None:
    metrics = tmp_path / "run" / "metrics.jsonl"
    break_it = AtStep(2, lambda: (metrics.unlink(), metrics.mkdir()))
    run = trainer(output_dir=str(tmp_path / "run"), max_steps=5, callbacks=[break_it])
    with pytest.raises(PreferoError, match=r"metrics.jsonl cannot be written: .* has no whole checkpoint"):
        run.train()


# Numbers that are none


def test_a_step_without_a_finite_gradient_stops_the_run(trainer: Trainer) -> None:
    run = trainer(learning_rate=1e20, max_steps=6, save_strategy="steps", save_steps=1)
    with pytest.raises(PreferoError, match=r"stopped at step \d: its (loss|gradient) is (nan|inf)") as error:
        run.train()
    last = complete_checkpoints(Path(run.args.output_dir))[-1]
    assert f"The last whole checkpoint is {last}" in str(error.value)
    assert f"model={last}" in str(error.value)
    weights = run.model.state_dict()
    assert all(value.isfinite().all() for value in weights.values())
    assert all(
        torch.equal(value, weights[name]) for name, value in load_file(last / "model.safetensors").items()
    )


def test_losses_that_are_no_numbers_stop_a_run_unless_they_are_wanted(trainer: Trainer) -> None:
    for wanted in (False, True):
        run = trainer(max_steps=2, logging_nan_inf_filter=wanted)
        with torch.no_grad():
            run.model.lm_head.weight[3, 3] = torch.nan
        if wanted:
            run.train()
            assert run.state.global_step == 2
        else:
            with pytest.raises(PreferoError, match="stopped at step 1: its loss is nan"):
                run.train()


# What a run says of itself


def log_of(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rates = ("tokens_per_second", "examples_per_second")
    assert all(rate > 0 for line in lines for name, rate in line.items() if name in rates)
    return [{name: value for name, value in line.items() if name not in rates} for line in lines]


@pytest.mark.parametrize("objective", ["dpo", "beta_dpo"])
def test_a_log_that_a_resume_interrupts_covers_all_its_steps(
    trainer: Trainer, tmp_path: Path, objective: str
) -> None:
    options = {"objective": objective, "max_steps": 9, "logging_steps": 4, "tokens_per_row": 40}
    options |= {"save_strategy": "steps", "save_steps": 3, "save_total_limit": None}
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    trainer(output_dir=str(whole), **options).train()
    for step in (3, 6):
        shutil.rmtree(resumed, ignore_errors=True)
        shutil.copytree(whole, resumed)
        run = trainer(output_dir=str(resumed), **options)
        told = run.train(resumed / f"checkpoint-{step}")
        assert [list(line.items()) for line in log_of(resumed)] == [
            list(line.items()) for line in log_of(whole)
        ]
        losses = [line["loss"] for line in log_of(whole)]
        assert 0 < told.training_loss < 2 * max(losses)


def test_rates_count_examples(trainer: Trainer) -> None:
    run = trainer(data=pairs(20), examples_per_step=6, tokens_per_row=30, max_steps=5)
    told = run.train().metrics
    assert run.plan is not None and run.plan.micro_batches > 1
    # one epoch of 6 + 6 + 6 + 2, and 6 of the next
    assert told["train_samples_per_second"] * told["train_runtime"] == pytest.approx(26, rel=0.05)


def test_the_model_that_is_kept_is_the_one_that_is_reported(tmp_path: Path) -> None:
    for name, seed in (("rows", 0), ("held-out", 1)):
        text = "".join(json.dumps(row) + "\n" for row in pairs(12, seed))
        (tmp_path / f"{name}.jsonl").write_text(text)
    every = {"max_steps": 5, "eval_steps": 1, "save_steps": 1, "save_total_limit": None, "logging_steps": 1}
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": False}
    folder = train({
        "model": saved_model(tmp_path / "model"),
        "data": {"train": str(tmp_path / "rows.jsonl"), "eval": str(tmp_path / "held-out.jsonl")},
        "output": str(tmp_path / "run"), "samples": 1,
        "training": {
            **every, **best, "examples_per_step": 4, "learning_rate": 0.3, "warmup_steps": 0,
            "use_cpu": True, "disable_tqdm": True,
        },
    })  # fmt: skip
    run = read(folder)
    kept = run.record["best"]
    losses = dict(run.series("eval/loss"))
    assert kept == {"step": kept["step"], "metric": "loss", "value": min(losses.values())}
    assert losses[5] > losses[kept["step"]] + 1e-3
    assert run.evaluation[0]["loss"] == pytest.approx(kept["value"], abs=1e-6)
    assert latest(run, "loss") == kept["value"]
    assert f"that of step {kept['step']}, the best by loss" in state_of(run)
    assert f"the weights of step {kept['step']}, the best by loss" in (folder / "model/README.md").read_text()
    saved, there = (
        load_file(place / "model.safetensors")
        for place in (folder / "model", folder / f"checkpoint-{kept['step']}")
    )
    assert all(torch.equal(value, there[name]) for name, value in saved.items())
    assert run.samples[0]["after"] is not None


def test_what_is_pushed_has_what_other_libraries_read(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: PreferenceTrainer = trainer(max_steps=1)
    beside: list[Path] = []
    monkeypatch.setattr(
        type(run.prepared.kind), "save_beside", lambda self, model, folder: beside.append(folder)
    )
    folder = Path(run.args.output_dir)
    run.save_model(str(folder / "checkpoint-1"), _internal_call=True)  # read again as it was trained
    assert not beside
    run.save_model(_internal_call=True)  # as a push does
    run.save_model(str(folder / "model"))
    assert beside == [folder, folder / "model"]
