"""A run that is killed and resumed is the run that was never interrupted, bit for bit; and one process is
many."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prefero.errors import PreferoError
from prefero.training.checkpoints import MARKER, complete_checkpoints, to_resume_from
from tests.forks import ROOT
from tests.training.processes import Trainings


def lines(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.endswith("_per_second")} for line in found]


def finished(folder: Path) -> bool:
    return json.loads((folder / "run.json").read_text())["finished"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = (folder / "model").glob("*model*.safetensors")
    return load_file(file) | load_file(folder / "objective.safetensors")


def assert_identical(first: Path, second: Path) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    assert lines(first) == lines(second)


def assert_close(first: Path, second: Path, tolerance: float = 1e-5) -> None:
    one, other = weights(first), weights(second)
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(
            other[name], value, atol=20 * tolerance, rtol=0, msg=lambda m, n=name: n + m
        )
    for name in ("loss", "rewards/margins", "logps/chosen"):
        expected = [line[name] for line in lines(first)]
        assert [line[name] for line in lines(second)] == pytest.approx(expected, abs=tolerance, rel=tolerance)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.oldest),
        {"objective": "beta_dpo", "learning_rate": 1e-3},
        pytest.param({"reference": {"kind": "moving", "every": 3}}, marks=pytest.mark.slow),
        pytest.param({"lora": True}, marks=pytest.mark.oldest),
        {"experts": True},
        {"objective": {"method": "dph", "pool": "tanh"}, "objective_learning_rate": 3e-2},
        pytest.param({"objective": "learned"}, marks=pytest.mark.slow),
    ],
    ids=["full", "objective with state", "moving reference", "adapters", "experts", "head", "learned"],
)
def test_killed_and_resumed_is_uninterrupted(run: Trainings, tmp_path: Path, options: dict[str, Any]) -> None:
    run(tmp_path / "whole", **options)
    assert finished(tmp_path / "whole")
    for kill in (3, 8):  # in the first and in the second epoch of five steps
        killed = tmp_path / f"killed-{kill}"
        run(killed, **options, kill=kill, expect=-signal.SIGKILL)
        assert not finished(killed)
        assert complete_checkpoints(killed)[-1].name == f"checkpoint-{kill // 2 * 2 - (kill % 2 == 0) * 2}"
        run(killed, **options, resume=True)
        assert finished(killed)
        assert_identical(tmp_path / "whole", killed)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.oldest),
        pytest.param({"parallel": "fsdp"}, marks=pytest.mark.oldest),
        {"objective": "dr_dpo", "tokens_per_row": 40},
        {"objective": "learned"},
        pytest.param({"objective": {"method": "gpm", "reduce": "soft_minimum"}}, marks=pytest.mark.slow),
        pytest.param({"parallel": "fsdp", "lora": True}, marks=pytest.mark.slow),
        pytest.param({"parallel": "fsdp", "experts": True}, marks=pytest.mark.slow),
    ],
    ids=["data parallel", "sharded", "whole step", "learned", "whole step, heads", "adapters", "experts"],
)
def test_two_processes_are_one(run: Trainings, tmp_path: Path, options: dict[str, Any]) -> None:
    alone = {name: value for name, value in options.items() if name != "parallel"}
    run(tmp_path / "one", **alone)
    two = tmp_path / "two"
    run(two, processes=2, **options)
    assert_close(tmp_path / "one", two)
    if options.get("objective") == "learned":
        assert abs(float(weights(two)["reward.arguments.0.factor"]) - 0.5) > 1e-3
    # Resumed in the second epoch, whose order is another one.
    shutil.rmtree(two / "model")
    for checkpoint in complete_checkpoints(two):
        if checkpoint.name not in ("checkpoint-6",):
            shutil.rmtree(checkpoint)
    assert len(complete_checkpoints(two)) == 1
    before = lines(two)
    run(two, processes=2, **options, resume=True)
    assert lines(two) == before
    assert_close(tmp_path / "one", two)


@pytest.mark.parametrize(
    "options",
    [
        {"tied": True, "objective": "tdpo2"},
        pytest.param({"reference": {"kind": "moving", "every": 2}}, marks=pytest.mark.slow),
        pytest.param({"lora": True, "objective": "tdpo2"}, marks=pytest.mark.slow),
    ],
    ids=["two-model signals, tied weights", "moving reference", "two-model signals, adapters"],
)
def test_sharded_models_beside_the_policy(run: Trainings, tmp_path: Path, options: dict[str, Any]) -> None:
    run(tmp_path / "one", **options)
    run(tmp_path / "two", processes=2, parallel="fsdp", **options)
    assert_close(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("parallel", ["auto", "fsdp"])
def test_killed_on_two_processes(run: Trainings, tmp_path: Path, parallel: str) -> None:
    options: dict[str, Any] = {"processes": 2, "parallel": parallel, "logging_steps": 4}  # none at step 6
    options["reference"] = {"kind": "moving", "every": 3}
    run(tmp_path / "whole", **options)
    run(tmp_path / "killed", **options, kill=8, expect=-signal.SIGKILL)
    run(tmp_path / "killed", **options, resume=True)
    assert_identical(tmp_path / "whole", tmp_path / "killed")


def test_ctrl_c_ends_the_step_and_leaves_a_checkpoint(run: Trainings, tmp_path: Path) -> None:
    run(tmp_path / "whole", save_strategy="no")
    for processes in (1, 2):
        folder = tmp_path / f"stopped-{processes}"
        text = run(folder, processes=processes, save_strategy="no", kill=3, signal=signal.SIGINT, expect=130)
        assert "interrupted: stopped after step" in text and "resume" in text
        assert len(complete_checkpoints(folder)) == 1
        assert not finished(folder)
        run(folder, processes=processes, save_strategy="no", resume="auto")
        assert_close(tmp_path / "whole", folder)


def test_a_checkpoint_that_was_cut_off_does_not_count(run: Trainings, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(folder, max_steps=5)
    latest = complete_checkpoints(folder)[-1]
    (latest / MARKER).unlink()
    assert to_resume_from(folder, True).name == "checkpoint-4"
    with pytest.raises(PreferoError, match="no whole checkpoint"):
        to_resume_from(folder, str(latest))
    shutil.rmtree(folder / "checkpoint-4"), shutil.rmtree(folder / "checkpoint-2")
    assert to_resume_from(folder, "auto") is None
    with pytest.raises(PreferoError, match="no whole checkpoint to resume from"):
        to_resume_from(folder, True)


def test_another_run_cannot_go_on(run: Trainings, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(folder, max_steps=2)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"seed": 1}, "seed was 0, and is 1"),
        ({"examples_per_step": 4}, "examples_per_step was 6, and is 4"),
        ({"objective": {"method": "dpo", "beta": 0.2}}, "objective.beta was 0.1, and is 0.2"),
        ({"max_length": 10}, "the rows, or how they become tokens, are other ones (max_length was 32"),
        ({"processes": 2, "tokens_per_row": 32}, "processes was 1, and is 2"),
    ]
    for changed, named in changes:
        text = run(folder, max_steps=4, resume=True, expect=1, **changed)
        assert "PreferoError" in text and "cannot be resumed" in text and named in text
    run(folder, max_steps=4, resume=True)
    assert finished(folder)


@pytest.mark.slow
def test_torchrun(tmp_path: Path) -> None:
    for name, options in {"data": {}, "sharded": {"parallel": "fsdp"}}.items():
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        subprocess.run(
            [*launch, "-m", "tests.training.processes", str(tmp_path / name), json.dumps(options)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PREFERO_CACHE": str(tmp_path / "references")},
            check=True,
            timeout=300,
        )
    assert_close(tmp_path / "data", tmp_path / "sharded")
