"""The best of the runs of a sweep, by what ``comparison.json`` says of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from prefero.errors import number_of

METRICS: Mapping[str, bool] = {
    "accuracy": True,
    "loss": False,
    "win_rate": True,
    "win_rate_against_chosen": True,
    "score": True,
}
"""What a sweep can choose by, and whether more of it is better: that of the reward on held-out pairs, the
objective's loss on them, and what ``samples.judge`` says of answers."""

JUDGED: Mapping[str, str | None] = {"win_rate": "start", "win_rate_against_chosen": "chosen", "score": None}
"""The metrics of a judge, and ``samples.against`` that they need."""

OTHER_ROWS = "the runs are measured on different held-out rows, and their results differ for that, too"


def short_keys(keys: Sequence[str]) -> list[str]:
    """The last parts of dotted keys; whole ones where two have the same."""
    last = [key.rpartition(".")[2] for key in keys]
    return [part if last.count(part) == 1 else key for key, part in zip(keys, last, strict=True)]


def measured(record: Mapping[str, Any]) -> dict[str, float]:
    """The result that a run is chosen by, of those that have one, in their order."""
    metric, rows = record["sweep"].get("metric"), record["evaluation"]["rows"]
    found = {str(row.get("method")): row.get(metric) for row in rows}
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def ranked(record: Mapping[str, Any]) -> list[str]:
    """The runs that are measured, the best first; equal ones in their order."""
    values = measured(record)
    return sorted(values, key=values.__getitem__, reverse=METRICS.get(record["sweep"].get("metric"), True))


def note(record: Mapping[str, Any]) -> str:
    """The caution that goes with the best of many; none with a single one."""
    order, values = ranked(record), measured(record)
    if len(order) < 2:
        return ""
    metric = record["sweep"]["metric"]
    named = metric.replace("_", " ")
    told = (
        f"The best of {len(order)} runs was chosen by its {named}, which therefore flatters it: "
        "measure the run that you choose on data that none was chosen by."
    )
    if len({str(record.get("held_out", {}).get(name)) for name in order}) > 1:
        told += f" {OTHER_ROWS[0].upper()}{OTHER_ROWS[1:]}."
    equal = sum(values[name] == values[order[0]] for name in order[1:])
    best = next(row for row in record["evaluation"]["rows"] if row.get("method") == order[0])
    ends = best.get("interval", {}).get(metric)
    within = sum(ends[0] <= values[name] <= ends[1] for name in order[1:]) if ends else 0
    if len(order) == 2:
        place = f" The other lies {'within' if within else 'outside'} its 95 % interval." if ends else ""
        return told + (" The other is as good." if equal else place)
    if equal:
        told += f" {number_of(equal, 'other')} {'is' if equal == 1 else 'are'} as good."
    return f"{told} Of the {len(order) - 1} others, {within} lie within its 95 % interval." if ends else told
