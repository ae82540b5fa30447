"""``python -m benchmarks``: all comparisons, or the one that is named."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from benchmarks import against_trl, checkpoints, inspection, length_control, lists, sharing, step_cost
from benchmarks.rounds import SideFailed
from benchmarks.settings import Settings
from benchmarks.workload import Workload, prepare
from prefero.errors import PreferoError

DATA = str(Path(__file__).resolve().parents[2] / "shared" / "data" / "hh_rlhf_harmless_test.jsonl.gz")

Data = Annotated[str, typer.Option("--data", help="Preference data: a file, a folder or a hub name.")]
Pairs = Annotated[int, typer.Option("--pairs", min=16, help="Pairs in a round, a multiple of 8.")]
Rounds = Annotated[int, typer.Option("--rounds", min=1, help="How often every side runs.")]
Threads = Annotated[int, typer.Option("--threads", min=0, help="Threads of torch; 0 leaves its own choice.")]
Quick = Annotated[bool, typer.Option("--quick", help="Two steps, one round: does it work, not how fast.")]
Save = Annotated[bool, typer.Option("--save", help="Keep the results under benchmarks/results.")]
Seed = Annotated[int, typer.Option("--seed", min=0)]

app = typer.Typer(add_completion=False, no_args_is_help=False, pretty_exceptions_enable=False)


@contextmanager
def workload(data: str, pairs: int, threads: int, seed: int) -> Iterator[tuple[Workload, Settings]]:
    """A folder with model and pairs, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="prefero-benchmark-") as folder:
        settings = Settings(Path(folder), threads=threads, seed=seed)
        settings.apply_threads()
        if pairs % settings.pairs_per_step:
            raise PreferoError(
                f"--pairs {pairs} is not a multiple of the {settings.pairs_per_step} in a step"
            )
        yield prepare(data, pairs, settings), settings


@app.command("train")
def against_trl_command(
    data: Data = DATA,
    pairs: Pairs = 88,
    rounds: Rounds = 3,
    threads: Threads = 0,
    bf16: Annotated[bool, typer.Option("--bf16", help="Also time prefero under bf16 autocast.")] = False,
    quick: Quick = False,
    save: Save = False,
    seed: Seed = 0,
) -> None:
    """Training steps of prefero and of TRL's DPOTrainer on the same pairs."""
    pairs, rounds = (16, 1) if quick else (pairs, rounds)
    with workload(data, pairs, threads, seed) as (prepared, settings):
        against_trl.compare(prepared, settings, rounds=rounds, bf16=bf16, save=save)


@app.command("step")
def step_command(
    data: Data = DATA,
    pairs: Pairs = 88,
    rounds: Rounds = 3,
    threads: Threads = 0,
    quick: Quick = False,
    save: Save = False,
    seed: Seed = 0,
) -> None:
    """A DPO step with cached reference, against cross-entropy steps."""
    pairs, rounds = (16, 1) if quick else (pairs, rounds)
    with workload(data, pairs, threads, seed) as (prepared, settings):
        step_cost.compare(prepared, settings, rounds=rounds, save=save)


@app.command("lists")
def lists_command(
    responses: Annotated[int, typer.Option("--responses", min=2)] = 8,
    prompt: Annotated[int, typer.Option("--prompt", min=1, help="Tokens of the prompt.")] = 256,
    length: Annotated[int, typer.Option("--length", min=1, help="Tokens of a response.")] = 64,
    rounds: Rounds = 7,
    threads: Threads = 0,
    quick: Quick = False,
    save: Save = False,
    seed: Seed = 0,
) -> None:
    """Lists of K responses, prompts shared or repeated."""
    if threads:
        torch.set_num_threads(threads)
    lists.compare(
        responses=responses,
        prompt=prompt,
        length=length,
        rounds=1 if quick else rounds,
        seed=seed,
        save=save,
    )


@app.command("sharing")
def sharing_command(
    data: Data = DATA,
    pairs_per_step: Annotated[int, typer.Option("--examples-per-step", min=1)] = 8,
    max_length: Annotated[int, typer.Option("--max-length", min=2)] = 1024,
    save: Save = False,
    seed: Seed = 0,
) -> None:
    """What sharing will save on a data file, before any model runs."""
    sharing.estimate_file(data, per_step=pairs_per_step, max_length=max_length, seed=seed, save=save)


@app.command("inspect")
def inspect_command(
    rows: Annotated[int, typer.Option("--rows", min=100)] = 100_000, save: Save = False, seed: Seed = 0
) -> None:
    """What looking at a data set costs, on pairs that are made up."""
    inspection.measure(rows, seed=seed, save=save)


@app.command("checkpoints")
def checkpoints_command(
    mebibytes: Annotated[int, typer.Option("--mebibytes", min=3, help="Size of the checkpoint.")] = 1536,
    rounds: Rounds = 3,
    quick: Quick = False,
    save: Save = False,
    seed: Seed = 0,
) -> None:
    """What the digests of a checkpoint cost, beside writing it."""
    small = (12, 1) if quick else (mebibytes, rounds)
    checkpoints.measure(small[0], rounds=small[1], seed=seed, save=save)


@app.command("length-control")
def length_control_command(
    checkout: Annotated[Path, typer.Argument(help="A folder of tatsu-lab/alpaca_eval.")],
    save: Save = False,
    seed: Seed = 0,
) -> None:
    """Length-controlled win rates beside the published ones. It needs AlpacaEval's annotations, and is no
    part of a run without a command."""
    length_control.measure(checkout, seed=seed, save=save)


@app.callback(invoke_without_command=True)
def everything(context: typer.Context, quick: Quick = False, save: Save = False) -> None:
    """What prefero costs, measured. Without a command: all of it, with each command's defaults."""
    if context.invoked_subcommand is None:
        sharing_command(save=save)
        inspect_command(rows=2000 if quick else 100_000, save=save)
        checkpoints_command(quick=quick, save=save)
        lists_command(quick=quick, save=save)
        step_command(quick=quick, save=save)
        against_trl_command(quick=quick, save=save)


def main() -> int:
    try:
        app(standalone_mode=False)
    except (PreferoError, SideFailed) as error:
        Console(stderr=True).print(str(error), style="red", markup=False)
        return 2
    except (typer.Abort, typer.Exit) as ended:
        return getattr(ended, "exit_code", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
