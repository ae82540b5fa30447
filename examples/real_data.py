"""prefero on real preference data, with small models made on the spot.

    python -m examples.real_data hh --data ../shared/data --output runs/real

Three studies, minutes each on two cores:

- ``hh``: Anthropic's human preferences over dialogues (``hh_rlhf_harmless_test.jsonl.gz``), DPO and SimPO;
- ``pandalm``: three annotators, ties allowed (``pandalm_testset.json.gz``), TODO, which learns from ties;
- ``gsm8k``: models' solutions marked right or wrong (``gsm8k_example_model_solutions.jsonl.gz``), KTO.

Each holds out rows, makes a start model from the others (:mod:`examples.start_model`), and runs for every
method what a user would type: ``prefero train`` for one epoch, ``prefero report``. At the end a table says
how the held-out rows came out: by how much the implicit rewards of good responses exceed those of bad ones,
and the share of pairs in which they stand in the order that people gave, with its 95 % interval.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from examples.start_model import make
from prefero.data import load_rows
from prefero.evaluate import Interval, wilson


@dataclass(frozen=True)
class Study:
    """A data file and what is run on it.

    ``methods`` maps methods to the settings laid over the shared ones. ``rows`` of 0 takes all; ``held_out``
    of them are not trained on. ``roles`` are the responses that the start model learns from, ``()`` for all.
    """

    file: str
    methods: Mapping[str, Mapping[str, Any]]
    held_out: int
    roles: tuple[str, ...] = ()
    rows: int = 0
    vocabulary: int = 4096
    hidden: int = 256
    layers: int = 4
    max_length: int = 384
    start_epochs: float = 2
    settings: Mapping[str, Any] = field(default_factory=dict)


SETTINGS: Mapping[str, Any] = {
    "training.num_train_epochs": 1,
    "training.examples_per_step": 16,
    "training.learning_rate": 1e-4,
    "training.logging_steps": 5,
    "training.save_strategy": "no",
}

STUDIES: Mapping[str, Study] = {
    "hh": Study(
        "hh_rlhf_harmless_test.jsonl.gz",
        {"dpo": {"objective.beta": 0.1}, "simpo": {"objective.beta": 2.0, "objective.gamma": 1.0}},
        held_out=712,
        roles=("chosen",),
    ),
    "pandalm": Study("pandalm_testset.json.gz", {"todo": {}}, held_out=199),
    "gsm8k": Study("gsm8k_example_model_solutions.jsonl.gz", {"kto": {}}, held_out=120, rows=360),
}


@dataclass(frozen=True)
class Outcome:
    """One method on one study. ``margin`` is the mean reward of good responses minus that of bad ones,
    ``accuracy`` the share of pairs in the right order, None where the data have no pairs; both held out.
    ``moved`` is how far the weights went, relative to their size."""

    method: str
    steps: int
    first_loss: float
    last_loss: float
    held_out_loss: float
    margin: float
    accuracy: float | None
    interval: Interval | None
    moved: float
    seconds: float
    report: Path


def study(name: str, data: Path, output: Path, *, chosen: Study | None = None) -> list[Outcome]:
    """Run a study; everything it writes lies in ``output``."""
    study = chosen or STUDIES[name]
    output.mkdir(parents=True, exist_ok=True)
    training, held_out = split(study, data / study.file, output)
    start = output / "start"
    make(
        training,
        start,
        roles=study.roles,
        vocabulary=study.vocabulary,
        hidden=study.hidden,
        layers=study.layers,
        max_length=study.max_length,
        epochs=study.start_epochs,
    )
    return [run(study, method, start, training, held_out, output / method) for method in study.methods]


def split(study: Study, file: Path, output: Path) -> tuple[Path, Path]:
    """The rows as two files, drawn at random: to train on, and held out."""
    rows = [row.fields for row in islice(load_rows(file), study.rows or None)]
    order = np.random.default_rng(0).permutation(len(rows))
    paths = output / "train.jsonl", output / "held_out.jsonl"
    for path, part in zip(paths, (order[study.held_out :], order[: study.held_out]), strict=True):
        path.write_text("".join(json.dumps(rows[i], ensure_ascii=False) + "\n" for i in part), "utf-8")
    return paths


def run(study: Study, method: str, start: Path, training: Path, held_out: Path, folder: Path) -> Outcome:
    """``prefero train`` and ``prefero report``, as typed; then what the run folder says."""
    steps = -(-sum(1 for _ in training.open("rb")) // SETTINGS["training.examples_per_step"])
    settings = {
        **SETTINGS,
        "data.max_length": study.max_length,
        "training.eval_steps": steps,
        **study.settings,
        **study.methods[method],
    }
    prefero(
        "train",
        *("--model", start, "--data", training, "--eval-data", held_out),
        *("--method", method, "--output", folder),
        *(f"{key}={value}" for key, value in settings.items()),
    )
    prefero("report", folder)
    record = json.loads((folder / "run.json").read_text())
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    measured = next(line for line in reversed(lines) if "eval/loss" in line)
    accuracy = measured.get("eval/rewards/accuracies")
    pairs = record["data"]["eval"]["examples"]
    return Outcome(
        method,
        steps=max(line["step"] for line in lines),
        first_loss=losses[0],
        last_loss=losses[-1],
        held_out_loss=measured["eval/loss"],
        margin=measured["eval/rewards/margins"],
        accuracy=accuracy,
        interval=None if accuracy is None else wilson(accuracy, pairs),
        moved=distance(start, folder / "model"),
        seconds=record["seconds"],
        report=folder / "report.html",
    )


def prefero(*arguments: Any) -> None:
    """The command line, in a process of its own."""
    subprocess.run([sys.executable, "-m", "prefero", *map(str, arguments)], check=True)


def distance(start: Path, trained: Path) -> float:
    """Norm of the difference of all weights, over the norm of the first."""
    squares = np.zeros(2)
    with (
        safe_open(start / "model.safetensors", "np") as before,
        safe_open(trained / "model.safetensors", "np") as after,
    ):
        for name in before.keys():  # noqa: SIM118  (no mapping)
            old, new = before.get_tensor(name), after.get_tensor(name)
            squares += np.square(new - old).sum(dtype=np.float64), np.square(old).sum(dtype=np.float64)
    return float(np.sqrt(squares[0] / squares[1]))


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown."""
    lines = [
        "| method | steps | loss, first → last | held-out loss | margin | accuracy | weights moved | s |",
        "|--------|------:|-------------------:|--------------:|-------:|---------:|--------------:|--:|",
    ]
    for one in outcomes:
        accuracy = "–"
        if one.accuracy is not None and one.interval is not None:
            accuracy = f"{one.accuracy:.1%} ({one.interval.low:.1%}–{one.interval.high:.1%})"
        lines.append(
            f"| {one.method} | {one.steps} | {one.first_loss:.4f} → {one.last_loss:.4f} | "
            f"{one.held_out_loss:.4f} | {one.margin:.3f} | {accuracy} | {one.moved:.2%} | {one.seconds:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "studies", nargs="*", default=list(STUDIES), help=f"of {', '.join(STUDIES)}; all if none"
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data files")
    parser.add_argument("--output", type=Path, default=Path("runs/real"))
    parser.add_argument(
        "--rows", type=int, default=0, help="rows to take of each file; 0 for the study's own"
    )
    chosen = parser.parse_args()
    for name in chosen.studies:
        if name not in STUDIES:
            parser.error(f"there is no study {name!r}; there are {', '.join(STUDIES)}")
        of = STUDIES[name]
        if chosen.rows:
            of = replace(of, rows=chosen.rows, held_out=min(of.held_out, chosen.rows // 3))
        outcomes = study(name, chosen.data, chosen.output / name, chosen=of)
        reports = "\n".join(f"report: {one.report}" for one in outcomes)
        print(f"\n{name}\n\n{table(outcomes)}\n\n{reports}", flush=True)


if __name__ == "__main__":
    main()
