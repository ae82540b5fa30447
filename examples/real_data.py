"""prefero on real preference data with a real pre-trained model, SmolLM2-135M-Instruct.

    python -m examples.real_data hh --data ../shared/data --output runs/real

Three studies, each in a process of its own:

- ``hh``: Anthropic's human preferences over dialogues (``hh_rlhf_harmless_test.jsonl.gz``), DPO of all
  weights and with adapters;
- ``pandalm``: three annotators, ties allowed (``pandalm_testset.json.gz``), SimPO;
- ``gsm8k``: models' solutions marked right or wrong (``gsm8k_example_model_solutions.jsonl.gz``), KTO.

Each holds out prompts, then types what a user would: ``prefero preview``, ``prefero inspect``, and for every
run ``prefero train``. Afterwards the trained folder is loaded with plain transformers (adapters are merged by
PEFT), the held-out pairs are scored with it, and a table says how they came out (:class:`Outcome`). Reports,
pages, tables and what the commands print (``commands.log``) stay in the output folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import groupby
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from benchmarks.measure import machine
from benchmarks.tables import machine_note, table
from examples import real_model
from prefero.data import Cell, load_examples, load_rows, tokenize
from prefero.data.arrange import PAIR
from prefero.evaluate import RankingAccuracy, pair_logps, ranking_accuracy
from prefero.evaluate.ranking import PairLogps

MAX_LENGTH = 256
"""Most tokens of a prompt with a response; longer examples are left out and counted."""

TOKENS_PER_ROW = 1024
"""Of one forward pass: on a CPU, short ones are faster than those that suit a GPU."""

SETTINGS: Mapping[str, Any] = {
    "data.max_length": MAX_LENGTH,
    "data.too_long": "drop",
    "training.num_train_epochs": 1,
    "training.examples_per_step": 16,
    "training.learning_rate": 2e-5,
    "training.precision": "bfloat16",
    "training.tokens_per_row": TOKENS_PER_ROW,
    "training.logging_steps": 5,
    "training.eval_strategy": "epoch",
    "training.save_strategy": "no",
    "training.overwrite": "true",
}


@dataclass(frozen=True)
class Study:
    """A data file, and the runs on it by name, each the settings that are laid over the shared ones.

    ``prompt`` names what rows of one prompt have in common; rows of ``held_out`` prompts are not trained on.
    So many prompts of the file are used, drawn at random; 0 takes all others to train on.
    """

    file: str
    prompt: Callable[[Mapping[str, Any]], str]
    runs: Mapping[str, Mapping[str, Any]]
    training: int
    held_out: int


STUDIES: Mapping[str, Study] = {
    "hh": Study(
        "hh_rlhf_harmless_test.jsonl.gz",
        # dialogues may have their first turns in common
        lambda row: row["chosen"].split("\n\nAssistant:")[0],
        {
            "dpo-full": {"objective.method": "dpo", "objective.beta": 0.1},
            "dpo-lora": {
                "objective.method": "dpo",
                "objective.beta": 0.1,
                "model.lora.r": 16,
                "training.learning_rate": 2e-4,
            },
        },
        training=600,
        held_out=1330,
    ),
    "pandalm": Study(
        "pandalm_testset.json.gz",
        lambda row: json.dumps([row["instruction"], row["input"]]),
        {"simpo": {"objective.method": "simpo", "objective.beta": 2.0, "objective.gamma": 1.0}},
        training=0,
        held_out=60,
    ),
    "gsm8k": Study(
        "gsm8k_example_model_solutions.jsonl.gz",
        lambda row: row["question"],
        {"kto": {"objective.method": "kto", "objective.beta": 0.1}},
        training=300,
        held_out=400,
    ),
}


@dataclass(frozen=True)
class Outcome:
    """One run. All shares are of the same held-out pairs, with Wilson's 95 % interval over pairs.

    ``start`` and ``trained`` are the shares in which that model gives the chosen response the higher
    log-probability per token, ``reward`` the share in which the log-probability of the chosen one rose more
    (the implicit reward of DPO and KTO; before training it is 0 everywhere). ``examples`` were trained on;
    ``left_out`` were too long or say nothing to the method, of the training and the held-out part together.
    """

    run: str
    method: str
    examples: int
    left_out: int
    start: RankingAccuracy
    trained: RankingAccuracy
    reward: RankingAccuracy
    folder: Path


def measure(names: Sequence[str], data: Path, output: Path) -> list[Outcome]:
    """Run the studies of these names on the files in ``data``, as many at once as there are cores.

    ``output`` gets a folder for each, and in ``table.md`` the table of all runs so far and the machine, which
    is printed after each study.
    """
    where, cores = machine(), os.cpu_count() or 1
    start = output / "start"
    if not start.exists():
        real_model.write(start)
    done: dict[str, list[Outcome]] = {}
    workers = min(cores, len(names))
    os.environ["OMP_NUM_THREADS"] = str(cores // workers)  # of the processes to come
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        studies = {pool.submit(measured, name, start, data, output / name): name for name in names}
        for study in as_completed(studies):
            done[studies[study]] = study.result()
            outcomes = [one for name in names for one in done.get(name, [])]
            text = f"{as_table(outcomes)}\n\n{machine_note(where)}\n"
            (output / "table.md").write_text(text, "utf-8")
            print(f"\n{text}", flush=True)
    return outcomes


def measured(name: str, start: Path, data: Path, output: Path) -> list[Outcome]:
    """Run one study; everything it writes lies in ``output``."""
    study = STUDIES[name]
    output.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()

    def say(what: str) -> None:
        print(f"{(time.monotonic() - begun) / 60:4.1f} min, {name}: {what}", flush=True)

    training, held_out = split(study, data / study.file, output)
    say("scores of the start")
    pairs = held_out_pairs(start, held_out)
    before = scored(start, pairs)
    say("preview and inspection")
    look(study, start, training, held_out, output)
    outcomes = []
    for run, settings in study.runs.items():
        folder = output / run
        say(f"training of {run}")
        train(start, training, held_out, folder, settings)
        say(f"scores of {run}")
        outcomes.append(outcome(run, folder, pairs, before))
    say("done")
    return outcomes


def split(study: Study, file: Path, output: Path) -> tuple[Path, Path]:
    """The rows as two files, to train on and held out: all rows of a prompt stand in the same one."""
    rows = sorted((row.fields for row in load_rows(file)), key=study.prompt)
    prompts = [list(group) for _, group in groupby(rows, study.prompt)]
    order = np.random.default_rng(0).permutation(len(prompts))
    held_out, others = order[: study.held_out], order[study.held_out :]
    paths = output / "train.jsonl", output / "held_out.jsonl"
    for path, part in zip(paths, (others[: study.training or None], held_out), strict=True):
        lines = [json.dumps(row, ensure_ascii=False) for place in part for row in prompts[place]]
        path.write_text("\n".join(lines) + "\n", "utf-8")
    return paths


def look(study: Study, start: Path, training: Path, held_out: Path, output: Path) -> None:
    """``prefero preview`` and ``prefero inspect``, as typed."""
    method = next(iter(study.runs.values()))["objective.method"]
    seen_by = ("--model", start, "--max-length", MAX_LENGTH)
    log, page = output / "commands.log", output / "inspection.html"
    prefero(log, "preview", training, "--method", method, "--too-long", "drop", *seen_by)
    prefero(log, "inspect", training, "--eval-data", held_out, "--rows", 64, "--output", page, *seen_by)


def train(start: Path, training: Path, held_out: Path, folder: Path, settings: Mapping[str, Any]) -> None:
    """``prefero train``, as typed. The runs of a study share their reference scores."""
    prefero(
        folder.parent / "commands.log",
        "train",
        *("--model", start, "--data", training, "--eval-data", held_out, "--output", folder),
        *(f"{key}={value}" for key, value in {**SETTINGS, **settings}.items()),
        f"reference.cache={folder.parent / 'references'}",
    )


def prefero(log: Path, *arguments: Any) -> None:
    """The command line, in a process of its own; what it prints is added to ``log``.

    Raises :class:`RuntimeError` with the end of that if it fails.
    """
    command = [sys.executable, "-m", "prefero", *map(str, arguments)]
    with log.open("a", encoding="utf-8") as file:
        file.write(f"\n$ prefero {' '.join(command[3:])}\n")
        file.flush()
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    if code != 0:
        end = log.read_text("utf-8")[-2000:]
        raise RuntimeError(f"prefero {arguments[0]} ended with {code}; {log} ends with\n{end}")


def held_out_pairs(start: Path, file: Path) -> list[tuple[Cell, Cell]]:
    """The held-out pairs as tokens, ties left out; of several marked solutions a right and a wrong one."""
    tokenizer = AutoTokenizer.from_pretrained(start)
    read = tokenize(load_examples(file), tokenizer, roles=PAIR, max_length=MAX_LENGTH, too_long="drop")
    return [(example.cells[0], example.cells[1]) for example in read]


def loaded(folder: Path) -> PreTrainedModel:
    """A model's folder as transformers loads it; adapters are merged into their model by PEFT."""
    if (folder / "adapter_config.json").exists():
        return AutoPeftModelForCausalLM.from_pretrained(folder).merge_and_unload()
    return AutoModelForCausalLM.from_pretrained(folder)


def scored(folder: Path, pairs: Sequence[tuple[Cell, Cell]]) -> PairLogps:
    """Log-probabilities of pairs, in the precision of training."""
    with torch.autocast("cpu", torch.bfloat16):
        return pair_logps(loaded(folder), pairs, tokens_per_row=TOKENS_PER_ROW)


def outcome(run: str, folder: Path, pairs: Sequence[tuple[Cell, Cell]], before: PairLogps) -> Outcome:
    """What the run's folder says, and how its model orders the held-out pairs."""
    record = json.loads((folder / "run.json").read_text("utf-8"))
    after = scored(folder / "model", pairs)
    return Outcome(
        run,
        record["method"]["key"],
        examples=record["data"]["train"]["examples"],
        left_out=sum(sum(record["data"][part]["dropped"].values()) for part in ("train", "eval")),
        start=ranking_accuracy(before.margin(per_token=True).tolist()),
        trained=ranking_accuracy(after.margin(per_token=True).tolist()),
        reward=ranking_accuracy((after.margin() - before.margin()).tolist()),
        folder=folder,
    )


def as_table(outcomes: Sequence[Outcome]) -> str:
    """Markdown."""

    def share(of: RankingAccuracy) -> str:
        return f"{of.accuracy:.1%} [{of.interval.low:.1%}, {of.interval.high:.1%}]"

    header = [
        "run",
        "trained on",
        "held-out pairs",
        "left out",
        "likelier: start",
        "trained",
        "implicit reward",
    ]
    rows = [
        [
            one.run,
            f"{one.examples:,}",
            f"{one.reward.pairs:,}",
            f"{one.left_out:,}",
            share(one.start),
            share(one.trained),
            share(one.reward),
        ]
        for one in outcomes
    ]
    return table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "studies", nargs="*", default=list(STUDIES), help=f"of {', '.join(STUDIES)}; all if none"
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data files")
    parser.add_argument("--output", type=Path, default=Path("runs/real"))
    given = parser.parse_args()
    for name in given.studies:
        if name not in STUDIES:
            parser.error(f"there is no study {name!r}; there are {', '.join(STUDIES)}")
    measure(given.studies, given.data, given.output)


if __name__ == "__main__":
    main()
