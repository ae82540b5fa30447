"""Commands that are killed at random moments, sixty times over all of them, leave in the end what they leave
without a kill: the same weights, metrics, evaluations, scores, rows and archives."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.forks import Forks
from tests.kills import Command, Series, Shown
from tests.training.tiny import pairs, saved_model

pytestmark = pytest.mark.kills

KILLS, SEED = 6, int(os.environ.get("KILLS_SEED", "0"))
"""Kills of every command, and the seed of their moments."""

TIMES = ("seconds", "created", "eval/runtime")

STEPS = {
    "num_train_epochs": 2,
    "examples_per_step": 6,
    "save_steps": 2,
    "eval_steps": 3,
    "logging_steps": 1,
    "learning_rate": 1e-2,
    "use_cpu": True,
    "resume_from_checkpoint": "auto",
}


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    forks = Forks("tests.kills", tmp_path_factory.mktemp("logs"))
    yield forks
    forks.close()


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models and rows."""
    folder = tmp_path_factory.mktemp("given")
    saved_model(folder / "model")
    several, labelled = pairs(32), pairs(16, seed=1)
    rows = {
        "pairs": several,
        "many": pairs(600, seed=2),
        "labelled": [
            {"prompt": row["prompt"], "completion": row[name], "label": name == "chosen"}
            for row in labelled
            for name in ("chosen", "rejected")
        ],
    }
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    return folder


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        kept = (name for name in value if name not in TIMES and not name.endswith("_per_second"))
        return {name: without_times(value[name]) for name in kept}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def content(file: Path) -> Any:
    """The values of a file without times, or its bytes."""
    if file.suffix == ".json":
        return without_times(json.loads(file.read_text()))
    if file.suffix == ".jsonl":
        return [without_times(json.loads(line)) for line in file.read_text().splitlines()]
    return file.read_bytes()


def files(folder: Path, *patterns: str) -> Shown:
    """The content of the files below a folder that a pattern finds, and the names of all."""
    found = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    shown = {str(file.relative_to(folder)): content(file) for file in sorted(found)}
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    return shown | {"names": [name for name in names if not name.startswith("cache/")]}


def of_runs(folder: Path) -> Shown:
    """Weights and records of all runs below a folder."""
    names = ("metrics.jsonl", "evaluation.json", "samples.jsonl", "comparison.json", "model/*.safetensors")
    return files(folder, *(f"**/{name}" for name in names))


def of_inspection(folder: Path) -> Shown:
    """The rows that were kept, and the page without the costs, which are measured."""
    shown = dict(files(folder, "*"))
    lines = shown["page.html"].splitlines()
    assert any(b"What training will cost" in line for line in lines)
    return shown | {"page.html": [line for line in lines if b"What training will cost" not in line]}


def of_cache(folder: Path) -> Shown:
    """All scores that a cache of reference scores holds, in whichever of its files."""
    scores = {}
    for file in folder.rglob("*.safetensors"):
        shard = load_file(file)
        parts = np.split(shard["values"], shard["stops"][:-1])
        scores |= {bytes(key).hex(): part.tolist() for key, part in zip(shard["keys"], parts, strict=True)}
    return scores


def training(given: Path, *options: str, data: str = "pairs", command: str = "train") -> tuple[str, ...]:
    settings = [f"training.{name}={value}" for name, value in STEPS.items()]
    files = ("--model", str(given / "model"), "--data", str(given / f"{data}.jsonl"))
    return (command, *files, "--eval-data", "0.2", "--output", "run", *settings, *options)


def commands(given: Path) -> dict[str, Command]:
    moving = ("reference.kind=moving", "reference.every=3")
    lora = ("model.lora.r=2",)
    many, model = str(given / "many.jsonl"), str(given / "model")
    inspection = ("inspect", many, "--model", model, "--output", "page.html")
    inspection += ("--without", "duplicates", "--save", "kept.jsonl", "--overwrite")
    search = ("discover", "--world", "bandit", "--pairs", "64", "--prompts", "16", "--rounds", "6")
    return {
        "dpo": Command(training(given, "samples.every=3", "samples.max_new_tokens=5"), of_runs),
        "kto": Command(training(given, "--method", "kto", data="labelled"), of_runs),
        "lora": Command(training(given, *lora), of_runs),
        "moving": Command(training(given, *moving), of_runs),
        "dropout": Command(
            training(given, *lora, "model.lora.dropout=0.3", "training.dropout=true"), of_runs
        ),
        "fsdp": Command(training(given, "training.parallel=fsdp"), of_runs, processes=2),
        "compare": Command(training(given, "--methods", "dpo,simpo,ipo", command="compare"), of_runs),
        "sweep": Command(training(given, "--over", "objective.beta=0.05,0.5", command="sweep"), of_runs),
        "cache": Command(
            training(given, "training.max_steps=1", data="many"),
            lambda folder: of_runs(folder) | of_cache(folder / "cache"),
        ),
        "inspect": Command(inspection, of_inspection),
        "discover": Command(search, lambda folder: files(folder, "**/*"), again=("--resume",)),
        "reproduce": Command(
            ("reproduce", "exo", "--seeds", "2", "--jobs", "1", "--output", "reproduced"),
            lambda folder: files(folder, "**/*.json*"),
        ),
    }


NAMES = tuple(commands(Path()))


@pytest.mark.parametrize("name", NAMES)
def test_a_command_that_is_killed_ends_as_one_that_is_not(
    name: str, forks: Forks, given: Path, tmp_path: Path
) -> None:
    series = Series(forks, tmp_path / name, commands(given)[name], Random(f"{SEED} {name}"))
    series.run(KILLS)
    print(f"{name}: {series.kills} kills in {series.chains} chains")
    assert series.differences == []


def test_the_kills_are_sixty() -> None:
    assert KILLS * len(NAMES) >= 60
