"""What a preference step costs over a supervised one."""

from __future__ import annotations

from dataclasses import asdict

from benchmarks.against_trl import CACHED
from benchmarks.measure import MIB, Spread, machine
from benchmarks.rounds import cpu_per_step, interleave, peak, ratio
from benchmarks.settings import Settings
from benchmarks.tables import machine_note, publish, table, verdict
from benchmarks.workload import Workload

FORESTS, PADDED_ROWS = "cross-entropy, same forests", "cross-entropy, padded rows"
TARGET = 1.10


def compare(workload: Workload, settings: Settings, *, rounds: int, save: bool) -> None:
    """A whole step of the preference trainer (DPO, cached reference) over cross-entropy steps on the same
    pairs: a bare loop that scores the same forests in the same way, and ``transformers.Trainer`` on padded
    rows."""
    before = machine()
    sides = [CACHED, FORESTS, PADDED_ROWS]
    measured = interleave(sides, settings, rounds)
    seconds = {
        side: [sum(each.step_seconds) / len(each.step_seconds) for each in results]
        for side, results in measured.items()
    }
    over = {side: ratio(seconds[CACHED], seconds[side]) for side in sides}
    text = "\n\n".join(
        [
            "## A preference step over a supervised step",
            f"{workload.note}\n\n{settings.pairs_per_step} pairs a step, float32; median (lowest–highest) of "
            f"{rounds} rounds, sides in turn, each in a process of its own, its first step not timed. "
            "prefero's row is the whole trainer; the second is a bare loop over the same forests, minus the "
            "mean of the same log-probabilities; the third, for information, is transformers.Trainer on "
            f"padded rows.\n\n{machine_note(before)}",
            table(
                ["side", "s/step", "prefero over it", "CPU s/step", "peak MiB"],
                [
                    [
                        side,
                        Spread.of(seconds[side]),
                        over[side],
                        f"{Spread.of([cpu_per_step(each) for each in measured[side]]).median:.2f}",
                        f"{peak(measured[side]) / MIB:.0f}",
                    ]
                    for side in sides
                ],
            ),
            verdict(
                "DPO with cached reference over cross-entropy on the same forests",
                over[FORESTS].median,
                TARGET,
                at_least=False,
            ),
        ]
    )
    figures = {
        "machine": before,
        "workload": asdict(workload),
        "settings": asdict(settings) | {"folder": None},
        "over": {side: asdict(spread) for side, spread in over.items()},
        "rounds": {side: [asdict(each) for each in results] for side, results in measured.items()},
    }
    publish("step_cost", text, figures, save=save)
