"""The whole path in a minute or two on a CPU: a world, preference pairs, methods, results.

It goes through the recipes, the trainer, the reference cache, the run folders and the report that real runs
use. The methods share start model, pairs, optimizer settings, held-out prompts and sampling noise. Their own
settings are the published defaults, in the papers' sums over tokens for DPO and IPO with one regularisation
strength of 0.1; none was searched for.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from transformers import LlamaForCausalLM, TrainerCallback, TrainerState

from prefero.demo.reviews import REVIEWS
from prefero.demo.start import StartModel, one_thread, quiet
from prefero.demo.text import HeldOut, Outcome, TextWorld
from prefero.errors import PreferoError
from prefero.evaluate.intervals import wilson
from prefero.objectives.configurations import from_config
from prefero.report.page import render
from prefero.storage import read_lines, write_json, write_lines
from prefero.training.config import TrainConfig
from prefero.training.run_folder import clear
from prefero.training.study import RECORD, compare

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "dpo": {"beta": 0.1},
    "ipo": {"tau": 0.1, "tokens": "sum"},
    "simpo": {"beta": 2.0, "gamma": 1.0},
}
LEARNING_RATE = 5e-4
HELD_OUT_PAIRS, REFERENCES = "held_out_pairs.jsonl", "references"
ACCURACY = "eval/rewards/accuracies"
KEPT_SAMPLES, SHOWN_SAMPLES = 32, 3


@dataclass(frozen=True)
class Demonstration:
    """A finished demonstration: the comparison ``folder``, its ``report``, and its table's contents."""

    folder: Path
    report: Path
    rows: tuple[Mapping[str, Any], ...]
    samples: Mapping[str, Sequence[Mapping[str, Any]]]
    seconds: float
    note: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "report": str(self.report),
            "evaluation": {"rows": list(self.rows)},
            "seconds": round(self.seconds, 1),
            "note": self.note,
        }

    def table(self) -> RenderableType:
        """The rows and some samples, for a terminal."""
        texts: list[RenderableType] = []
        for i, first in enumerate(next(iter(self.samples.values()))[:SHOWN_SAMPLES]):
            texts.append(Text(f"\n{first['prompt']}", style="bold"))
            grid = Table.grid(padding=(0, 2))
            grid.add_row("start", f"{first['scores']['before']:+.2f}", first["before"])
            for method, samples in self.samples.items():
                grid.add_row(method, f"{samples[i]['scores']['after']:+.2f}", samples[i]["after"])
            texts.append(grid)
        ending = Text(f"\n{self.seconds:.0f} seconds. Report: {self.report}")
        return Group(_numbers(self.rows), Text(self.note, style="dim"), *texts, ending)


def run(
    output: Path,
    *,
    seed: int = 0,
    methods: Sequence[str] = ("dpo", "ipo", "simpo"),
    console: Console | None = None,
    world: TextWorld = REVIEWS,
    pairs: int = 2048,
    epochs: float = 3,
    prompts: int = 1024,
    cache: Path | None = None,
) -> Demonstration:
    """Make the start model (or read it from ``cache``), draw pairs, align with ``methods`` and measure.

    ``output`` becomes a comparison folder with a run folder per method, and a report, in place of an earlier
    demonstration. ``console`` shows the progress. Everything computes on one thread. Raises
    :class:`PreferoError` for an ``output`` that holds something else, and for an unknown method.
    """
    _refuse_other_content(output)
    objectives = [{"method": key, **SETTINGS.get(key, {})} for key in methods]
    for objective in objectives:
        from_config(objective)
    began = time.monotonic()
    _clear(output)
    with one_thread(), quiet(), _bars(console or Console(stderr=True)) as bars:
        with bars.step("start model: a small Llama learns to write", world.recipe.steps) as report:
            start = world.start_model(cache, seed=seed, report=report)
        with bars.step("preference pairs: sampling and labelling"):
            config = _recipe(output, world, start, pairs, epochs, seed)
        compare(config, objectives, callbacks=[bars])
        runs = json.loads((output / RECORD).read_text(encoding="utf-8"))["runs"]
        with bars.step("held-out prompts: the start model"):
            held_out = HeldOut(world, start, prompts=prompts, seed=seed)
            rows = [{"method": "start", **held_out.measure(start.model).row()}]
        samples = {}
        for name in runs:
            with bars.step(f"held-out prompts: {name}"):
                outcome = held_out.measure(LlamaForCausalLM.from_pretrained(output / name / "model").eval())
            rows.append({"method": name, **_with_training(outcome.row(), output / name)})
            samples[name] = _samples(held_out, outcome)
            write_json(output / name / "evaluation.json", {"rows": [rows[0], rows[-1]]})
            write_lines(output / name / "samples.jsonl", samples[name])
        note = (
            f"world {world.name}, seed {seed}: {pairs} pairs, {prompts} held-out prompts, common noise; "
            "intervals are 95 %, over prompts, not over training seeds"
        )
        record = {"runs": runs, "world": world.name, "seed": seed, "note": note, "evaluation": {"rows": rows}}
        write_json(output / RECORD, record)
        page = render(output)
    return Demonstration(output, page, tuple(rows), samples, time.monotonic() - began, note)


def _refuse_other_content(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise PreferoError(f"{output} is a file; name a folder for the demonstration.")
    if output.is_dir() and any(output.iterdir()) and not (output / HELD_OUT_PAIRS).is_file():
        raise PreferoError(
            f"{output} holds something other than an earlier demonstration; name another folder."
        )


def _clear(output: Path) -> None:
    """Remove the runs of an earlier demonstration, and its cache of another start model's scores."""
    shutil.rmtree(output / REFERENCES, ignore_errors=True)
    (output / RECORD).unlink(missing_ok=True)
    for record in output.glob("*/run.json"):
        clear(record.parent)


def _recipe(
    output: Path, world: TextWorld, start: StartModel, pairs: int, epochs: float, seed: int
) -> TrainConfig:
    output.mkdir(parents=True, exist_ok=True)
    held_out = -(-pairs // 8)
    rows = world.preference_pairs(start, pairs + held_out, seed)
    write_lines(output / HELD_OUT_PAIRS, rows[-held_out:])
    write_lines(output / "pairs.jsonl", rows[:-held_out])
    return TrainConfig.parse(
        {
            "model": str(start.folder),
            "data": {"train": str(output / "pairs.jsonl"), "eval": str(output / HELD_OUT_PAIRS)},
            "reference": {"cache": str(output / REFERENCES)},
            "training": {
                "num_train_epochs": epochs,
                "learning_rate": LEARNING_RATE,
                "lr_scheduler_type": "linear",
                "save_strategy": "no",
                "disable_tqdm": True,
            },
            "samples": 0,
            "output": str(output),
            "seed": seed,
        }
    )


def _with_training(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The row with the held-out reward accuracy after the last step, and the seconds of training."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    logs = [one for one in read_lines(folder / "metrics.jsonl") if ACCURACY in one]
    if logs:
        accuracy, pairs = logs[-1][ACCURACY], record["data"]["eval"]["examples"]
        ends = wilson(accuracy, pairs)
        interval = {**row["interval"], "accuracy": [ends.low, ends.high]}
        row = {**row, "accuracy": accuracy, "interval": interval}
    return {**row, "seconds": record["seconds"]}


def _samples(held_out: HeldOut, outcome: Outcome) -> list[dict[str, Any]]:
    """Responses to the first held-out prompts, not selected by their scores."""
    return [
        {
            "prompt": before.prompt,
            "before": before.text,
            "after": after.text,
            "scores": {"before": held_out.gold(before), "after": held_out.gold(after)},
        }
        for before, after in zip(held_out.before[:KEPT_SAMPLES], outcome.samples, strict=False)
    ]


def _numbers(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Narrow enough for 80 columns; all intervals are in the report."""
    columns = {
        "gold\nreward": lambda row: _mean(row, "gold_reward"),
        "win rate\nagainst start": lambda row: _share(row, "win_rate"),
        "KL to\nstart": lambda row: f"{abs(row['kl']):.2f}",
        "mean\nlength": lambda row: f"{row['length']:.1f}",
        "valid\ntexts": lambda row: f"{row['valid']:.0%}" if "valid" in row else "",
        "held-out\npairs right": lambda row: _share(row, "accuracy"),
        "train-\ning": lambda row: f"{row['seconds']:.0f} s" if "seconds" in row else "",
    }
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("\nmethod", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(str(row["method"]), *(column(row) for column in columns.values()))
    return table


def _mean(row: Mapping[str, Any], name: str) -> str:
    low, high = row["interval"][name]
    return f"{row[name]:+.2f} ± {(high - low) / 2:.2f}"


def _share(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        return ""
    low, high = row["interval"][name]
    return f"{row[name]:.0%} [{100 * low:.0f}, {100 * high:.0f}]"


class _Bars(TrainerCallback):
    """A line of progress for every part of the demonstration, training runs included."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    @contextmanager
    def step(self, label: str, total: int = 1) -> Iterator[Callable[[int, int], None]]:
        """A part of ``total`` units, done when the block ends; yields what reports the units done."""
        task = self.progress.add_task(label, total=total)
        yield lambda done, total: self.progress.update(task, completed=done, total=total)
        self.progress.update(task, completed=total)

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        name = Path(str(args.output_dir)).name
        self.task = self.progress.add_task(f"training: {name}", total=state.max_steps)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        self.progress.update(self.task, completed=state.global_step)


@contextmanager
def _bars(console: Console) -> Iterator[_Bars]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        yield _Bars(progress)
