"""Sides in turn, round after round, each in a fresh process: what drifts on the machine drifts for all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from rich.console import Console

from benchmarks.measure import MIB, Spread
from benchmarks.settings import Round, Settings

ROOT = Path(__file__).resolve().parent.parent
progress = Console(stderr=True)


class SideFailed(Exception):
    """A side ended with an error; the message carries the end of what it printed."""


def interleave(sides: Sequence[str], settings: Settings, rounds: int) -> dict[str, list[Round]]:
    """``rounds`` runs of every side, the sides taking turns."""
    measured: dict[str, list[Round]] = {side: [] for side in sides}
    request = settings.folder / "settings.json"
    settings.save(request)
    for number in range(1, rounds + 1):
        for side in sides:
            with progress.status(f"round {number} of {rounds}: {side}"):
                result = _run(side, request)
            measured[side].append(result)
            seconds = median(result.step_seconds)
            peak = result.peak_bytes / MIB
            progress.print(
                f"round {number} of {rounds}: {side:<32} {seconds:7.2f} s/step "
                f"{cpu_per_step(result):7.2f} CPU s/step {peak:6.0f} MiB"
            )
    return measured


def _run(side: str, request: Path) -> Round:
    out = request.parent / "round.json"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.sides", side, str(request), str(out)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode:
        raise SideFailed(f"{side} ended with code {finished.returncode}:\n{finished.stderr[-4000:]}")
    return Round.load(out)


def speeds(rounds: Sequence[Round], settings: Settings) -> list[float]:
    """Pairs per second of every round, without its first step."""
    return [settings.pairs_per_step * len(each.step_seconds) / sum(each.step_seconds) for each in rounds]


def cpu_per_step(each: Round) -> float:
    """Mean seconds of all cores together: what a step costs, however busy the machine is."""
    return sum(each.cpu_seconds) / len(each.cpu_seconds)


def ratio(above: Sequence[float], below: Sequence[float]) -> Spread:
    """``above`` over ``below``, neighbours in time against each other."""
    return Spread.of([a / b for a, b in zip(above, below, strict=True)])


def peak(rounds: Sequence[Round]) -> float:
    """The largest memory of any round, in bytes: a process has to fit each time."""
    return max(each.peak_bytes for each in rounds)


def loss_difference(rounds: Sequence[Round], reference: Sequence[Round]) -> float:
    """The largest difference between the losses of any step; both sides saw the same batches."""
    return max(
        abs(a - b)
        for mine, theirs in zip(rounds, reference, strict=True)
        for a, b in zip(mine.losses, theirs.losses, strict=True)
    )
