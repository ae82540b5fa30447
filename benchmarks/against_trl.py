"""Whole training steps of prefero and of TRL's DPOTrainer on the same pairs, in the same order, in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.measure import MIB, Spread, machine
from benchmarks.rounds import cpu_per_step, interleave, loss_difference, peak, ratio, speeds
from benchmarks.settings import Round, Settings
from benchmarks.tables import machine_note, publish, table, verdict
from benchmarks.workload import Workload

TRL, TRL_PRECOMPUTED = "trl", "trl, reference precomputed"
LIVE, CACHED = "prefero", "prefero, reference cached"
LIVE_BF16, CACHED_BF16 = "prefero, bf16", "prefero, reference cached, bf16"

LIVE_TARGET, CACHED_TARGET, MEMORY_TARGET, LOSS_TOLERANCE = 6.5, 9.0, 0.25, 1e-4


def compare(workload: Workload, settings: Settings, *, rounds: int, bf16: bool, save: bool) -> None:
    """Run the comparison and publish it. TRL scores the reference every step unless its row says so."""
    before = machine()
    sides = [TRL, LIVE, CACHED, TRL_PRECOMPUTED, *([LIVE_BF16, CACHED_BF16] if bf16 else [])]
    measured = interleave(sides, settings, rounds)
    digests = {side: {each.tokens for each in results} for side, results in measured.items()}
    same_tokens = len(set().union(*digests.values())) == 1
    summary = {side: _summary(side, measured, settings) for side in sides}
    text = "\n\n".join(
        [
            "## Against TRL's DPOTrainer",
            f"{workload.note}\n\n{settings.pairs_per_step} pairs a step, float32 unless the row says bf16, "
            f"{len(measured[TRL][0].losses)} steps a round, the first not timed; median (lowest–highest) of "
            f"{rounds} rounds, sides in turn, each in a process of its own.\n\n{machine_note(before)}",
            _table(summary),
            "\n".join(_verdicts(summary, same_tokens)),
        ]
    )
    figures = {
        "machine": before,
        "workload": asdict(workload),
        "settings": asdict(settings) | {"folder": None},
        "same_tokens": same_tokens,
        "summary": summary,
        "rounds": {side: [asdict(each) for each in results] for side, results in measured.items()},
    }
    publish("against_trl", text, figures, save=save)


def _summary(side: str, measured: Mapping[str, Sequence[Round]], settings: Settings) -> dict[str, Any]:
    mine, trl = measured[side], measured[TRL]
    return {
        "pairs_per_second": asdict(Spread.of(speeds(mine, settings))),
        "cpu_seconds_per_step": Spread.of([cpu_per_step(each) for each in mine]).median,
        "times_trl": asdict(ratio(speeds(mine, settings), speeds(trl, settings))),
        "times_trl_precomputed": asdict(
            ratio(speeds(mine, settings), speeds(measured[TRL_PRECOMPUTED], settings))
        ),
        "peak_bytes": peak(mine),
        "peak_of_trl": peak(mine) / peak(trl),
        "setup_seconds": Spread.of([each.setup_seconds for each in mine]).median,
        "loss_difference": loss_difference(mine, trl),
    }


def _table(summary: Mapping[str, Mapping[str, Any]]) -> str:
    header = [
        "side",
        "pairs/s",
        "× TRL",
        "× TRL precomputed",
        "CPU s/step",
        "peak MiB",
        "of TRL",
        "set-up s",
        "max loss − TRL",
    ]
    return table(
        header,
        [
            [
                side,
                Spread(**row["pairs_per_second"]),
                Spread(**row["times_trl"]),
                Spread(**row["times_trl_precomputed"]),
                f"{row['cpu_seconds_per_step']:.2f}",
                f"{row['peak_bytes'] / MIB:.0f}",
                f"{row['peak_of_trl']:.2f}×",
                f"{row['setup_seconds']:.1f}",
                f"{row['loss_difference']:.1e}",
            ]
            for side, row in summary.items()
        ],
    )


def _verdicts(summary: Mapping[str, Mapping[str, Any]], same_tokens: bool) -> list[str]:
    agreement = max(summary[side]["loss_difference"] for side in (LIVE, CACHED))
    memory = max(summary[side]["peak_of_trl"] for side in (LIVE, CACHED))
    lines = [
        verdict(
            "reference scored every step in both, pairs per second over TRL's",
            summary[LIVE]["times_trl"]["median"],
            LIVE_TARGET,
            at_least=True,
        ),
        verdict(
            "prefero's reference cached, TRL's scored every step",
            summary[CACHED]["times_trl"]["median"],
            CACHED_TARGET,
            at_least=True,
        ),
        verdict("peak memory over TRL's", memory, MEMORY_TARGET, at_least=False),
        f"- reference scored once in both: {summary[CACHED]['times_trl_precomputed']['median']:.3g}×",
        f"- the same token ids in the same order on all sides: {'yes' if same_tokens else 'NO'}",
        f"- losses step by step differ by at most {agreement:.1e} (tolerance {LOSS_TOLERANCE:.0e}): "
        f"{'met' if agreement <= LOSS_TOLERANCE else 'MISSED'}",
    ]
    if LIVE_BF16 in summary:
        error = max(summary[side]["loss_difference"] for side in (LIVE_BF16, CACHED_BF16))
        lines.append(f"- bf16 autocast moves the losses by at most {error:.1e} from TRL's float32 ones")
    return lines
